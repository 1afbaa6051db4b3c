"""Logits, targets and outputs of a case, cut from arrays that all cases share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefast.bench.backends import Backend
from mlefast.bench.cases import KERNELS, Case, as_dtype

_PAGE = 4096


@dataclass(frozen=True, eq=False)
class Arrays:
    """One set. `scratch` is what calls in place overwrite: the logits are put back there before each of them."""

    logits: Any
    target: Any
    out: Any = None
    scratch: Any = None


class Pool:
    """Random logits, drawn once for each dtype, and outputs whose pages have all been touched.

    They are plain arrays, aligned as the library aligns them: what users have.
    """

    def __init__(self, backend: Backend, seed: int = 0) -> None:
        self._backend, self._seed = backend, seed
        self._held: dict[tuple[str, str], Any] = {}

    def sets(self, case: Case) -> list[Arrays]:
        """Return the sets of arrays of a case, which does not outlive the next call with a larger one."""
        dtype = as_dtype(case.dtype)
        per_page = _PAGE // dtype.itemsize
        stride = -(-case.elements // per_page) * per_page  # every set lies alike in its pages
        total = stride * case.sets
        kinds = ("logits", "out", "scratch") if KERNELS[case.kernel].writes else ("logits",)
        flat = {kind: self._flat(kind, case.dtype, total) for kind in kinds}
        random = np.random.default_rng([self._seed, case.rows, case.classes])
        sets = []
        for i in range(case.sets):
            views = {
                kind: array[i * stride : i * stride + case.elements].reshape(case.rows, case.classes)
                for kind, array in flat.items()
            }
            target = self._backend.from_numpy(random.integers(0, case.classes, case.rows))
            sets.append(Arrays(target=target, **views))
        return sets

    def _flat(self, kind: str, dtype: str, size: int) -> Any:
        held = self._held.get((kind, dtype))
        if held is not None and held.size >= size:
            return held
        self._held.pop((kind, dtype), None)  # before the larger one is made
        array = np.ones(size, as_dtype(dtype))
        if kind == "logits":
            random = np.random.default_rng(self._seed)
            block = random.standard_normal(min(size, 1 << 22), dtype=np.float32)  # repeated: drawing is slow
            for at in range(0, size, block.size):
                array[at : at + block.size] = block[: size - at]
        self._held[kind, dtype] = self._backend.from_numpy(array)
        return self._held[kind, dtype]
