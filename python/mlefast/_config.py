"""What the package runs on: threads and instruction set."""

from __future__ import annotations

import operator

import numpy as np

from mlefast import _core
from mlefast._arguments import describe
from mlefast._version import __version__

__all__ = ["get_num_threads", "set_num_threads", "show_config"]


def get_num_threads() -> int:
    """Return the number of threads that a large call made now may use.

    It is what :func:`set_num_threads` set, else the environment variable ``MLEFAST_NUM_THREADS``, else
    ``OMP_NUM_THREADS``, else the processors that the affinity mask and the control group grant; lowered by
    `threadpoolctl <https://github.com/joblib/threadpoolctl>`_, and 1 in a forked child process. Results do not depend
    on it.
    """
    return _core.get_num_threads()


def set_num_threads(threads: int | None) -> None:
    """Set the number of threads that a large call may use, in all of this process.

    Parameters
    ----------
    threads : int or None
        At least 1; None restores the default.

    Raises
    ------
    TypeError, ValueError
        If it is no positive integer.
    """
    if threads is None:
        _core.set_num_threads(0)
        return
    try:
        number = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads: received {describe(threads)}; accepted: an integer >= 1, or None") from None
    if not 1 <= number <= 2**15:
        raise ValueError(f"threads: received {number}; accepted: an integer from 1 to 32768, or None")
    _core.set_num_threads(number)


def show_config() -> dict[str, str | int | list[str]]:
    """Return what this installation runs on.

    Returns
    -------
    dict
        ``version``, ``numpy``: versions; ``isa``: the instruction set in use (the environment variable ``MLEFAST_ISA``
        forces one); ``isas``: those that this processor and this build have, best first; ``threading_layer``;
        ``num_threads``.
    """
    return {
        "version": __version__,
        "numpy": np.__version__,
        "isa": _core.isa(),
        "isas": _core.isas(),
        "threading_layer": _core.threading_layer(),
        "num_threads": _core.get_num_threads(),
    }
