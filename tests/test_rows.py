"""What a row's exponentials are taken against, and how the final values of long rows are written."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest
import reference
from test_streamed_columns import DTYPES, check

STREAMED = 1 << 25  # bytes from which on an output of long rows is written past the caches
CLASSES = [20, 40, 300, 1000, 2500]  # transposed without and with near pivots, in strips, and long rows


def awkward_rows(n, classes, dtype):
    """Rows whose blocks have other pivots than the row's, from small logits to large ones, with whole rows masked."""
    r = np.random.default_rng(3)
    x = r.standard_normal((n, classes), np.float32)
    x[1::5] = np.sort(x[1::5], axis=-1) * 60  # each block has a higher maximum
    x[2::5] *= 9
    x[3::50, : classes // 2] = -np.inf
    x[4::50] = -np.inf
    x[5::50, 7] = np.nan
    x[6::50] += 3e6
    x[7::50, 1] = np.inf
    with np.errstate(over="ignore"):
        return x.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shift", [0, 1, 5])
@pytest.mark.parametrize("classes", [300, 1_000, 3_072, 3_205, 16_385, 40_001, 300_007])
def test_an_output_of_any_alignment_has_the_bits_of_one_in_place(isa, dtype, classes, shift):
    x = awkward_rows(2 + STREAMED // (classes * np.dtype(dtype).itemsize), classes, dtype)
    y = np.random.default_rng(6).integers(0, classes, len(x))
    y[::3] = -100
    y[1::9], y[2::9], y[4::9], y[5::9] = 0, classes - 1, 1024 % classes, 1023 % classes

    def gradient(x, out):
        loss, _ = mf.cross_entropy_and_grad(x, y, reduction="none", out=out)
        return (loss,)

    check(gradient, x, shift)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("function", [mf.softmax, mf.log_softmax])
def test_probabilities_of_any_alignment(isa, dtype, function, threads):
    def call(x, out):
        function(x, out=out)
        return ()

    for n in (1, 3):
        threads(n)
        check(call, awkward_rows(2 + STREAMED // (3_205 * np.dtype(dtype).itemsize), 3_205, dtype), 3 * n)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("classes", [1_100, 2_500])
def test_a_row_does_not_depend_on_its_neighbours(isa, dtype, classes):
    """Long rows': pivots outlive their row, and a row is written while the next one is read."""
    x = awkward_rows(60, classes, dtype)
    y = np.random.default_rng(1).integers(0, classes, 60)
    unsigned = f"u{x.itemsize}"
    loss, gradient = mf.cross_entropy_and_grad(x, y, reduction="none")
    probabilities, logarithms = mf.softmax(x), mf.log_softmax(x)
    for i in range(60):
        one = slice(i, i + 1)
        alone, gradient_alone = mf.cross_entropy_and_grad(x[one], y[one], reduction="none")
        np.testing.assert_array_equal(alone, loss[one])
        np.testing.assert_array_equal(gradient_alone.view(unsigned), gradient[one].view(unsigned))
        np.testing.assert_array_equal(mf.softmax(x[one]).view(unsigned), probabilities[one].view(unsigned))
        np.testing.assert_array_equal(mf.log_softmax(x[one]).view(unsigned), logarithms[one].view(unsigned))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("classes", [300, 1_000, 1_024])
def test_a_row_does_not_depend_on_its_place(isa, dtype, classes):
    """In a strip: its lane, and whether all lanes are filled. (A row of 3e6 takes its strip's near pivots away.)"""
    x = awkward_rows(60, classes, dtype)
    x[6::50] = x[0]
    y = np.random.default_rng(1).integers(0, classes, 60)
    unsigned = f"u{x.itemsize}"
    loss, gradient = mf.cross_entropy_and_grad(x, y, reduction="none")
    moved = np.roll(np.arange(60), 7)[::-1]
    loss_moved, gradient_moved = mf.cross_entropy_and_grad(x[moved], y[moved], reduction="none")
    np.testing.assert_array_equal(loss_moved, loss[moved])
    np.testing.assert_array_equal(gradient_moved.view(unsigned), gradient[moved].view(unsigned))
    for function in (mf.softmax, mf.log_softmax):
        np.testing.assert_array_equal(function(x[moved]).view(unsigned), function(x)[moved].view(unsigned))


@pytest.mark.parametrize("classes", CLASSES[1:])
@pytest.mark.parametrize(("dtype", "per_gap"), [(np.float32, 0.03), (np.float64, 0.2)])
def test_no_difference_from_the_maximum_is_rounded(isa, dtype, per_gap, classes):
    """Which would move an entry that is g behind by g / 2 units: src/cpp/pivot.hpp promises less, but for plain C++."""
    allowed_per_gap = cases.ULP_PER_GAP if isa == "scalar" else per_gap
    for largest in (0.0, 3.1, -77.7, 1000.3):
        x = np.random.default_rng(2).uniform(-85, 0, (140, classes)).astype(dtype) + dtype(largest)
        x[:, 17] = largest
        y, losers = np.full(len(x), 17), np.arange(classes) != 17
        _, want = reference.cross_entropy(x, y)
        allowed = cases.ULP + allowed_per_gap * reference.gap(x)
        _, gradient = mf.cross_entropy_and_grad(x, y, reduction="none")
        cases.assert_ulps(gradient[:, losers], want[:, losers], dtype, allowed[:, losers])
        _, gradient = mf.cross_entropy_and_grad(np.ascontiguousarray(x.T), y, axis=0, reduction="none")
        cases.assert_ulps(gradient[losers].T, want[:, losers], dtype, allowed[:, losers])
        if classes >= 300:  # a few classes have no near pivot without a target: tile.hpp
            cases.assert_ulps(mf.softmax(x), reference.softmax(x), dtype, allowed)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize(
    "largest", [2.0**17, -(2.0**17), 2.0**20, -(2.0**20), 6.0e6, -6.0e6, 2.7725887, -2.7725887, 5.0e8]
)
def test_where_pivots_change(isa, dtype, largest, classes):
    """Just below the border (2^17 with a table, else 2^20) and just above it, in one row and in neighbouring ones."""
    x = np.random.default_rng(4).uniform(-20, 0, (40, classes)).astype(dtype) + dtype(largest)
    steps = np.arange(-20, 20) * np.spacing(dtype(abs(largest)))
    x[np.arange(40), np.arange(40) * (classes // 40)] = dtype(largest) + steps.astype(dtype)
    cases.check_rows(x, cases.targets(x), dtype)


@pytest.mark.parametrize("classes", [1, *CLASSES])
def test_no_probability_exceeds_one(isa, classes):
    x = np.full((400, classes), -np.inf, np.float32)
    x[:, classes // 4] = np.random.default_rng(0).uniform(-300, 300, 400)
    for p in (mf.softmax(x), mf.softmax(np.ascontiguousarray(x.T), axis=0).T):
        assert (p[:, classes // 4] == 1).all()


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_rows_without_a_distribution_do_not_change_their_neighbours(isa, dtype, classes):
    x = cases.rows("wide", 64, classes, dtype)
    want, spoilt = mf.softmax(x), x.copy()
    spoilt[3, 2], spoilt[21, 5], spoilt[41, 7], spoilt[62] = np.nan, np.inf, -np.inf, -np.inf
    kept = np.delete(np.arange(64), [3, 21, 41, 62])
    np.testing.assert_array_equal(mf.softmax(spoilt)[kept], want[kept])
    assert np.isnan(mf.softmax(spoilt)[[3, 21, 62]]).all()
