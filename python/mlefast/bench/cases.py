"""What is measured: a kernel on logits of a shape and dtype, with so many threads, from cache or from memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefast.bench.machine import Caches

VARIANTS = ("fresh", "out", "inplace")
"""Where a result goes: to memory that the call allocates, to an array that the caller keeps, over the logits."""


class BenchError(ValueError):
    """Something that was asked for cannot be measured here; the message says what and why."""


@dataclass(frozen=True)
class Kernel:
    """A function of mlefast and the bytes that it must move."""

    name: str
    writes: bool  # an array as large as the logits

    @property
    def variants(self) -> tuple[str, ...]:
        """The places its result can go to; a few numbers per row are always returned fresh."""
        return VARIANTS if self.writes else ("fresh",)

    @property
    def limits(self) -> tuple[str, ...]:
        """Kinds of limits it is held against."""
        return ("copy", "update") if self.writes else ("read",)


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("logsumexp", False),
        Kernel("softmax", True),
        Kernel("log_softmax", True),
        Kernel("cross_entropy", False),
        Kernel("cross_entropy_and_grad", True),
    )
}


@dataclass(frozen=True)
class Case:
    """One table of the report: everything in it does the same job on the same numbers.

    Attributes
    ----------
    kernel, dtype : str
    rows, classes, threads : int
    backend : {"numpy", "cupy"}
    cache : {"warm", "cold"}
        Whether the arrays are in a cache when a call begins.
    sets : int
        Copies of the arrays that calls go round; more than one where a single one would stay in a cache.
    role : {"main", "roof"}
        "roof" is the kernel alone on logits that fit in the second-level cache, on one thread: what it computes when
        memory does not hold it up.
    """

    kernel: str
    rows: int
    classes: int
    dtype: str
    threads: int
    backend: str = "numpy"
    cache: str = "cold"
    sets: int = 1
    role: str = "main"

    @property
    def elements(self) -> int:
        """Number of logits."""
        return self.rows * self.classes

    @property
    def logits_bytes(self) -> int:
        """Size of the logits."""
        return self.elements * _itemsize(self.dtype)

    @property
    def bytes_moved(self) -> int:
        """What the kernel must move at least: one read, and one write if it has an output."""
        return self.logits_bytes * (2 if KERNELS[self.kernel].writes else 1)

    def __str__(self) -> str:
        return (
            f"{self.kernel} {self.dtype} {self.rows}x{self.classes}, {self.threads} thread{'s' * (self.threads != 1)}, "
            f"{self.cache}"
        )


def _itemsize(dtype: str) -> int:
    return 2 if dtype in ("float16", "bfloat16") else np.dtype(dtype).itemsize


def as_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name; bfloat16 is known once ml_dtypes is imported."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    return np.dtype(name)


def cache_state(wanted: str, working_set: int, caches: Caches) -> tuple[str, int]:
    """Decide whether a case is measured warm or cold, and with how many sets of arrays.

    Parameters
    ----------
    wanted : {"auto", "warm", "cold"}
        "auto" is warm where the working set takes at most half of the last-level cache.
    working_set : int
        Bytes of the arrays that a call touches: the logits, and the output if it has one.
    caches : Caches

    Returns
    -------
    state : {"warm", "cold"}
        "cold" although "warm" was wanted where the arrays do not fit in the last-level cache.
    sets : int
        One where that is enough: cold arrays take four times the last-level cache or more, all sets together.
    """
    fits = working_set <= caches.last if wanted == "warm" else 2 * working_set <= caches.last
    if fits and wanted != "cold":
        return "warm", 1
    return "cold", max(1, -(-4 * caches.last // working_set))
