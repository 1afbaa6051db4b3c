"""The losses of rules/term_losses.h on CUDA: the CPU's own tests of the family, run on the emulator, and what only a
GPU has: regimes, schedules, addresses."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import cases
import mlefast as mf
import numpy as np
import pytest
import test_loss_family as family
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast, Schedule
from cuda_tests import kernel_cases
from cuda_tests.kernel_cases import BFLOAT16, DTYPES, at_offset, force, name_of
from mlefast import _table
from mlefast._backends import cuda, cuda_terms

pytestmark = kernel_cases.needs_emulator
inf, nan = np.inf, np.nan
REGIMES = ["resident", "staged", "streamed", "split"]
SCHEDULES = [Schedule("forward"), Schedule("backward"), Schedule("random", preempt=100, seed=3)]
EVERY_OPTION = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0, "temperature": 2.0}
SMOOTHED = {"label_smoothing": 0.1, "z_loss": 0.0, "softcap": None, "temperature": 1.0}

# Tests of tests/test_loss_family.py by name: their arguments, of which the first is the instruction set.
FAMILY = {
    "cross_entropy of indices": (family.test_cross_entropy, ("index", SMOOTHED)),
    "cross_entropy of indices, all options": (family.test_cross_entropy, ("index", EVERY_OPTION)),
    "cross_entropy of probabilities": (family.test_cross_entropy, ("probabilities", family.OPTIONS[0])),
    "cross_entropy of probabilities, all options": (family.test_cross_entropy, ("probabilities", EVERY_OPTION)),
    "focal_loss": (family.test_focal_loss, (2.0,)),
    "kl_div and js_div": (family.test_kl_and_js, ()),
    "log_prob": (family.test_log_prob_and_entropy, ()),
    "entropy": (family.test_entropy, ()),
    "vjp": (family.test_vjps, ()),
}
DOUBLE = {
    "hvp of indices": (family.test_hvp_is_the_derivative_of_the_gradient, ("index", SMOOTHED, "mean")),
    "hvp of probabilities": (
        family.test_hvp_is_the_derivative_of_the_gradient,
        ("probabilities", EVERY_OPTION, "none"),
    ),
    "grad_hess of indices": (family.test_grad_hess, ("index",)),
    "grad_hess of probabilities": (family.test_grad_hess, ("probabilities",)),
}


@contextlib.contextmanager
def on(device: EmulatedDevice, shapes: list[tuple[int, int]] | None = None) -> Iterator[None]:
    """Let tests/test_loss_family.py test a device, by its own tolerances, on arrays that begin anywhere."""
    problem, close = family.problem, family.close

    def close_but_for_subnormals(got, want, dtype, scale, ulp):
        """A probability that is a subnormal number has few digits, and so has what is a multiple of it."""
        close(got, want, dtype, np.abs(scale) + 32 * np.finfo(dtype).tiny, ulp)

    def anywhere(shape, dtype, kind="index", seed=0):
        x, target, *others = problem(shape, dtype, kind, seed)
        place = shape[0] + shape[1]
        return at_offset(x, place % 5), at_offset(target, place % 3), *others

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(family, "mf", EmulatedMlefast(device)))
        stack.enter_context(mock.patch.object(family, "problem", anywhere))
        stack.enter_context(mock.patch.object(family, "close", close_but_for_subnormals))
        if shapes is not None:
            stack.enter_context(mock.patch.object(family, "SHAPES", shapes))
        yield


def check(name: str, dtype: Any, regime: str, shapes: list[tuple[int, int]], schedule: Schedule) -> None:
    """exp, log1p and log are off by up to 1 ULP, as CUDA's are."""
    device = EmulatedDevice(schedule.but(ulps=1.0))
    with on(device, shapes), force(regime):
        if name in FAMILY:
            test, arguments = FAMILY[name]
            test(None, dtype, *arguments)
        else:
            test, arguments = DOUBLE[name]
            test(None, *arguments)
    assert regime in device.regimes()


# Losses that differ in what they sum up and when: one of each kind.
KINDS = ["cross_entropy of indices", "cross_entropy of probabilities, all options", "kl_div and js_div", "log_prob"]


@pytest.mark.parametrize(
    ("name", "regime"),
    [
        *((name, regime) for regime in ("resident", "split") for name in FAMILY),
        *((name, "streamed") for name in KINDS),
        *(pytest.param(name, "streamed", marks=pytest.mark.exhaustive) for name in FAMILY if name not in KINDS),
    ],
)
def test_family(name, regime):
    """A lane and a block; one tile and several; parts that are full, one short and one over."""
    shapes = {"resident": [(40, 3), (3, 521)], "split": [(3, 17), (3, 95), (3, 96), (3, 97), (2, 1030)]}
    check(name, np.float32, regime, shapes.get(regime, [(3, 17), (3, 1030)]), SCHEDULES[len(name) % 3])


@pytest.mark.parametrize(
    ("name", "regime"),
    [
        *((name, "streamed" if "probabilities" in name else "resident") for name in DOUBLE),
        ("hvp of indices", "split"),
        ("grad_hess of probabilities", "split"),
    ],
)
def test_family_in_float64(name, regime):
    check(name, np.float64, regime, [(3, 65)], SCHEDULES[2])


def test_binary_cross_entropy():
    with on(EmulatedDevice(SCHEDULES[2].but(ulps=1.0))):
        family.test_binary_cross_entropy(None, np.float32, 0.2)
        family.test_binary_extremes(None)


@pytest.mark.parametrize(
    "test",
    [
        lambda: family.test_confident_rows_keep_their_digits(None, "probabilities"),
        lambda: family.test_js_div_is_at_most_log_2_and_finite(None),
        lambda: family.test_divergences_near_zero_keep_their_digits(None, np.float32),
        lambda: family.test_hits_are_those_of_argmax(None),
        lambda: family.test_ignored_rows_are_zero_whatever_they_hold(None, {"label_smoothing": 0.1}),
        family.test_empty_batches,
    ],
    ids=["confident", "js", "near zero", "hits", "ignored", "empty"],
)
def test_promises_of_the_family(test):
    with on(EmulatedDevice()):
        test()


# Every length to 70, the borders of tiles and blocks, and awkward lengths.
LENGTHS = {"resident": [*range(1, 71), *(n + d for n in (128, 256, 512, 1024, 2048) for d in (-1, 0, 1)), 1000, 4099]}
LENGTHS["staged"] = LENGTHS["streamed"] = [*range(1, 10), 31, 33, 70, 255, 256, 257, 511, 512, 513, 1000, 4099]
LENGTHS["split"] = [*range(1, 26), *(n + d for n in (48, 96, 768, 1536) for d in (-1, 0, 1)), 1000, 4099]


@pytest.mark.exhaustive
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", KINDS)
def test_family_at_every_length(name, regime):
    shapes = [(3, classes) for classes in LENGTHS[regime]]
    if regime == "streamed":
        shapes.append((2, 70001))
    for i, schedule in enumerate(SCHEDULES):
        check(name, np.float32, regime, shapes[i::3], schedule)


@pytest.mark.exhaustive
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", [*KINDS, *DOUBLE])
def test_family_in_float64_at_many_lengths(name, regime):
    check(name, np.float64, regime, [(3, classes) for classes in LENGTHS[regime][::4]], SCHEDULES[2])


# ---- 16-bit numbers, against the CPU backend


def calls(x: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Every function that writes an array of numbers for each logit, as a call of a module and an output."""
    r = np.random.default_rng(seed)
    rows, classes = x.shape
    y = cases.targets(np.nan_to_num(x.astype(np.float64)), seed)
    t = r.dirichlet(np.full(classes, 0.3), rows).astype(np.float32)
    v = r.standard_normal(x.shape).astype(np.float32)
    w = r.uniform(0.5, 2, classes).astype(np.float32)
    u = r.standard_normal(rows).astype(np.float32)
    p, log_p = mf.softmax(x), mf.log_softmax(x)
    given = {"reduction": "none", "upstream": u}
    return {
        "cross_entropy": lambda m, x, **o: m.cross_entropy_and_grad(x, y, weight=w, **EVERY_OPTION, **given, **o),
        "cross_entropy, probabilities": lambda m, x, **o: m.cross_entropy_and_grad(x, t, z_loss=0.1, **given, **o),
        "focal_loss": lambda m, x, **o: m.focal_loss_and_grad(x, y, weight=w, **given, **o),
        "kl_div": lambda m, x, **o: m.kl_div_and_grad(t, x, **given, **o),
        "js_div": lambda m, x, **o: m.js_div_and_grad(t, x, **given, **o),
        "log_prob": lambda m, x, **o: m.log_prob_and_entropy_and_grad(x, y, upstream=u, entropy_upstream=0.5, **o),
        "hvp": lambda m, x, **o: (m.cross_entropy_hvp(x, y, v, temperature=2.0, **o),),
        "softmax_vjp": lambda m, x, **o: (m.softmax_vjp(p, v, **o),),
        "log_softmax_vjp": lambda m, x, **o: (m.log_softmax_vjp(log_p, v, **o),),
        "binary_cross_entropy": lambda m, x, **o: m.binary_cross_entropy_and_grad(x, t, weight=w, **o),
    }


def assert_like_the_cpus(got: tuple[np.ndarray, ...], want: tuple[np.ndarray, ...]) -> None:
    """Within the last digit or two of the dtype, of the row's largest number where terms cancel."""
    for a, b in zip(got, want):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        a, b, eps = np.float64(a), np.float64(b), float(kernel_cases.ml_dtypes.finfo(a.dtype).eps)
        scale = np.abs(b).max(-1, keepdims=True) if b.ndim == 2 else np.maximum(np.abs(b), 1)
        slack = 1.1 * eps * np.abs(b) + 64 * float(np.finfo(np.float32).eps) * scale + 1e-7
        assert (np.abs(a - b) <= slack).all(), float(np.max(np.abs(a - b) / slack))


def some(names: Any, *quick: str) -> list[Any]:
    """All of the names; what is not among the quick ones when everything is asked for."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.exhaustive) for name in names]


@pytest.mark.parametrize(
    "name", some(calls(np.zeros((1, 2), np.float32)), "js_div", "hvp", "log_prob", "cross_entropy")
)
def test_halves(name):
    """Resident, streamed and split, of one 16-bit type each."""
    kinds = [np.dtype(np.float16), BFLOAT16] * 2
    for regime, dtype in zip(("resident", "streamed", "split"), kinds[len(name) % 2 :]):
        x = at_offset((3 * np.random.default_rng(1).standard_normal((4, 77))).astype(dtype), 3)
        call = calls(x)[name]
        with force(regime):
            assert_like_the_cpus(call(EmulatedMlefast(), x), call(mf, x))


@pytest.mark.exhaustive
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", DTYPES[2:], ids=name_of)
@pytest.mark.parametrize("name", ["cross_entropy", "js_div", "hvp"])
def test_halves_at_many_lengths(name, dtype, regime):
    for classes in (1, 3, 8, 9, 33, 100, 257, 1000, 4099):
        x = at_offset((3 * np.random.default_rng(classes).standard_normal((5, classes))).astype(dtype), classes % 9)
        call = calls(x, classes)[name]
        with force(regime):
            assert_like_the_cpus(call(EmulatedMlefast(EmulatedDevice(SCHEDULES[classes % 3])), x), call(mf, x))


# ---- schedules, outputs, rows that spoil nothing but themselves


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", some(["cross_entropy, probabilities", "js_div", "hvp"], "js_div"))
def test_same_bits_in_every_order_and_place(name, regime):
    """Whatever the schedule; in place, apart, and to an output that begins elsewhere."""
    x = (3 * np.random.default_rng(0).standard_normal((6, 77))).astype(np.float32)
    call = calls(x)[name]
    with force(regime):
        want = None
        for schedule, out in itertools.product(SCHEDULES, (None, "x", 0, 1)):
            given = at_offset(x, 1)
            to = given if out == "x" else None if out is None else at_offset(np.zeros_like(x), out)
            got = call(EmulatedMlefast(EmulatedDevice(schedule)), given, out=to)
            assert to is None or got[-1] is to
            want = want or tuple(a.copy() for a in got)
            for a, b in zip(got, want):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("regime", REGIMES)
def test_rows_with_gaps_between_them(regime):
    wide = (3 * np.random.default_rng(0).standard_normal((6, 101))).astype(np.float32)
    x = wide[::2, 3:80]
    call = calls(x)["js_div"]
    with force(regime):
        assert_like_the_cpus(call(EmulatedMlefast(), x), call(mf, x))


@pytest.mark.parametrize("regime", ["streamed", "split"])
def test_segments_of_very_long_rows(regime):
    """Classes are counted in 32 bits within segments of 2^24, which are made short here."""

    def shorten(source: str) -> str:
        assert "segment = 1 << 24" in source
        return source.replace("segment = 1 << 24", "segment = 1 << 8")

    x = at_offset((3 * np.random.default_rng(0).standard_normal((4, 1300))).astype(np.float32), 1)
    y = np.array([0, 511, 512, 1299])
    x[2, 512] = x[3, 1299] = 20
    emulated = EmulatedMlefast(EmulatedDevice(edit=shorten))
    w = np.linspace(1, 2, 1300, dtype=np.float32)
    options = {"weight": w, "label_smoothing": 0.1, "reduction": "none", "return_lse": True, "return_hit": True}
    with force(regime):
        for got, want in zip(
            emulated.cross_entropy_and_grad(x, y, **options), mf.cross_entropy_and_grad(x, y, **options)
        ):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("regime", REGIMES)
def test_rows_without_a_distribution(regime):
    """First blocks of -inf; rows of -inf, with +inf or NaN: NaN in that row alone, with the CPU's lse."""
    classes = 333
    x = kernel_cases.rows("ordinary", 10, classes, np.dtype(np.float32))
    x[1, :300], x[2, 40:] = -inf, -inf
    x[3], x[4, 0], x[5, -1], x[6, 200], x[7] = -inf, nan, nan, inf, nan
    t = np.random.default_rng(0).dirichlet(np.ones(classes), 10).astype(np.float32)
    t[1, :300], t[2, 40:] = 0, 0
    y = np.full(10, 310)
    y[2] = 3
    emulated = EmulatedMlefast()
    with force(regime):
        for call in (
            lambda m: m.cross_entropy_and_grad(x, t, z_loss=0.1, reduction="none", return_lse=True),
            lambda m: m.cross_entropy_and_grad(x, y, label_smoothing=0.1, reduction="none", return_lse=True),
            lambda m: m.focal_loss_and_grad(x, y, reduction="none"),
            lambda m: m.kl_div_and_grad(t, x, reduction="none"),
            lambda m: m.js_div_and_grad(t, x, reduction="none"),
            lambda m: m.log_prob_and_entropy_and_grad(x, y),
            lambda m: m.cross_entropy_grad_hess(x, y),
        ):
            for got, want in zip(call(emulated), call(mf)):
                np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-6)


def test_a_few_long_rows_are_split():
    """What is chosen without force: two rows of a device of four multiprocessors, hits of both kinds, in place."""
    classes = 33001
    x = at_offset((3 * np.random.default_rng(0).standard_normal((2, classes))).astype(np.float32), 3)
    x[0, :4200], x[0, [9000, 25000]], x[1, -1] = -inf, 30, 30  # the first of two winners, behind a part of -inf
    t = np.zeros_like(x)
    t[0, 9000], t[1, 5000] = 1, 1
    device = EmulatedDevice(SCHEDULES[1])
    options = {"z_loss": 0.1, "return_lse": True, "return_hit": True, "reduction": "none"}
    want = mf.cross_entropy_and_grad(x, t, **options)
    got = EmulatedMlefast(device).cross_entropy_and_grad(x, t, out=x, **options)
    assert got[1] is x
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(got[-1], [True, False])
    assert device.regimes() == {"split"}
    assert [launch[2] for launch in device.launches] == [8, 8, 8]  # blocks: four for each row


@pytest.mark.parametrize("regime", REGIMES)
def test_wrong_labels(regime, monkeypatch):
    """They make their row NaN, whatever is asked for, and no other; nothing is read or written through them."""
    x = (3 * np.random.default_rng(0).standard_normal((9, 70))).astype(np.float32)
    y = np.arange(9)
    wrong = {2: -1, 4: 70, 7: 2**40, 8: -(2**63)}
    y[list(wrong)] = list(wrong.values())
    y[5], x[5] = -100, nan
    fine = np.isin(np.arange(9), list(wrong), invert=True)
    emulated = EmulatedMlefast(EmulatedDevice(SCHEDULES[2]))
    w = np.linspace(1, 2, 70, dtype=np.float32)
    with force(regime):
        for call in (
            lambda m, x, y: m.cross_entropy_and_grad(x, y, weight=w, label_smoothing=0.1, reduction="none"),
            lambda m, x, y: m.focal_loss_and_grad(x, y, weight=w, reduction="none"),
            lambda m, x, y: (m.cross_entropy_hvp(x, y, x, reduction="none"),),
            lambda m, x, y: m.cross_entropy_grad_hess(x, y, weight=w),
        ):
            for got, want in zip(call(emulated, x, y), call(mf, x[fine], y[fine])):
                assert np.isnan(got[~fine]).all()
                np.testing.assert_allclose(got[fine], want, rtol=1e-4, atol=1e-6)
                assert (got[5] == 0).all()  # ignored, whatever it holds
        monkeypatch.setenv("MLEFAST_CUDA_CHECK", "1")
        with pytest.raises(IndexError, match=r"^target\[2\]: received -1"):
            emulated.focal_loss(x, y)
        with pytest.raises(IndexError, match=r"\[2\]: received -1"):
            emulated.log_prob(x, y)


@pytest.mark.parametrize("least", [1, 10**6], ids=["across", "copied"])
def test_layouts_of_the_family(least, monkeypatch):
    """Class axes, strides and orders of memory: a thread for each row, or a copy where rows are few."""
    monkeypatch.setattr(cuda, "LEAST_ACROSS", least)
    device = EmulatedDevice(SCHEDULES[2])
    with on(device):
        for axis, kind in ((0, "index"), (1, "probabilities")) if least == 1 else ((0, "index"),):
            family.test_layouts(None, kind, axis)
    assert ("across" in device.regimes()) == (least == 1)


def across(call: Any, x: np.ndarray, out: str | None, device: EmulatedDevice) -> tuple[np.ndarray, ...]:
    """A call on rows that lie across memory, as `x` is their transpose; its outputs turned back."""
    laid = np.ascontiguousarray(x.T)
    to = laid if out == "in place" else None
    results = call(EmulatedMlefast(device), laid, out=to)
    return tuple(r.T if r.ndim == 2 else r for r in results)


@pytest.mark.parametrize(
    "dtype",
    [DTYPES[0], BFLOAT16, *(pytest.param(dtype, marks=pytest.mark.exhaustive) for dtype in DTYPES[1:3])],
    ids=name_of,
)
def test_rows_across_memory(dtype, monkeypatch):
    """A class axis that is the first one: what the same rows give along memory, in place and apart."""
    monkeypatch.setattr(cuda, "LEAST_ACROSS", 1)
    x = (3 * np.random.default_rng(0).standard_normal((70, 21))).astype(dtype)
    x[3], x[4], x[5, :10] = -inf, nan, -inf
    y = np.arange(70) % 21
    y[[7, 8, 9]] = -100, 21, -1
    t = np.random.default_rng(1).dirichlet(np.ones(21), 70).astype(np.float32)
    wide = {"axis": 0, "reduction": "none"}
    for here, there in (
        (
            lambda m, x, **o: m.cross_entropy_and_grad(x, y, **wide, **o),
            lambda: EmulatedMlefast().cross_entropy_and_grad(x, y, reduction="none"),
        ),
        (
            lambda m, x, **o: m.js_div_and_grad(t.T, x, **wide, **o),
            lambda: EmulatedMlefast().js_div_and_grad(t, x, reduction="none"),
        ),
        (
            lambda m, x, **o: m.cross_entropy_and_grad(x, y, label_smoothing=0.1, **wide, **o),
            lambda: EmulatedMlefast().cross_entropy_and_grad(x, y, label_smoothing=0.1, reduction="none"),
        ),
        (
            lambda m, x, out=None: m.cross_entropy_grad_hess(x, y, axis=0),
            lambda: EmulatedMlefast().cross_entropy_grad_hess(x, y),
        ),
    ):
        want = there()
        for schedule, out in itertools.product(SCHEDULES[1:], (None, "in place")):
            device = EmulatedDevice(schedule)
            for a, b in zip(across(here, x, out, device), want):
                coarse = 1e-2 if a.dtype.itemsize == 2 else 2e-5
                np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=coarse, atol=coarse / 100)
            assert device.regimes() == {"across"}


def test_every_option_reaches_the_kernels():
    given = {name for option in _table.OPTIONS.values() for name in option.to_kernel(0.5, 3)}
    assert given <= set(cuda_terms.OPTIONS)
    source = cuda.source_of("terms.cu", ())
    members = re.findall(r"(\w+) = [\d.]+[,;]", re.search(r"struct Options \{(.*?)\};", source, re.DOTALL)[1])
    assert members == list(cuda_terms.OPTIONS)


def test_temperature_of_the_softmax():
    x = (3 * np.random.default_rng(0).standard_normal((5, 20))).astype(np.float16)
    emulated = EmulatedMlefast()
    for function in ("softmax", "log_softmax"):
        want = getattr(mf, function)(x, temperature=2.5)
        for out in (None, np.empty_like(x)):
            got = getattr(emulated, function)(x, temperature=2.5, out=out)
            assert got.dtype == np.float16
            np.testing.assert_allclose(np.float32(got), np.float32(want), rtol=2e-3, atol=1e-6)
    with pytest.raises(ValueError, match="^temperature: received 0"):
        emulated.softmax(x, temperature=0)


# ---- bytes


def requested(name: str, x: np.ndarray, regime: str) -> tuple[dict[str, int], dict[str, int]]:
    device = EmulatedDevice()
    with force(regime):
        calls(x)[name](EmulatedMlefast(device), x, out=at_offset(np.zeros_like(x), 0))
    assert device.regimes() == {regime}
    moved: tuple[dict[str, int], dict[str, int]] = {}, {}
    for seen in (launch[-1] for launch in device.launches if launch[0] == "mlefast_terms"):
        for total, part in zip(moved, (seen.requested, seen.wide)):
            total |= {kind: total.get(kind, 0) + n for kind, n in part.items()}
    return moved


@pytest.mark.parametrize(
    ("name", "beside"),
    [("kl_div", 1), ("focal_loss", 0), ("hvp", 1), ("cross_entropy, probabilities", 1), ("softmax_vjp", 1)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=name_of)
def test_resident_rows_are_read_and_written_once(name, beside, dtype):
    """Every array of the logits' shape once, in 16-byte accesses; beside them a few numbers for each lane of a row."""
    x = at_offset(np.random.default_rng(0).standard_normal((4, 512)).astype(dtype), 0)
    moved, wide = requested(name, x, "resident")
    least = x.nbytes + beside * 4 * x.size
    assert least <= moved["global read"] <= least + len(x) * 64 * 24
    assert x.nbytes <= moved["global write"] <= x.nbytes + len(x) * 8
    assert wide["global write"] == x.nbytes
    assert wide["global read"] >= x.nbytes


@pytest.mark.parametrize(
    ("name", "regime", "logits", "beside"),
    [
        ("kl_div", "streamed", 4, 3),
        ("kl_div", "staged", 1, 3),
        ("focal_loss", "streamed", 3, 0),
        ("focal_loss", "staged", 1, 0),
        ("kl_div", "split", 4, 3),
        ("focal_loss", "split", 3, 0),
        ("softmax_vjp", "split", 2, 2),
    ],
)
def test_longer_rows_are_read_in_every_pass(name, regime, logits, beside):
    """The maximum, the sums, what needs the probabilities, the gradient; staged logits are read once all the same."""
    x = at_offset(np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float32), 0)
    moved, _ = requested(name, x, regime)
    least = (logits + beside) * x.nbytes
    # Of split rows, each thread reads its row's target in each of up to 4 launches, and the other parts' numbers.
    lanes, parts = (4 * 3 * 64, 3 * 80) if regime == "split" else (64, 0)
    assert least <= moved["global read"] <= least + len(x) * lanes * 24 + len(x) * parts * 12
    assert x.nbytes <= moved["global write"] <= x.nbytes + len(x) * (8 + parts)


def test_elements_are_read_and_written_once():
    x = at_offset(np.random.default_rng(0).standard_normal((20, 1000)).astype(np.float32), 0)
    device = EmulatedDevice()
    EmulatedMlefast(device).binary_cross_entropy_and_grad(x, np.zeros_like(x), out=x)
    seen = device.launches[0][-1]
    assert device.launches[0][2] == 3  # blocks of 8192 elements
    assert seen.requested["global read"] == 2 * x.nbytes
    assert x.nbytes <= seen.requested["global write"] <= x.nbytes + 8 * 3


BAD = [case for case in family.BAD if "target[1]" not in case[2].replace("\\", "")]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_refused_as_on_the_cpu(call, error, message, monkeypatch):
    if "counts" in message:  # numbers are looked at, which waits for the device, only where a check is asked for
        monkeypatch.setenv("MLEFAST_CUDA_CHECK", "1")
    if error is IndexError:
        pytest.skip("labels are NaN on a device unless a check is asked for: test_wrong_labels")
    with on(EmulatedDevice()), pytest.raises(error, match=message):
        call()
