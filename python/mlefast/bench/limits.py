"""What memory allows on these buffers: the fastest way to read, copy or overwrite them, found by trying all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlefast.bench.arrays import Arrays
from mlefast.bench.backends import Backend
from mlefast.bench.cases import KERNELS, Case, Kernel
from mlefast.bench.measure import Contestant, measure

_TRIALS = 7


def limit_contestants(backend: Backend, case: Case, sets: Sequence[Arrays]) -> list[tuple[str, Contestant]]:
    """Return the kinds of limits of a case, each with the method that is the fastest in a short contest.

    None is the fastest everywhere: stores that bypass the cache win on some machines and lose by half on others, and
    so do the C library's and a loop that asks for its lines ahead.
    """
    kernel = KERNELS[case.kernel]
    methods = {name: kind for name, kind in backend.limits().items() if kind in kernel.limits}
    contestants = [_contestant(backend, name, kind, kernel, sets) for name, kind in methods.items()]
    trials = measure(
        contestants, sets=case.sets, warm=case.cache == "warm", rounds=_TRIALS, seconds=1.0, clock=backend.clock
    )
    best: dict[str, tuple[float, Contestant]] = {}
    for contestant, kind, samples in zip(contestants, methods.values(), trials):
        time = float(np.median(samples.seconds))
        if kind not in best or time < best[kind][0]:
            best[kind] = (time, contestant)
    return [(kind, contestant) for kind, (_, contestant) in best.items()]


def _contestant(backend: Backend, method: str, kind: str, kernel: Kernel, sets: Sequence[Arrays]) -> Contestant:
    if kind == "update":
        return Contestant(method, lambda i: backend.run_limit(method, sets[i].scratch, sets[i].scratch))
    sources = [each.source(kernel) for each in sets]
    if kind == "read":
        return Contestant(method, lambda i: backend.run_limit(method, sources[i], None))
    return Contestant(method, lambda i: backend.run_limit(method, sources[i], sets[i].out))
