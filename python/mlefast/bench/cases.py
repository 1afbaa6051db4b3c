"""What is measured: a kernel on logits of a shape and dtype, with so many threads, from cache or from memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlefast.bench.machine import Caches
from mlefast.bench.operands import OPERANDS, Kind, dtype_of, itemsize

VARIANTS = ("fresh", "out", "inplace")
"""Where a result goes: to memory that the call allocates, to an array that the caller keeps, over the logits."""


class BenchError(ValueError):
    """Something that was asked for cannot be measured here; the message says what and why."""


@dataclass(frozen=True)
class Kernel:
    """A call of a function of mlefast, and the arrays that it must move.

    Attributes
    ----------
    name : str
        The function, and after a colon what is special about the call.
    arrays, named : tuple of str
        What it is given by position and by name: :data:`~mlefast.bench.operands.OPERANDS`.
    options : mapping
        Numbers that it is given by name.
    writes : tuple of {"stored", "computed"}
        The arrays as large as the logits that it returns: of the logits' dtype, or of the one that is computed in.
    out : bool
        Whether it takes an array to write to, which may be its `source`.
    """

    name: str
    arrays: tuple[str, ...]
    named: tuple[str, ...] = ()
    options: Mapping[str, float] = field(default_factory=dict)
    writes: tuple[Kind, ...] = ()
    out: bool = False

    @property
    def function(self) -> str:
        """The function's name."""
        return self.name.partition(":")[0]

    @property
    def is_gradient(self) -> bool:
        """Whether it gives a value and its gradient with respect to the source."""
        return self.function.endswith(_AND_GRAD)

    @property
    def value(self) -> str:
        """Name of the call that gives the value alone; its own name if it gives no value and gradient."""
        return self.name.replace(_AND_GRAD, "")

    @property
    def reads(self) -> tuple[str, ...]:
        """Those of its arrays that are as large as the logits."""
        return tuple(name for name in self.arrays if OPERANDS[name].size == "logits")

    @property
    def source(self) -> str:
        """The array that has the logits' dtype: a gradient is taken with respect to it."""
        return next(name for name in self.arrays if OPERANDS[name].dtype == "stored")

    @property
    def variants(self) -> tuple[str, ...]:
        """The places its result can go to; a few numbers per row are always returned fresh."""
        return VARIANTS if self.out else ("fresh",)

    @property
    def limits(self) -> tuple[str, ...]:
        """Kinds of limits it is held against."""
        if not self.writes:
            return ("read",)
        return ("copy", "update") if self.out else ("copy",)


_AND_GRAD = "_and_grad"


def _array(name: str, *arrays: str, named: tuple[str, ...] = (), **options: float) -> Kernel:
    return Kernel(name, arrays, named, options, writes=("stored",), out=True)


def _loss(name: str, *arrays: str, named: tuple[str, ...] = (), **options: float) -> tuple[Kernel, Kernel]:
    """Two calls: the value, and the value with its gradient."""
    function, colon, special = name.partition(":")
    return (
        Kernel(name, arrays, named, options),
        _array(f"{function}{_AND_GRAD}{colon}{special}", *arrays, named=named, **options),
    )


# Not here: `linear_cross_entropy`, whose limit is a product of matrices, and `information_gain`, which has no kernel.
KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("logsumexp", ("logits",)),
        _array("softmax", "logits"),
        _array("log_softmax", "logits"),
        *_loss("cross_entropy", "logits", "target"),
        *_loss("cross_entropy:weight", "logits", "target", named=("weight",)),
        *_loss("cross_entropy:label_smoothing", "logits", "target", label_smoothing=0.1),
        *_loss("cross_entropy:z_loss", "logits", "target", z_loss=1e-4),
        *_loss("cross_entropy:softcap", "logits", "target", softcap=30.0),
        *_loss("cross_entropy:probabilities", "logits", "probabilities"),
        *_loss("focal_loss", "logits", "target", gamma=2.0),
        *_loss("kl_div", "probabilities", "logits"),
        *_loss("js_div", "probabilities", "logits"),
        *_loss("binary_cross_entropy", "logits", "binary"),
        *_loss("log_prob", "logits", "target"),
        Kernel("log_prob_and_entropy", ("logits", "target")),
        _array("log_prob_and_entropy_and_grad", "logits", "target", entropy_upstream=0.01),
        *_loss("entropy", "softmax"),
        _array("cross_entropy_hvp", "logits", "target", "vector"),
        Kernel("cross_entropy_grad_hess", ("logits", "target"), writes=("stored", "computed")),
        _array("softmax_vjp", "softmax", "vector"),
        _array("log_softmax_vjp", "log_softmax", "vector"),
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
        """Size of an array like the logits: what a limit reads, and writes if it is one of writing."""
        return self.elements * itemsize(self.dtype)

    @property
    def bytes_moved(self) -> int:
        """What the kernel must move at least: one read or write of each array that is as large as the logits.

        It is what it touches, too, if it does not work in place.
        """
        kernel = KERNELS[self.kernel]
        kinds = [*(OPERANDS[name].dtype for name in kernel.reads), *kernel.writes]
        return self.elements * sum(itemsize(dtype_of(kind, self.dtype)) for kind in kinds)

    def __str__(self) -> str:
        return (
            f"{self.kernel} {self.dtype} {self.rows}x{self.classes}, {self.threads} thread{'s' * (self.threads != 1)}, "
            f"{self.cache}"
        )


def cache_state(wanted: str, working_set: int, caches: Caches) -> tuple[str, int]:
    """Decide whether a case is measured warm or cold, and with how many sets of arrays.

    Parameters
    ----------
    wanted : {"auto", "warm", "cold"}
        "auto" is warm where the working set takes at most half of the last-level cache.
    working_set : int
        Bytes of the arrays that a call touches: those that it reads, and what it writes.
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
