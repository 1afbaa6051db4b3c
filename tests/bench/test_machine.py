"""Facts about a machine, its caches, and what follows for the arrays."""

from __future__ import annotations

import os

import mlefast as mf
import numpy as np
import pytest
from mlefast.bench import machine, memory
from mlefast.bench.cases import cache_state
from mlefast.bench.machine import Caches
from mlefast.bench.run import sweep_classes
from mlefast.bench.threads import same_threads

MB = 1 << 20
CACHES = Caches(32 << 10, MB, 32 * MB)


def write_cache(root, index, level, kind, size):
    folder = root / f"cpu0/cache/index{index}"
    folder.mkdir(parents=True)
    for name, text in (("level", level), ("type", kind), ("size", size)):
        (folder / name).write_text(f"{text}\n")


def test_caches(tmp_path):
    write_cache(tmp_path, 0, 1, "Data", "48K")
    write_cache(tmp_path, 1, 1, "Instruction", "32K")
    write_cache(tmp_path, 2, 2, "Unified", "2M")
    assert machine.caches(tmp_path) == Caches(48 << 10, 2 * MB, 2 * MB)
    write_cache(tmp_path, 3, 3, "Unified", "24576K")
    assert machine.caches(tmp_path) == Caches(48 << 10, 2 * MB, 24 * MB)
    write_cache(tmp_path, 4, 4, "Unified", "nonsense")
    assert machine.caches(tmp_path).last == 24 * MB


def test_unknown_caches_are_assumed_and_said(tmp_path):
    assert machine.caches(tmp_path).assumed


def test_processor_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 3\n")
    assert machine.processor_name(tmp_path / "cpuinfo") == "Abacus 3"
    assert machine.processor_name(tmp_path / "absent")


def test_facts():
    facts = machine.facts(["numpy", "a-library-that-is-not"])
    assert facts["versions"] == {"numpy": np.__version__}
    assert facts["mlefast"] == mf.show_config()
    assert set(machine.available_cpus()) == os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("wanted", "size", "state", "sets"),
    [
        ("auto", MB, "warm", 1),
        ("auto", 16 * MB, "warm", 1),
        ("auto", 17 * MB, "cold", 8),  # 136 MB
        ("warm", 32 * MB, "warm", 1),
        ("warm", 33 * MB, "cold", 4),
        ("cold", MB, "cold", 128),
        ("cold", 128 * MB, "cold", 1),
    ],
)
def test_warm_and_cold(wanted, size, state, sets):
    assert cache_state(wanted, size, CACHES) == (state, sets)
    if state == "cold":
        assert size * sets >= 4 * CACHES.last


def test_sweep():
    classes = sweep_classes(2, 1_000_000)
    assert classes == sorted(set(classes))
    assert (classes[0], classes[-1]) == (2, 1_000_000)
    for each in (2, 3, 4, 5, 7, 8, 9, 1023, 1024, 1025, 97, 524289):
        assert each in classes
    primes = [c for c in classes if c > 100 and all(c % d for d in range(2, int(c**0.5) + 1))]
    assert len(primes) >= 10
    assert sweep_classes(10, 10) == [10]


@pytest.mark.skipif(memory.extra_peak(lambda: None) is None, reason="the system does not tell the peak of memory")
def test_peak_memory_sees_native_allocations():
    size = 64 * MB
    x = np.ones(size // 4, np.float32)
    assert memory.extra_peak(lambda: None) < 4 * MB
    assert memory.extra_peak(lambda: x.copy()) == pytest.approx(size, rel=0.1)
    assert memory.extra_peak(lambda: (x + 1).sum()) == pytest.approx(size, rel=0.1)  # freed before the call ends
    assert memory.extra_peak(lambda: np.exp(x - 1.0) * x.copy()) > 1.9 * size


def test_same_threads():
    before, cpus = mf.get_num_threads(), os.sched_getaffinity(0)
    with same_threads(1):
        assert mf.get_num_threads() == 1
        assert len(os.sched_getaffinity(0)) == 1
    assert mf.get_num_threads() == before
    assert os.sched_getaffinity(0) == cpus
