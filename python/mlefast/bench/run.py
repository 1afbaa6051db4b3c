"""A run of the benchmark: from a plan to a report."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from mlefast import _core
from mlefast.bench import machine
from mlefast.bench.arrays import Pool
from mlefast.bench.backends import Backend, make_backend
from mlefast.bench.cases import KERNELS, Case, cache_state
from mlefast.bench.kernels import kernel_contestants
from mlefast.bench.limits import limit_contestants
from mlefast.bench.measure import Contestant, measure
from mlefast.bench.peers import PEERS, contestants_or_reasons
from mlefast.bench.results import Report, Result, Series
from mlefast.bench.threads import same_threads

_ROOF_SECONDS = 0.3
_LEAST_OF_PEERS = 3  # some take seconds, and none is compared with its past


@dataclass(frozen=True)
class Plan:
    """What to measure: every kernel on every shape, dtype and number of threads.

    Attributes
    ----------
    kernels : sequence of str
        Names in :data:`~mlefast.bench.KERNELS`.
    shapes : sequence of (rows, classes)
    dtypes : sequence of str
    threads : sequence of int
    isas : sequence of str
        Instruction sets that the kernels are to use, by turns.
    backend : {"numpy", "cupy"}
    peers : sequence of str
        Names in :data:`~mlefast.bench.peers.PEERS`; one that cannot take part is reported as absent.
    variants : sequence of {"fresh", "out", "inplace"}
    cache : {"auto", "warm", "cold"}
    rounds : int
        The most samples of each contestant.
    seconds : float
        About how long a case may take, first calls aside.
    """

    kernels: Sequence[str]
    shapes: Sequence[tuple[int, int]]
    dtypes: Sequence[str]
    threads: Sequence[int]
    isas: Sequence[str]
    backend: str = "numpy"
    peers: Sequence[str] = ()
    variants: Sequence[str] = ("fresh", "out", "inplace")
    cache: str = "auto"
    rounds: int = 30
    seconds: float = 4.0


def run(plan: Plan, progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> Report:
    """Measure everything in a plan.

    Parameters
    ----------
    plan : Plan
    progress : callable, optional
        Told what comes next, how many cases are done and how many there are.

    Returns
    -------
    Report

    Raises
    ------
    BenchError
        If the backend is not there.
    """
    backend = make_backend(plan.backend)
    absent = {}
    peers = []
    for name in plan.peers:
        reason = PEERS[name].absence(plan.backend)
        if reason is None:
            peers.append(name)
        else:
            absent[name] = reason
    libraries = {distribution for name in PEERS for distribution in PEERS[name].distributions}
    before = _core.isa()
    pool = Pool(backend)
    results = []
    cases = list(_cases(plan))
    facts = machine.facts(sorted(libraries))
    # Garbage is collected before each measurement; looking through what was there before would take most of the time.
    gc.freeze()
    try:
        for done, case in enumerate(cases):
            progress(str(case), done, len(cases))
            with same_threads(case.threads):
                results.append(_measure_case(plan, case, backend, pool, peers if case.role == "main" else ()))
    finally:
        gc.unfreeze()
        _core.set_isa(before)
    return Report(facts, asdict(plan), results, absent)


def _cases(plan: Plan) -> Iterator[Case]:
    caches = machine.caches()
    for threads in plan.threads:
        for dtype in plan.dtypes:
            for kernel in plan.kernels:
                for rows, classes in plan.shapes:
                    case = Case(kernel, rows, classes, dtype, threads, plan.backend)
                    state, sets = cache_state(plan.cache, case.bytes_moved, caches)
                    yield replace(case, cache=state, sets=sets)
    if plan.backend != "numpy":
        return
    for dtype in plan.dtypes:
        for kernel in plan.kernels:
            row = Case(kernel, 1, 1000, dtype, 1, plan.backend, "warm", 1, "roof")
            touched = max(2 * row.logits_bytes, row.bytes_moved)  # logits and output, also where there is none
            yield replace(row, rows=max(1, caches.l2 // 2 // touched))


def _measure_case(plan: Plan, case: Case, backend: Backend, pool: Pool, peers: Sequence[str]) -> Result:
    sets = pool.sets(case)
    variants = [each for each in KERNELS[case.kernel].variants if each in plan.variants] or ["fresh"]
    if case.role == "roof":
        variants = ["out" if KERNELS[case.kernel].out else "fresh"]
    contestants: list[Contestant | None] = []
    series = []
    for kind, contestant in limit_contestants(backend, case, sets):
        if kind == "update" and "inplace" not in variants:
            continue
        contestants.append(contestant)
        series.append(Series(contestant.name, "limit", kind))
    for variant, isa, contestant in kernel_contestants(backend, case, sets, variants, plan.isas):
        contestants.append(contestant)
        series.append(Series(contestant.name, "mlefast", variant, isa))
    for name, call, reason in contestants_or_reasons(peers, case, sets):
        contestants.append(None if call is None else Contestant(name, call, least=_LEAST_OF_PEERS))
        series.append(Series(name, "peer", error=reason))
    samples = measure(
        [each for each in contestants if each is not None],
        sets=case.sets,
        warm=case.cache == "warm",
        rounds=plan.rounds,
        seconds=plan.seconds if case.role == "main" else min(plan.seconds, _ROOF_SECONDS),
        clock=backend.clock,
        extra_peak=backend.extra_peak,
    )
    taken = iter(samples)
    for entrant, each in zip(contestants, series):
        if entrant is not None:
            for name, value in vars(next(taken)).items():
                setattr(each, name, value)
    return Result(case, series)


def sweep_classes(lowest: int, highest: int) -> list[int]:
    """Powers of two, their neighbours, and a prime between each two: every remainder and alignment is among them."""
    powers = [1 << k for k in range(1, math.ceil(math.log2(highest)) + 1)]
    classes = {lowest, highest}
    for power in powers:
        classes.update((power - 1, power, power + 1, _prime_from(power + power // 2)))
    return sorted(each for each in classes if lowest <= each <= highest)


def _prime_from(n: int) -> int:
    while n < 2 or any(n % d == 0 for d in range(2, math.isqrt(n) + 1)):
        n += 1
    return n
