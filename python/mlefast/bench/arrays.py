"""Arrays of a case, cut from longer ones that cases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefast.bench.backends import Backend
from mlefast.bench.cases import KERNELS, Case, Kernel
from mlefast.bench.operands import NORMAL_BLOCK, OPERANDS, as_dtype, dtype_of

_PAGE = 4096


@dataclass(frozen=True, eq=False)
class Arrays:
    """One set: what a kernel reads, and where it may write; None what it does not need.

    Attributes
    ----------
    logits, softmax, log_softmax, probabilities, binary, vector, target, weight : ndarray or None
        See :data:`~mlefast.bench.operands.OPERANDS`.
    out : ndarray or None
        Where to write.
    scratch : ndarray or None
        What calls in place overwrite: the kernel's source is put back there before each of them.
    """

    logits: Any = None
    softmax: Any = None
    log_softmax: Any = None
    probabilities: Any = None
    binary: Any = None
    vector: Any = None
    target: Any = None
    weight: Any = None
    out: Any = None
    scratch: Any = None

    def source(self, kernel: Kernel) -> Any:
        """Return the array that a call in place overwrites, and that limits read."""
        return getattr(self, kernel.source)

    def arguments(
        self, kernel: Kernel, convert: Callable[[Any], Any] = lambda array: array
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return what the kernel's function is given, by position and by name; arrays are converted."""
        named = {name: convert(getattr(self, name)) for name in kernel.named}
        return [convert(getattr(self, name)) for name in kernel.arrays], {**named, **kernel.options}


class Pool:
    """Arrays of random numbers whose pages have all been touched; those that a case does not need are given back.

    They are plain arrays, aligned as the library aligns them: what users have. Sets differ in the class indices alone.
    """

    def __init__(self, backend: Backend, seed: int = 0) -> None:
        self._backend, self._seed = backend, seed
        self._held: dict[tuple[str, str], Any] = {}

    def sets(self, case: Case) -> list[Arrays]:
        """Return the sets of arrays of a case; they are overwritten by the next call."""
        kernel = KERNELS[case.kernel]
        large = {name: OPERANDS[name] for name in kernel.reads}
        dtypes = {name: dtype_of(operand.dtype, case.dtype) for name, operand in large.items()}
        if kernel.writes:
            dtypes["out"] = case.dtype
        if "inplace" in kernel.variants:
            dtypes["scratch"] = case.dtype
        self._held = {key: array for key, array in self._held.items() if key in dtypes.items()}
        per_page = _PAGE // as_dtype(case.dtype).itemsize
        stride = -(-case.elements // per_page) * per_page  # every set lies alike in its pages
        flat = {name: self._flat(name, dtype, stride * case.sets) for name, dtype in dtypes.items()}
        sets = [
            {
                name: array[i * stride : i * stride + case.elements].reshape(case.rows, case.classes)
                for name, array in flat.items()
            }
            for i in range(case.sets)
        ]
        for name, operand in large.items():
            self._fill([views[name] for views in sets], operand.draw, as_dtype(dtypes[name]))
        random = np.random.default_rng([self._seed, case.rows, case.classes])
        return [Arrays(**views, **self._draw_small(kernel, case, random)) for views in sets]

    def _flat(self, name: str, dtype: str, size: int) -> Any:
        held = self._held.pop((name, dtype), None)
        if held is None or held.size < size:
            held = None  # before the larger one is made
            held = self._backend.from_numpy(np.ones(size, as_dtype(dtype)))
        self._held[name, dtype] = held
        return held

    def _fill(self, views: list[Any], draw: Callable[..., Any], dtype: np.dtype[Any]) -> None:
        """Write some rows and repeat them: as many as are drawn at once."""
        rows, classes = views[0].shape
        some = min(rows, max(1, NORMAL_BLOCK // classes))
        normal = np.random.default_rng(self._seed).standard_normal(min(some * classes, NORMAL_BLOCK), dtype=np.float32)
        values = self._backend.from_numpy(draw(np.resize(normal, (some, classes)), dtype))
        for view in views:
            for at in range(0, rows, some):
                self._backend.overwrite(view[at : at + some], values[: rows - at])

    def _draw_small(self, kernel: Kernel, case: Case, random: np.random.Generator) -> dict[str, Any]:
        small = {}
        for name in (*kernel.arrays, *kernel.named):
            operand = OPERANDS[name]
            if operand.size != "logits":
                count = case.rows if operand.size == "rows" else case.classes
                values = operand.draw(random, count, case.classes).astype(as_dtype(dtype_of(operand.dtype, case.dtype)))
                small[name] = self._backend.from_numpy(values)
        return small
