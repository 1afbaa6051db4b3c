"""Reports with made-up samples."""

from __future__ import annotations

import numpy as np
from mlefast.bench import Case, Report, Result, Series

MACHINE = {
    "processor": "Abacus 3",
    "architecture": "x86_64",
    "cpus": 2,
    "system": "Linux 6",
    "caches": {"l1": 32768, "l2": 524288, "last": 33554432, "assumed": False},
    "load": 0.0,
    "date": "2025-01-01T00:00:00+00:00",
    "python": "3.11.7",
    "mlefast": {"version": "0.1.0", "isa": "avx2"},
    "versions": {"torch": "2.13.0"},
}


def noisy(random, median, n=30, spread=0.02):
    return (median * np.exp(spread * random.standard_normal(n))).tolist()


def make_report(seed=0, *, drift=1.0, slowdown=1.0, n=30, classes=(10, 1000), peers=True, spread=0.02, processor=None):
    """Make a report: kernels take `slowdown` times as long as they should on a machine `drift` times as slow."""
    random = np.random.default_rng(seed)
    results = []
    for kernel in ("cross_entropy", "cross_entropy_and_grad"):
        writes = kernel != "cross_entropy"
        for c in classes:
            case = Case(kernel, 1000, c, "float32", 2)
            base = case.bytes_moved / 1e10 * drift

            def series(name, group, factor, kind="", isa="", base=base):
                seconds = noisy(random, base * factor, n, spread)
                return Series(name, group, kind, isa, seconds, list(range(n)), 1, 1 << 20)

            kinds = {"copy": 1.0, "update": 0.9} if writes else {"read": 1.0}
            variants = {"fresh": 2.0, "out": 1.2, "inplace": 1.1} if writes else {"fresh": 1.1}
            labels = {"fresh": "mlefast", "out": "mlefast out=", "inplace": "mlefast in place"}
            limits = [series(kind, "limit", factor, kind) for kind, factor in kinds.items()]
            ours = [
                series(labels[kind], "mlefast", factor * slowdown, kind, "avx2") for kind, factor in variants.items()
            ]
            theirs = [series("torch", "peer", 14.0), Series("sloth", "peer", error="RuntimeError: asleep")]
            results.append(Result(case, [*limits, *ours, *(theirs if peers else [])]))
    roof = Case("cross_entropy", 16, 1000, "float32", 1, cache="warm", role="roof")
    results.append(
        Result(
            roof,
            [Series("mlefast", "mlefast", "fresh", "avx2", noisy(random, 4e-6 * slowdown, n, spread), list(range(n)))],
        )
    )
    machine = {**MACHINE, **({"processor": processor} if processor else {})}
    return Report(machine, {"isas": ["avx2"]}, results, {"jax": "jax not installed"})
