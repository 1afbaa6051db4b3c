"""mlefast's own calls, in every variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import mlefast as mf
from mlefast import _core
from mlefast.bench.arrays import Arrays
from mlefast.bench.backends import Backend
from mlefast.bench.cases import KERNELS, Case, Kernel
from mlefast.bench.measure import Contestant


def kernel_contestants(
    backend: Backend, case: Case, sets: Sequence[Arrays], variants: Sequence[str], isas: Sequence[str]
) -> list[tuple[str, str, Contestant]]:
    """Return (variant, instruction set, contestant) for each pair of them.

    A call in place is timed on logits that are put back before it, untimed: after it they are a gradient, whose rows
    are nearly equal numbers, which is not what users pass. (Of some kernels the source is not logits.)
    """
    contestants = []
    for isa in isas:
        for variant in variants:
            restore = _restorer(backend, KERNELS[case.kernel], sets) if variant == "inplace" else None
            label = {"fresh": "mlefast", "out": "mlefast out=", "inplace": "mlefast in place"}[variant]
            name = f"{label} ({isa})" if len(isas) > 1 else label
            begin = _chooser(isa) if backend.name == "numpy" else None
            contestants.append((variant, isa, Contestant(name, prepare(case, sets, variant), begin, restore)))
    return contestants


def prepare(case: Case, sets: Sequence[Arrays], variant: str) -> Callable[[int], Any]:
    """Return the call of a case's kernel on the i-th set of arrays."""
    kernel = KERNELS[case.kernel]
    calls = [_bind(kernel, each, variant) for each in sets]
    return lambda i: calls[i]()


def _bind(kernel: Kernel, arrays: Arrays, variant: str) -> Callable[[], Any]:
    if variant == "inplace":
        arrays = replace(arrays, **{kernel.source: arrays.scratch})
    given, named = arrays.arguments(kernel)
    if variant != "fresh":
        named["out"] = arrays.scratch if variant == "inplace" else arrays.out
    return partial(getattr(mf, kernel.function), *given, **named)


def _restorer(backend: Backend, kernel: Kernel, sets: Sequence[Arrays]) -> Callable[[int], None]:
    return lambda i: backend.overwrite(sets[i].scratch, sets[i].source(kernel))


def _chooser(isa: str) -> Callable[[], None]:
    return lambda: _core.set_isa(isa)
