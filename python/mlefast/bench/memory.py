"""Peak memory of a call, whoever allocates it: the system's count of resident pages, which sees C and C++ as well."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PROCESS = Path("/proc/self")


def extra_peak(call: Callable[[], Any]) -> int | None:
    """Call a function; return by how many bytes its peak exceeded what was resident before.

    Memory that the C library holds for reuse is given back first, else the call could take it unseen. The system counts
    in steps of up to 64 pages for each thread, a quarter of a megabyte.

    Returns
    -------
    int or None
        None where the system does not tell (outside Linux, or without write access to ``/proc/self/clear_refs``).
    """
    _trim()
    if not _reset_peak():
        call()
        return None
    before = _status("VmRSS")
    result = call()  # alive until the peak is read
    peak = _status("VmHWM")
    del result
    return max(0, peak - before)


def _reset_peak() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    match = re.search(rf"^{name}:\s*(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    return int(match[1]) << 10 if match else 0


def _trim() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU C library
    if trim is not None:
        trim(0)
