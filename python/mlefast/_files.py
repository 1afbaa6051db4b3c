"""Files: written whole or not at all, and what libraries raise at those that they cannot read."""

from __future__ import annotations

import contextlib
import csv
import os
import secrets
import shutil
import signal
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# What NumPy, SciPy, pandas, PyArrow and Pillow raise at files that are cut off, damaged or of another kind.
BROKEN_FILE = (
    ValueError,
    OSError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    csv.Error,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing bytes that takes its place only once it is complete and on the disk.

    If writing fails, a file that is already there is left as it was, and nothing else is left behind. Raises OSError
    if there is no such folder, or if it takes no file of this name.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    temporary = _temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_npz(file: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Write an uncompressed archive of arrays, after which Ctrl-C that came meanwhile takes effect.

    Interrupted at once, the archive would be closed while a member is open, and zipfile's ValueError about that would
    take KeyboardInterrupt's place.
    """
    with _interrupts_deferred():
        np.savez(file, **arrays)


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    # Python interrupts only the main thread, and only there handlers are set; None is one that C code has set.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    received = []
    handler = signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def check_writable(path: Path) -> None:
    """Raise OSError if :func:`open_atomically` would not work, without touching what is there."""
    path = Path(os.path.realpath(path))
    temporary = _temporary_beside(path)
    temporary.open("xb").close()
    temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a renaming last: on a power failure, a folder may otherwise go back to the file before it."""
    if os.name != "posix":  # elsewhere folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_beside(path: Path) -> Path:
    if path.exists() and not path.is_file():
        raise OSError("it is there and is no regular file")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError("it is there and write-protected")
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")


def one_line(error: BaseException) -> str:
    """Return what went wrong on one line, without the names of temporary files."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()) or type(error).__name__
