"""The table of kernels: what each call is given, what it must move, and what that makes of its share of the limit."""

from __future__ import annotations

import json
import sys

import mlefast as mf
import numpy as np
import pytest
from mlefast.bench import KERNELS, Case, Plan, Report, Result, Series, arrays, kernels, run
from mlefast.bench.arrays import Pool
from mlefast.bench.backends import Host
from mlefast.bench.cases import cache_state
from mlefast.bench.kernels import prepare
from mlefast.bench.machine import Caches
from mlefast.bench.operands import OPERANDS

ROWS, CLASSES = 7, 5
MOVED = {  # what the hand-written table of docs/performance.md counts
    "cross_entropy_and_grad": 2,
    "cross_entropy_and_grad:weight": 2,
    "cross_entropy_and_grad:label_smoothing": 2,
    "cross_entropy_and_grad:z_loss": 2,
    "cross_entropy_and_grad:softcap": 2,
    "cross_entropy_and_grad:probabilities": 3,
    "focal_loss_and_grad": 2,
    "kl_div_and_grad": 3,
    "js_div_and_grad": 3,
    "log_prob_and_entropy_and_grad": 2,
    "binary_cross_entropy_and_grad": 3,
    "entropy": 1,
    "cross_entropy_hvp": 3,
    "softmax_vjp": 3,
    "log_softmax_vjp": 3,
}
CALLS = {  # by the name of the value; the function is given, so that gradients are asked for alike
    "logsumexp": lambda f, a: f(a.logits),
    "softmax": lambda f, a: f(a.logits),
    "log_softmax": lambda f, a: f(a.logits),
    "cross_entropy": lambda f, a: f(a.logits, a.target),
    "cross_entropy:weight": lambda f, a: f(a.logits, a.target, weight=a.weight),
    "cross_entropy:label_smoothing": lambda f, a: f(a.logits, a.target, label_smoothing=0.1),
    "cross_entropy:z_loss": lambda f, a: f(a.logits, a.target, z_loss=1e-4),
    "cross_entropy:softcap": lambda f, a: f(a.logits, a.target, softcap=30.0),
    "cross_entropy:probabilities": lambda f, a: f(a.logits, a.probabilities),
    "focal_loss": lambda f, a: f(a.logits, a.target, gamma=2.0),
    "kl_div": lambda f, a: f(a.probabilities, a.logits),
    "js_div": lambda f, a: f(a.probabilities, a.logits),
    "binary_cross_entropy": lambda f, a: f(a.logits, a.binary),
    "log_prob": lambda f, a: f(a.logits, a.target),
    "log_prob_and_entropy": lambda f, a: f(a.logits, a.target),
    "entropy": lambda f, a: f(a.softmax),
    "cross_entropy_hvp": lambda f, a: f(a.logits, a.target, a.vector),
    "cross_entropy_grad_hess": lambda f, a: f(a.logits, a.target),
    "softmax_vjp": lambda f, a: f(a.softmax, a.vector),
    "log_softmax_vjp": lambda f, a: f(a.log_softmax, a.vector),
}


def flat(result):
    return list(result) if isinstance(result, tuple) else [result]


def pool_of(case):
    return Pool(Host()).sets(case)


@pytest.fixture
def seen(monkeypatch):
    """Calls of mlefast's functions: the arrays as large as the logits that go in and come out, none counted twice."""
    calls = []

    class Watched:
        def __getattr__(self, name):
            def call(*given, **named):
                result = getattr(mf, name)(*given, **named)
                large = [a for a in (*given, *named.values(), *flat(result)) if np.shape(a) == (ROWS, CLASSES)]
                calls.append({a.ctypes.data: a for a in large}.values())
                return result

            return call

    monkeypatch.setattr(kernels, "mf", Watched())
    return calls


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_bytes_that_a_call_moves(seen, name, dtype):
    case = Case(name, ROWS, CLASSES, dtype, 1)
    sets = pool_of(case)
    for variant in KERNELS[name].variants:
        if variant != "inplace":
            prepare(case, sets, variant)(0)
            assert sum(a.nbytes for a in seen[-1]) == case.bytes_moved
            if dtype != "float16":
                assert len(seen[-1]) * case.logits_bytes == case.bytes_moved
        else:
            sets[0].scratch[...] = sets[0].source(KERNELS[name])
            prepare(case, sets, variant)(0)
            assert len(seen[-1]) == len(KERNELS[name].reads)  # the output is one of them


@pytest.mark.parametrize("name", MOVED)
def test_arrays_that_are_moved(name):
    case = Case(name, 10, 20, "float32", 1)
    assert case.bytes_moved == MOVED[name] * case.logits_bytes == MOVED[name] * 800


@pytest.mark.parametrize("name", KERNELS)
def test_each_variant_is_the_plain_call(name):
    case = Case(name, 40, 30, "float32", 1, sets=2)
    sets = pool_of(case)
    kernel = KERNELS[name]
    for i, each in enumerate(sets):
        options = {"entropy_upstream": 0.01} if name == "log_prob_and_entropy_and_grad" else {}
        function = getattr(mf, name.partition(":")[0])
        want = flat(CALLS[kernel.value](lambda *a, f=function, o=options, **n: f(*a, **n, **o), each))
        for variant in kernel.variants:
            if variant == "inplace":
                each.scratch[...] = each.source(kernel)
            got = flat(prepare(case, sets, variant)(i))
            assert len(got) == len(want)
            for mine, expected in zip(got, want):
                np.testing.assert_array_equal(mine, expected)
            if variant != "fresh":
                assert got[-1] is (each.out if variant == "out" else each.scratch)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("classes", [1, 30, 150])
def test_numbers_of_the_pool(monkeypatch, dtype, classes):
    """Also where they are repeated, by whole rows or, in a row that is longer than what is drawn, within it."""
    monkeypatch.setattr(arrays, "NORMAL_BLOCK", 100)
    pool = Pool(Host())
    tolerance = 1e-2 if dtype == "float16" else 1e-5
    for name, field in (("kl_div", "probabilities"), ("softmax_vjp", "softmax"), ("log_softmax_vjp", "log_softmax")):
        for each in pool.sets(Case(name, 11, classes, dtype, 1, sets=3)):
            p = getattr(each, field).astype(np.float64)
            p = np.exp(p) if field == "log_softmax" else p
            np.testing.assert_allclose(p.sum(axis=1), 1, atol=tolerance)
            assert classes == 1 or 0 < p.min() < 0.5 * p.max()
    (each,) = pool.sets(Case("cross_entropy:weight", 11, classes, dtype, 1))
    assert each.weight.shape == (classes,)
    assert 0.5 <= each.weight.min() <= each.weight.max() <= 2
    assert each.weight.dtype == ("float64" if dtype == "float64" else "float32")
    assert set(np.unique(pool.sets(Case("binary_cross_entropy", 90, classes, dtype, 1))[0].binary)) == {0, 1}


@pytest.mark.parametrize("name", KERNELS)
def test_only_what_a_case_needs_is_held(name):
    pool = Pool(Host())
    pool.sets(Case("kl_div_and_grad", 10, 10, "float64", 1))
    kernel = KERNELS[name]
    (each,) = pool.sets(Case(name, 20, 30, "float32", 1))
    there = {field for field in (*OPERANDS, "out", "scratch") if getattr(each, field) is not None}
    assert there == {*kernel.arrays, *kernel.named, *(["out"] if kernel.writes else []),
                     *(["scratch"] if kernel.out else [])}  # fmt: skip
    assert {field for field, _ in pool._held} == {f for f in there if getattr(each, f).shape == (20, 30)}
    large = [getattr(each, field) for field in there]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(large) for b in large[i + 1 :])


def series(kind, seconds, group="mlefast"):
    return Series(kind, group, kind, seconds=[seconds], rounds=[0])


@pytest.mark.parametrize(
    ("kernel", "dtype", "kind", "limit", "factor"),
    [
        ("entropy", "float32", "fresh", "read", 1),
        ("kl_div", "float32", "fresh", "read", 2),
        ("cross_entropy:probabilities", "float64", "fresh", "read", 2),
        ("cross_entropy_and_grad:z_loss", "float32", "out", "copy", 1),
        ("kl_div_and_grad", "float32", "out", "copy", 3 / 2),
        ("softmax_vjp", "float64", "inplace", "update", 3 / 2),
        ("cross_entropy_grad_hess", "float32", "fresh", "copy", 3 / 2),
        ("cross_entropy_grad_hess", "float16", "fresh", "copy", 2),  # the Hessian is float32
        ("kl_div_and_grad", "float16", "out", "copy", 2),  # so are the probabilities
        ("kl_div", "bfloat16", "fresh", "read", 3),
    ],
)
def test_share_of_the_limits_bytes_per_second(kernel, dtype, kind, limit, factor):
    limits = {"copy": 2.0, "update": 1.5, "read": 1.0}
    result = Result(
        Case(kernel, 10, 10, dtype, 1), [*(series(k, s, "limit") for k, s in limits.items()), series(kind, 12.0)]
    )
    ours = result.of("mlefast")[0]
    assert result.limit_of(ours).kind == limit
    assert result.share(ours) == pytest.approx(factor * limits[limit] / 12)
    assert result.bytes_of(ours) / result.bytes_of(result.limit_of(ours)) == pytest.approx(factor)


@pytest.mark.parametrize(("name", "arrays_moved"), [("entropy", 1), ("softmax", 2), ("kl_div", 2), ("softmax_vjp", 3)])
def test_working_set_has_all_arrays(monkeypatch, name, arrays_moved):
    module = sys.modules[run.__module__]
    monkeypatch.setattr(module.machine, "caches", lambda: Caches(1 << 12, 1 << 16, 1 << 20))
    cases = []
    monkeypatch.setattr(module, "_measure_case", lambda plan, case, *_: cases.append(case))
    run(Plan([name], [(32, 1000)], ["float32"], [1], ["scalar"], cache="cold"))
    main, roof = cases
    touched = arrays_moved * 32 * 1000 * 4
    assert (
        (main.cache, main.sets)
        == cache_state("cold", touched, Caches(0, 0, 1 << 20))
        == ("cold", -(-(4 << 20) // touched))
    )
    assert roof.rows == (1 << 15) // (max(2, arrays_moved) * 4000)


FORMAT_1 = """{
 "format": 1, "machine": {"processor": "Abacus 3"}, "settings": {"isas": ["avx2"]}, "absent": {},
 "results": [
  {"case": {"kernel": "cross_entropy_and_grad", "rows": 8, "classes": 10, "dtype": "float32", "threads": 2,
            "backend": "numpy", "cache": "cold", "sets": 3, "role": "main"},
   "series": [
    {"name": "memcpy", "group": "limit", "kind": "copy", "isa": "", "seconds": [1.0], "rounds": [0], "calls": 1,
     "extra_bytes": null, "error": null},
    {"name": "mlefast out=", "group": "mlefast", "kind": "out", "isa": "avx2", "seconds": [4.0], "rounds": [0],
     "calls": 1, "extra_bytes": 0, "error": null}]},
  {"case": {"kernel": "logsumexp", "rows": 8, "classes": 10, "dtype": "bfloat16", "threads": 1,
            "backend": "numpy", "cache": "warm", "sets": 1, "role": "main"},
   "series": [
    {"name": "sum", "group": "limit", "kind": "read", "isa": "", "seconds": [1.0], "rounds": [0], "calls": 1,
     "extra_bytes": null, "error": null},
    {"name": "mlefast", "group": "mlefast", "kind": "fresh", "isa": "avx2", "seconds": [5.0], "rounds": [0],
     "calls": 1, "extra_bytes": 0, "error": null}]}]}"""


def test_files_from_before_the_family_joined(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(FORMAT_1)
    report = Report.load(path)
    assert [r.share(r.of("mlefast")[0]) for r in report.results] == [0.25, 0.2]
    report.save(tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text()) == json.loads(FORMAT_1)
