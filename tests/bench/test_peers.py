"""Every peer gives our result: one that is timed on another job would be a lie."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlefast.bench import KERNELS, Case
from mlefast.bench.arrays import Pool
from mlefast.bench.backends import Host
from mlefast.bench.kernels import kernel_contestants, prepare
from mlefast.bench.peers import PEERS, contestants_or_reasons
from peer_check import as_arrays

OFFERS_ALL_BUT = {
    "torch": set(),
    "torch.compile": set(),
    "jax": set(),
    "tensorflow": {"js_div", "js_div_and_grad", "cross_entropy_hvp"},
}
ON_HOST = [name for name, peer in PEERS.items() if "numpy" in peer.backends]


@pytest.mark.parametrize("name", ON_HOST)
def test_same_job(name):
    reason = PEERS[name].absence("numpy")
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    program = [sys.executable, Path(__file__).parent.parent / "peer_check.py", name]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=1200)
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(outcomes) == 2 * len(KERNELS), done.stderr
    if any("No working C++ compiler" in outcome or "InvalidCxxCompiler" in outcome for *_, outcome in outcomes):
        pytest.skip(f"{name} needs a C++ compiler")
    not_offered = [each for each in outcomes if each[2].startswith("not offered: has no ")]
    assert [each for each in outcomes if each[2] != "same" and each not in not_offered] == []
    absent = {kernel for kernel, *_ in not_offered}
    assert absent.isdisjoint({"cross_entropy", "cross_entropy_and_grad"})
    if name in OFFERS_ALL_BUT:
        assert absent == OFFERS_ALL_BUT[name]


@pytest.mark.parametrize("kernel", KERNELS)
def test_variants_and_their_memory(kernel):
    case = Case(kernel, 20, 300, "float32", 1, sets=2)
    sets = Pool(Host()).sets(case)
    source = [each.source(KERNELS[kernel]) for each in sets]
    before = [each.copy() for each in source]
    want = as_arrays(prepare(case, sets, "fresh")(1))[-1]
    for variant, _, contestant in kernel_contestants(Host(), case, sets, KERNELS[kernel].variants, ["scalar"]):
        if contestant.restore:
            contestant.restore(1)
        got = as_arrays(contestant.call(1))[-1]
        assert not any(np.shares_memory(got, each) for each in source)
        np.testing.assert_array_equal(got, want)
        if variant == "out":
            assert np.shares_memory(got, sets[1].out)
        if variant == "inplace":
            assert np.shares_memory(got, sets[1].scratch)
    for each, values in zip(source, before):
        np.testing.assert_array_equal(each, values)


def test_sets_are_apart():
    sets = Pool(Host()).sets(Case("softmax", 33, 77, "float32", 1, sets=3))
    arrays = [array for each in sets for array in (each.logits, each.out, each.scratch)]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[i + 1 :])
    assert len({array.ctypes.data % 4096 for array in (each.logits for each in sets)}) == 1


def test_pool_serves_smaller_and_larger_cases():
    pool = Pool(Host())
    small = pool.sets(Case("softmax", 10, 10, "float32", 1))[0].logits.copy()
    large = pool.sets(Case("softmax", 1000, 1000, "float32", 1))[0].logits
    assert large.shape == (1000, 1000)
    assert abs(large.mean()) < 0.01
    assert abs(large.std() - 1) < 0.01
    np.testing.assert_array_equal(pool.sets(Case("softmax", 10, 10, "float32", 1))[0].logits, small)


def test_what_a_peer_does_not_offer_is_said():
    case = Case("softmax", 5, 4, "float32", 1)
    sets = Pool(Host()).sets(case)
    assert contestants_or_reasons(["scikit-learn"], case, sets) == [("scikit-learn", None, "has no softmax")]


def test_a_peer_that_breaks_is_said(monkeypatch):
    def breaks(case, sets):
        raise OSError("libsomething.so:\n  cannot open")

    monkeypatch.setitem(PEERS, "numpy", type(PEERS["numpy"])("numpy", ("numpy",), ("numpy",), ("numpy",), breaks))
    case = Case("softmax", 5, 4, "float32", 1)
    ((_, call, reason),) = contestants_or_reasons(["numpy"], case, Pool(Host()).sets(case))
    assert call is None
    assert reason == "OSError: libsomething.so: cannot open"


def test_absence():
    peer = type(PEERS["numpy"])("ghost", ("ghost",), ("ghost_library_that_is_not",), ("numpy",), lambda *_: None)
    assert peer.absence("numpy") == "ghost_library_that_is_not not installed"
    assert "backend" in peer.absence("cupy")
    assert peer.version is None
    assert PEERS["numpy"].absence("numpy") is None
    assert PEERS["numpy"].version == np.__version__
