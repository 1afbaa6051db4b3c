"""The command line: ``mlefast train``, ``evaluate``, ``predict``, ``bench`` and ``info``."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

__all__ = ["main"]

_USER_ERROR = 2
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit status.

    The status is 0, or 2 after one line about an error that the user can mend, or 130 after Ctrl-C; a fit that Ctrl-C
    has ended still writes what there is of its model.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments without the program's name; by default those of this process.

    Raises
    ------
    SystemExit
        Always.
    """
    try:
        sys.exit(_run(args))
    except KeyboardInterrupt:
        _leave("interrupted", _INTERRUPTED)


def _run(args: Sequence[str] | None) -> int:
    try:
        import typer
    except ImportError as error:
        _leave(f'error: the command line needs {error.name}, which is not installed; pip install "mlefast[cli]"')
    from mlefast.cli.app import app
    from mlefast.data import DataError
    from mlefast.model_file import ModelFileError

    # Of click, or of the copy of click that newer versions of typer hold.
    usage_error: Any = typer.BadParameter.__base__
    try:
        command = typer.main.get_command(app)
        with _warnings_on_one_line():
            status = command.main(args, prog_name="mlefast", standalone_mode=False)
        sys.stdout.flush()
    except usage_error as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        _leave(f"error: {error.format_message()}{hint}")
    except (DataError, ModelFileError) as error:
        _leave(f"error: {error}")
    except ValueError as error:
        if type(error).__name__ != "CheckpointError":  # whose module would load scikit-learn
            raise
        _leave(f"error: {error}")
    except BrokenPipeError:  # the reader, such as head, has seen enough
        _flush_or_drop_output()
        return 1
    except OSError as error:
        _flush_or_drop_output()
        _leave(f"error: {error.filename or 'output'}: {error.strerror or error}")
    if status == _INTERRUPTED:  # typer has caught Ctrl-C
        raise KeyboardInterrupt
    return int(status or 0)


@contextlib.contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Show warnings about data as errors are shown, each of them."""
    from mlefast.data import DataWarning

    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *args: Any, **options: Any) -> None:
            if issubclass(category, DataWarning):
                print("mlefast: warning:", " ".join(str(message).split()), file=sys.stderr)
            else:
                show_others(message, category, *args, **options)

        warnings.showwarning = show
        warnings.simplefilter("always", DataWarning)
        yield


def _flush_or_drop_output() -> None:
    """Leave nothing to be flushed at exit, where what fails now would fail again and be shown to the user."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str, status: int = _USER_ERROR) -> NoReturn:
    print("mlefast:", " ".join(message.split()), file=sys.stderr)
    sys.exit(status)
