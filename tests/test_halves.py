"""float16 and bfloat16: the result for float32 logits, rounded once, in every bit."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest
from test_threads import results

bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
HALVES = [np.float16, bfloat16]


def assert_same(got, want, half):
    """``got`` holds ``want`` (float32), rounded to the half and bit for bit; NaN is NaN."""
    with np.errstate(over="ignore"):
        want = want.astype(half)
    assert got.dtype == half
    nan = np.isnan(want.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
    np.testing.assert_array_equal(got.view(np.uint16)[~nan], want.view(np.uint16)[~nan])


@pytest.mark.parametrize("half", HALVES)
def test_every_number_is_read_exactly(isa, half):
    x = np.arange(2**16, dtype=np.uint16).view(half)
    for shape, axis in (((2**16, 1), 1), ((1, 2**16), 0)):
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(mf.logsumexp(x.reshape(shape), axis), x.astype(np.float32))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((67, c), -1) for c in (1, 2, 3, 5, 8, 17, 100, 129)]
    + [((9, 1000), -1), ((3, 1025), -1), ((2, 20_000), -1), ((1, 50_000), -1)]
    + [((3, 40, 70), 1), ((2, 3000, 21), 1), ((5, 3), 0), ((4, 6, 5), 0)],
)
@pytest.mark.parametrize("kind", ["ordinary", "masked", "confident", "wide"])
def test_results_are_those_of_float32_rounded_once(isa, half, shape, axis, kind):
    classes = shape[axis]
    row_shape = shape[:axis] + shape[axis % len(shape) + 1 :]
    rows = cases.rows(kind, int(np.prod(row_shape)), classes, np.float32).reshape(*row_shape, classes)
    x = np.ascontiguousarray(np.moveaxis(rows, -1, axis)).astype(half)
    wide = x.astype(np.float32)
    r = np.random.default_rng(0)
    y = r.integers(-1, classes, row_shape)
    np.testing.assert_array_equal(mf.logsumexp(x, axis), mf.logsumexp(wide, axis))
    assert_same(mf.softmax(x, axis), mf.softmax(wide, axis), half)
    assert_same(mf.log_softmax(x, axis), mf.log_softmax(wide, axis), half)
    upstream = 10.0 ** r.uniform(-9, 6, y.shape)  # gradients from denormal numbers to beyond the largest one
    weight = r.uniform(0.5, 2, classes).astype(np.float32)
    options = {"axis": axis, "ignore_index": -1, "weight": weight, "reduction": "none", "upstream": upstream}
    losses, gradient = mf.cross_entropy_and_grad(x, y, **options)
    want, want_gradient = mf.cross_entropy_and_grad(wide, y, **options)
    assert losses.dtype == np.float32
    np.testing.assert_array_equal(losses, want)
    del options["upstream"]
    np.testing.assert_array_equal(mf.cross_entropy(x, y, **options), want)
    assert_same(gradient, want_gradient, half)
    in_place = x.copy()
    _, returned = mf.cross_entropy_and_grad(in_place, y, out=in_place, upstream=upstream, **options)
    assert returned is in_place
    assert_same(in_place, want_gradient, half)
    assert_same(mf.log_softmax(x, axis, out=x), mf.log_softmax(wide, axis), half)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_strides(isa, half, axis):
    x = cases.rows("ordinary", 40 * 3, 37, np.float32).reshape(40, 3, 37).astype(half)
    for view in (x[::-1, :, ::2], x.transpose(2, 0, 1), np.asfortranarray(x)[1:], x[:, ::2, ::-3]):
        y = np.zeros([n for i, n in enumerate(view.shape) if i != axis], int)
        loss, gradient = mf.cross_entropy_and_grad(view, y, axis=axis)
        want, want_gradient = mf.cross_entropy_and_grad(view.astype(np.float32), y, axis=axis)
        np.testing.assert_allclose(loss, want, rtol=1e-6)
        np.testing.assert_allclose(
            gradient.astype(np.float32), want_gradient, rtol=2.0**-7 if half is bfloat16 else 2.0**-10, atol=2.0**-24
        )


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("shape", [(30_000, 10), (700, 1000), (3, 300_000), (1, 1_000_003)])
@pytest.mark.parametrize("axis", [1, 0])
def test_same_bits_for_any_number_of_threads(threads, half, shape, axis):
    x = cases.rows("ordinary", *shape, np.float32)
    y = cases.targets(x)
    x = x.astype(half)
    if axis == 0:
        x = np.ascontiguousarray(x.T)
    threads(1)
    want = results(x, y, axis)
    for n in (2, 5):
        threads(n)
        assert results(x, y, axis) == want


@pytest.mark.parametrize("half", HALVES)
def test_sums_do_not_overflow(half):
    """100,000 equal logits, whose sum of exponentials is beyond float16 (pytorch issue 158310)."""
    x = np.zeros((3, 100_000), half)
    np.testing.assert_allclose(mf.logsumexp(x), np.log(100_000), rtol=1e-7)
    np.testing.assert_allclose(mf.cross_entropy(x, [0, 1, 2], reduction="sum"), 3 * np.log(100_000), rtol=1e-7)


@pytest.mark.parametrize("half", HALVES)
def test_arguments(half):
    x, y = np.zeros((4, 3), half), [0, 1, 2, 0]
    loss, gradient = mf.cross_entropy_and_grad(x, y, weight=np.ones(3, half), upstream=np.float32(2))
    assert (type(loss), gradient.dtype) == (np.float32, half)
    assert mf.softmax(x.astype(x.dtype.newbyteorder(">")) if half is np.float16 else x).dtype == half
    with pytest.raises(ValueError, match=f"out: received an array of dtype float32 .*accepted: dtype {x.dtype}"):
        mf.softmax(x, out=np.empty((4, 3), np.float32))
    with pytest.raises(IndexError, match=r"target\[1\]: received 3"):
        mf.cross_entropy(x, [0, 3, 2, 0])
    assert np.isnan(mf.cross_entropy(x[:0], []))
