"""mlefast's own calls, in every variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlefast as mf
from mlefast import _core
from mlefast.bench.arrays import Arrays
from mlefast.bench.backends import Backend
from mlefast.bench.cases import Case
from mlefast.bench.measure import Contestant


def kernel_contestants(
    backend: Backend, case: Case, sets: Sequence[Arrays], variants: Sequence[str], isas: Sequence[str]
) -> list[tuple[str, str, Contestant]]:
    """Return (variant, instruction set, contestant) for each pair of them.

    A call in place is timed on logits that are put back before it, untimed: after it they are a gradient, whose rows
    are nearly equal numbers, which is not what users pass.
    """
    contestants = []
    for isa in isas:
        for variant in variants:
            restore = _restorer(backend, sets) if variant == "inplace" else None
            label = {"fresh": "mlefast", "out": "mlefast out=", "inplace": "mlefast in place"}[variant]
            name = f"{label} ({isa})" if len(isas) > 1 else label
            begin = _chooser(isa) if backend.name == "numpy" else None
            contestants.append((variant, isa, Contestant(name, prepare(case, sets, variant), begin, restore)))
    return contestants


def prepare(case: Case, sets: Sequence[Arrays], variant: str) -> Callable[[int], Any]:
    """Return the call of a case's kernel on the i-th set of arrays."""
    function: Any = getattr(mf, case.kernel)
    if case.kernel == "logsumexp":
        return lambda i: function(sets[i].logits)
    if case.kernel == "cross_entropy":
        return lambda i: function(sets[i].logits, sets[i].target)
    if case.kernel == "cross_entropy_and_grad":
        if variant == "fresh":
            return lambda i: function(sets[i].logits, sets[i].target)
        if variant == "out":
            return lambda i: function(sets[i].logits, sets[i].target, out=sets[i].out)
        return lambda i: function(sets[i].scratch, sets[i].target, out=sets[i].scratch)
    if variant == "fresh":
        return lambda i: function(sets[i].logits)
    if variant == "out":
        return lambda i: function(sets[i].logits, out=sets[i].out)
    return lambda i: function(sets[i].scratch, out=sets[i].scratch)


def _restorer(backend: Backend, sets: Sequence[Arrays]) -> Callable[[int], None]:
    return lambda i: backend.overwrite(sets[i].scratch, sets[i].logits)


def _chooser(isa: str) -> Callable[[], None]:
    return lambda: _core.set_isa(isa)
