"""The kernels, run on the CPU from the text that NVRTC gets: each regime and storage type against the reference."""

from __future__ import annotations

import itertools
import mmap

import cases
import numpy as np
import pytest
import reference
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast, Schedule
from cuda_tests import kernel_cases
from cuda_tests.kernel_cases import DTYPES, REGIMES, at_offset, check_rows, for_all, force, name_of

pytestmark = kernel_cases.needs_emulator
UNRESERVED = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE, which Python 3.10 does not name
inf, nan = np.inf, np.nan
SCHEDULES = [Schedule("forward"), Schedule("backward"), Schedule("random", preempt=100, seed=3)]

# Borders of what a regime's registers, warps and blocks hold, one below and one above, and awkward sizes. A size costs
# five runs of the compiler, so storage types share the product out between them.
PACKED = {"float32": [1, 2, 3, 4, 5, 7, 8, 10, 16, 31, 32], "float64": [1, 2, 10, 32]}
PACKED |= {"float16": [1, 3, 8, 32], "bfloat16": [2, 7, 10, 31]}
RESIDENT = {"float32": [33, 65, 125, 128, 253, 257, 512, 1000, 1024, 1025, 4099, 8193], "float64": [33, 128, 513, 1000]}
RESIDENT |= {"float16": [64, 249, 257, 1024, 1025, 4099], "bfloat16": [33, 512, 1000, 4097]}
LONG = {"float32": [32000, 40000, 128256], "float64": [16383, 20000], "float16": [32761, 50257], "bfloat16": [128256]}
LONGEST = {"streamed", "staged"}  # what sizes beyond the registers meet, over the storage types


def problem(kind: str, n: int, classes: int, dtype: np.dtype, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    x = kernel_cases.rows(kind, n, classes, dtype, seed)
    return x, cases.targets(x.astype(np.float64), seed)


def check_kinds(regime: str | None, dtype: np.dtype, classes: int, rows: int, kinds: list[str]) -> set[str]:
    """exp and log1p are off by up to 1 ULP, as CUDA's are."""
    found = set()
    for i, kind in enumerate(kinds):
        device = EmulatedDevice(SCHEDULES[(classes + i) % 3].but(ulps=1.0))
        x, y = problem(kind, rows, classes, dtype, seed=i)
        check_rows(EmulatedMlefast(device), at_offset(x, (classes + i) % 5), y)
        found |= device.regimes()
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_few_classes(dtype):
    sizes = PACKED[dtype.name]
    for_all(
        sizes, lambda classes: check_kinds("packed", dtype, classes, 40, ["ordinary", "confident", "masked", "wide"])
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_rows_in_registers(dtype):
    def check(classes: int) -> None:
        found = check_kinds(None, dtype, classes, 5 if classes < 5000 else 3, ["ordinary", "confident", "masked"])
        assert found == {"resident"}

    for_all(RESIDENT[dtype.name], check)


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_long_rows(dtype):
    """In whatever regime is chosen for them."""

    def check(classes: int) -> set[str]:
        return check_kinds(None, dtype, classes, 3, ["ordinary", "equal", "ascending"])

    found = set().union(*map(check, LONG[dtype.name]))
    assert found <= {"resident", "staged", "streamed"}, found
    assert found & LONGEST, found


@pytest.mark.parametrize("regime", ["resident", "staged", "streamed", "split"])
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_every_length(regime, dtype):
    """Each regime over all lengths to 70, and every kind of row."""
    with force(regime):
        kinds = itertools.cycle(cases.KINDS)
        for classes in range(1, 71):
            found = check_kinds(regime, dtype, classes, 3, [next(kinds)])
            assert found == {regime}


def special_rows(classes: int, dtype: np.dtype) -> np.ndarray:
    """Ordinary rows, and rows that begin, end or consist of what breaks exponentials."""
    x = kernel_cases.rows("ordinary", 12, classes, dtype)
    half = max(1, classes // 2)
    x[1, :half] = -inf
    x[2, half:] = -inf
    x[3] = -inf
    x[4, 0] = nan
    x[5, -1] = nan
    x[6, half - 1] = inf
    x[7] = inf
    x[8] = nan
    x[9, :-1] = -inf
    x[10, 0] = -inf
    return x


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_rows_without_a_distribution(regime, dtype):
    sizes = [1, 2, 10] if regime == "packed" else [1, 2, 33, 65, 1000]

    def check(classes: int) -> None:
        mlefast = EmulatedMlefast()
        x = special_rows(classes, dtype)
        wide = x.astype(np.float64)
        lse = np.asarray(reference.logsumexp(wide), np.float64)
        np.testing.assert_allclose(mlefast.logsumexp(x), lse, rtol=1e-5)
        coarse = 1e-2 if dtype.itemsize == 2 else 1e-5
        for got, want in (
            (mlefast.softmax(x), reference.softmax(wide)),
            (mlefast.log_softmax(x), reference.log_softmax(wide)),
        ):
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=coarse, atol=coarse / 100)
        for label in {0, classes - 1, classes // 2}:
            y = np.full(len(x), label)
            loss, gradient = mlefast.cross_entropy_and_grad(x, y, reduction="none")
            want, want_gradient = reference.cross_entropy(wide, y)
            want_gradient[np.isnan(want)] = nan  # a single class of -inf too
            np.testing.assert_allclose(loss, want.astype(np.float64), rtol=1e-5, atol=1e-6)
            got = gradient.astype(np.float64)
            np.testing.assert_allclose(got, want_gradient.astype(np.float64), rtol=coarse, atol=coarse / 100)
            masked = np.isneginf(wide) & np.isfinite(wide.max(-1, keepdims=True)) & (np.arange(classes) != label)
            assert (got[masked] == 0).all()

    with force(regime):
        for_all(sizes, check)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_targets(regime, dtype):
    """Ignored rows are exactly 0 whatever they hold, wrong labels are NaN in their row alone; in place and apart."""
    sizes = [1, 3, 10] if regime == "packed" else [1, 10, 33, 1000]

    def check(classes: int) -> None:
        device = EmulatedDevice(Schedule("random", preempt=50, seed=classes))
        mlefast = EmulatedMlefast(device)
        x, y = problem("ordinary", 41, classes, dtype)
        y[[2, 5, 9]] = -100
        x[2], x[5], x[9] = nan, inf, -inf
        wrong = {7: -1, 11: classes, 13: 2**40, 17: -(2**63), 40: 2**31}
        y[list(wrong)] = list(wrong.values())
        r = np.random.default_rng(0)
        value = np.float64 if dtype.itemsize == 8 else np.float32
        weight, upstream = r.uniform(0.5, 2, classes).astype(value), r.standard_normal(41).astype(value)
        good = np.ones(41, bool)
        good[[2, 5, 9, *wrong]] = False
        want, want_gradient = reference.cross_entropy(
            x[good].astype(np.float64), y[good], weight=weight, upstream=upstream[good]
        )
        for in_place in (False, True):
            given = x.copy()
            loss, gradient = mlefast.cross_entropy_and_grad(
                given, y, weight=weight, upstream=upstream, reduction="none", out=given if in_place else None
            )
            assert (loss[[2, 5, 9]] == 0).all()
            assert (gradient[[2, 5, 9]] == 0).all()
            assert np.isnan(loss[list(wrong)]).all()
            assert np.isnan(gradient[list(wrong)].astype(np.float64)).all()
            np.testing.assert_allclose(loss[good], want.astype(np.float64), rtol=1e-4, atol=1e-6)
            coarse = 1e-2 if dtype.itemsize == 2 else 1e-4
            got = gradient[good].astype(np.float64)
            np.testing.assert_allclose(got, want_gradient.astype(np.float64), rtol=coarse, atol=coarse / 1e4)

    with force(regime):
        for_all(sizes, check)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_same_bits_in_every_order_and_at_every_address(regime, dtype):
    """Whatever the schedule, and wherever rows begin: out of place, in place, and to an output elsewhere."""
    classes = 10 if regime == "packed" else 521
    x, y = problem("ordinary", 6, classes, dtype)
    seen: dict[int, tuple[np.ndarray, ...]] = {}
    with force(regime):
        for offset, schedule, out in itertools.product((0, 1, 16 // dtype.itemsize - 1), SCHEDULES, (None, "x", 0, 1)):
            mlefast = EmulatedMlefast(EmulatedDevice(schedule))
            given = at_offset(x, offset)
            to = given if out == "x" else None if out is None else at_offset(np.zeros_like(x), out)
            loss, gradient = mlefast.cross_entropy_and_grad(given, y, reduction="none", out=to)
            want = seen.setdefault(offset, (loss, gradient.copy()))
            np.testing.assert_array_equal(loss, want[0])
            np.testing.assert_array_equal(gradient, want[1])


@pytest.mark.parametrize("regime", ["resident", "streamed", "split"])
def test_rows_beyond_two_to_the_31st_element(regime):
    """9 GB of address space, of which one row is touched: an index of 32 bits would wrap."""
    classes, rows = 32000, 70001
    memory = mmap.mmap(-1, rows * classes * 4, flags=UNRESERVED)
    x = np.frombuffer(memory, np.float32).reshape(rows, classes)
    x[-1] = np.linspace(-5, 5, classes)
    x.flags.writeable = False
    with force(regime):
        plan = kernel_cases.cuda.make_plan(
            kernel_cases.cuda.Shape(rows, classes, 4, classes, 0, True), False, EmulatedDevice()
        )
        blocks = list(range(plan.grid - plan.segments, plan.grid))
        device = EmulatedDevice(Schedule(blocks=blocks if regime != "split" else None))
        if regime == "split":  # its two kernels have different grids: the last row alone, at its own address
            got = EmulatedMlefast(device).logsumexp(x[-1:])[0]
        else:
            got = EmulatedMlefast(device).logsumexp(x)[-1]
    assert got == pytest.approx(float(reference.logsumexp(x[-1])), rel=1e-6)


@pytest.mark.parametrize("classes", [2**18, 2**20 + 3])
def test_error_does_not_grow_with_the_row(classes):
    """A sum of a million equal terms, and of random ones, within the same 4 ULP."""
    for kind in ("equal", "ordinary"):
        x, y = problem(kind, 1, classes, np.dtype(np.float32))
        check_rows(EmulatedMlefast(EmulatedDevice(Schedule(ulps=1.0))), x, y)


def test_split_rows_give_what_whole_rows_give():
    """Few long rows are shared by blocks; the merge has a fixed order, so the bits repeat."""
    device = EmulatedDevice()
    x, y = problem("ordinary", 1, 60000, np.dtype(np.float32))
    first = EmulatedMlefast(device).cross_entropy_and_grad(x, y)
    assert device.regimes() == {"split"}
    again = EmulatedMlefast(EmulatedDevice(SCHEDULES[2])).cross_entropy_and_grad(x, y)
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0] == again[0]
