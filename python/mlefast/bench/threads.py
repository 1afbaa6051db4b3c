"""The same number of threads for everybody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlefast as mf
from mlefast.bench.machine import available_cpus


@contextmanager
def same_threads(threads: int) -> Iterator[None]:
    """Let mlefast, OpenMP, BLAS and PyTorch use a number of threads, and all of the process as many processors.

    The processors matter for JAX and TensorFlow, whose pools take their size from them once; and scikit-learn is told
    in each call.
    """
    from threadpoolctl import threadpool_limits

    cpus = available_cpus()
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    try:
        if threads < len(cpus):
            _run_on(cpus[:threads])
        mf.set_num_threads(threads)
        with threadpool_limits(limits=threads):
            if torch is not None:
                torch.set_num_threads(threads)
            yield
    finally:
        mf.set_num_threads(None)
        if torch is not None:
            torch.set_num_threads(before)
        if threads < len(cpus):
            _run_on(cpus)


def _run_on(cpus: list[int]) -> None:
    """Move every thread of this process; new ones follow the one that starts them."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except ProcessLookupError:  # it has ended meanwhile
            continue
