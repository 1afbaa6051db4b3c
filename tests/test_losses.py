"""cross_entropy and its gradient: reductions, weights, ignored and wrong targets, masks, outputs, what is refused."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from mlefast._core import plain_cross_entropy

inf, nan = np.inf, np.nan
SHAPES = [(1, 1), (33, 2), (70, 10), (40, 100), (9, 300), (5, 2000), (2, 20000)]


def problem(shape, dtype, seed=0):
    r = np.random.default_rng(seed)
    x = cases.rows("ordinary", *shape, dtype, seed)
    y = cases.targets(x, seed)
    y[r.random(shape[0]) < 0.3] = -100
    return x, y, r.uniform(0.5, 2, shape[1]).astype(dtype), r.standard_normal(shape[0]).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("denominator", [None, 7.5])
def test_reductions(isa, shape, dtype, weighted, reduction, denominator):
    if reduction == "none" and denominator:
        denominator = None
    x, y, w, u = problem(shape, dtype)
    y[0] = 0  # at least one row counts
    weight = w if weighted else None
    upstream = u if reduction == "none" else -2.5
    loss, gradient = mf.cross_entropy_and_grad(
        x, y, weight=weight, reduction=reduction, denominator=denominator, upstream=upstream
    )
    alone = mf.cross_entropy(x, y, weight=weight, reduction=reduction, denominator=denominator)
    want, want_gradient = reference.cross_entropy(x, y, weight=weight, upstream=upstream)
    divisor = reference.LONG(denominator or 1)
    if denominator is None and reduction == "mean":
        divisor = reference.mean_weight(y, weight=weight)
    if reduction != "none":
        want = want.sum() / divisor
    assert np.asarray(loss).dtype == dtype
    assert isinstance(loss, np.ndarray if reduction == "none" else dtype)
    np.testing.assert_array_equal(loss, alone)
    slack = 3 + 40 * (reduction == "none")  # a single row may be confident; the sum is led by those that are not
    cases.assert_ulps(loss, want, dtype, cases.ULP + slack)
    allowed = cases.ULP + 2 + cases.ULP_PER_GAP * reference.gap(x) + 40 * (x == x.max(-1, keepdims=True))
    cases.assert_ulps(gradient, want_gradient / divisor, dtype, allowed)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("shape", [(5, 3), (3, 40), (2, 200)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_the_derivative(isa, dtype, shape, weighted):
    """Against central differences of the loss in float64."""
    x, y, w, _ = problem(shape, np.float64)
    y[0] = 1
    weight = w if weighted else None
    _, gradient = mf.cross_entropy_and_grad(x.astype(dtype), y, weight=None if weight is None else weight.astype(dtype))
    step = 1e-6
    x = x.astype(dtype).astype(np.float64)
    for i, j in np.ndindex(*shape):
        ahead, behind = x.copy(), x.copy()
        ahead[i, j] += step
        behind[i, j] -= step
        slope = (mf.cross_entropy(ahead, y, weight=weight) - mf.cross_entropy(behind, y, weight=weight)) / (2 * step)
        assert abs(gradient[i, j] - slope) <= 1e-8 + 1e-6 * abs(slope), (i, j)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_gradient_rows_sum_to_zero(isa, shape, dtype):
    x, y, _, _ = problem(shape, dtype)
    _, gradient = mf.cross_entropy_and_grad(x, y, reduction="none")
    size = np.abs(gradient).sum(-1) + np.finfo(dtype).tiny
    assert (np.abs(gradient.astype(np.float64).sum(-1)) <= 1e-6 * size if dtype == np.float32 else 1e-14 * size).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_in_place_is_the_same(isa, shape, dtype):
    x, y, w, _ = problem(shape, dtype)
    loss, gradient = mf.cross_entropy_and_grad(x, y, weight=w)
    out = np.empty_like(x)
    got, returned = mf.cross_entropy_and_grad(x, y, weight=w, out=out)
    assert returned is out
    np.testing.assert_array_equal(out, gradient)
    got_in_place, returned = mf.cross_entropy_and_grad(x, y, weight=w, out=x)
    assert returned is x
    np.testing.assert_array_equal(x, gradient)
    np.testing.assert_array_equal([got, got_in_place], [loss, loss])


@pytest.mark.parametrize("integer", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_every_integer_dtype(integer):
    x, y, _, _ = problem((50, 10), np.float32)
    y[y == -100] = 3
    want = mf.cross_entropy_and_grad(x, y)
    for target in (y.astype(integer), y.astype(np.dtype(integer).newbyteorder()), np.repeat(y.astype(integer), 2)[::2]):
        got = mf.cross_entropy_and_grad(x, target)
        assert got[0] == want[0]
        np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("classes", [10, 300, 20000])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("axis", [1, 0])
def test_ignored_rows_count_for_nothing_whatever_they_hold(isa, classes, dtype, axis):
    kept, ignored = [0, 2, 4], [1, 3, 5]
    x = cases.rows("ordinary", 6, classes, dtype)
    x[1], x[3], x[5] = nan, inf, -inf
    for ignore_index in (-100, 3, -1):
        y = cases.targets(np.nan_to_num(x))
        y[y == ignore_index] = 4
        want, want_gradient = mf.cross_entropy_and_grad(x[kept], y[kept])
        y[ignored] = ignore_index
        laid = np.ascontiguousarray(x.T) if axis == 0 else x
        loss, gradient = mf.cross_entropy_and_grad(laid, y, axis=axis, ignore_index=ignore_index)
        gradient = gradient.T if axis == 0 else gradient
        cases.assert_ulps(gradient[kept], want_gradient.astype(reference.LONG), dtype, 4 + reference.gap(x[kept]))
        np.testing.assert_allclose(loss, want, rtol=1e-6)
        assert (gradient[ignored] == 0).all()
        losses = mf.cross_entropy(laid, y, axis=axis, ignore_index=ignore_index, reduction="none")
        assert (losses[ignored] == 0).all()


@pytest.mark.parametrize("y", [[-100, -100], []])
def test_no_row_counts(y):
    x = np.full((len(y), 3), nan)
    assert np.isnan(mf.cross_entropy(x, y))
    assert mf.cross_entropy(x, y, reduction="sum") == 0
    assert mf.cross_entropy(x, y, denominator=5) == 0
    for options in ({}, {"reduction": "sum"}, {"denominator": 2.0}, {"reduction": "none"}):
        _, gradient = mf.cross_entropy_and_grad(x, y, **options)
        assert gradient.shape == x.shape
        assert (gradient == 0).all()


@pytest.mark.parametrize("classes", [4, 40, 400, 40000])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_masked_classes(isa, classes, dtype):
    x = cases.rows("masked", 8, classes, dtype)
    y = np.full(8, classes - 1)
    loss, gradient = mf.cross_entropy_and_grad(x, y, upstream=1e10)
    assert np.isfinite(loss)
    assert (gradient[np.isneginf(x)] == 0).all()
    others = np.isfinite(x[:, :-1]).any(-1)
    assert (gradient[others, -1] < 0).all()
    masked_target = np.argmax(np.isneginf(x[0]))
    losses, gradient = mf.cross_entropy_and_grad(x[:1], [masked_target], reduction="none")
    assert losses[0] == inf
    assert mf.cross_entropy(x, np.full(8, masked_target), reduction="sum") == inf
    assert gradient[0, masked_target] == -1


@pytest.mark.parametrize("classes", [1500, 5000, 70_000])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("one_row", [False, True])
def test_rows_whose_first_blocks_are_masked(isa, threads, classes, dtype, one_row):
    """A maximum of -inf so far, merged with another one or with what follows, must not become NaN."""
    threads(2)  # that share a row if there is but one
    x = cases.rows("ordinary", 1 if one_row else 4, classes, dtype)
    for masked in (1, 511, 512, 1024, 1025, classes // 2, classes - 1):
        x[:, :masked] = -inf
        y = np.full(len(x), classes - 1)
        losses, gradient = mf.cross_entropy_and_grad(x, y, reduction="none")
        want, want_gradient = mf.cross_entropy_and_grad(x[:, masked:].copy(), y - masked, reduction="none")
        np.testing.assert_allclose(losses, want, rtol=1e-6)
        assert (gradient[:, :masked] == 0).all()
        np.testing.assert_allclose(gradient[:, masked:], want_gradient, rtol=1e-5, atol=1e-6 * (masked < classes - 1))
    x[:] = -inf
    assert (mf.logsumexp(x) == -inf).all()
    assert np.isnan(mf.cross_entropy(x, y, reduction="none")).all()


@pytest.mark.parametrize("row", [[-inf, -inf, -inf], [inf, 1, 2], [1, inf, inf], [nan, 1, 2], [1, 2, nan]])
@pytest.mark.parametrize("classes", [3, 20, 100, 300, 3000])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_rows_without_a_distribution_are_nan_and_no_other(isa, row, classes, dtype):
    bad, at = [2, 35], [0, classes // 2, classes - 1]
    x = np.zeros((37, classes), dtype)
    x[bad] = -inf if np.isneginf(row).all() else 0
    for index in bad:
        x[index, at] = row
    others = np.delete(np.arange(37), bad)
    for target in at:
        y = np.arange(37) % classes
        y[bad] = target
        losses, gradient = mf.cross_entropy_and_grad(x, y, reduction="none")
        assert np.isnan(losses[bad]).all()
        assert np.isnan(gradient[bad]).all()
        np.testing.assert_allclose(losses[others], np.log(classes), rtol=1e-6)
        assert np.isfinite(gradient[others]).all()
    for function in (mf.softmax, mf.log_softmax):
        result = function(x)
        assert np.isnan(result[bad]).all()
        assert np.isfinite(result[others]).all()
    want = nan if np.isnan(row).any() else np.max(row)
    np.testing.assert_array_equal(mf.logsumexp(x)[bad], np.full(2, want, dtype))


def test_known_values():
    """The counter-examples of the literature: what other libraries return is in docs/numerics.md."""
    far = np.array([[-1e7, -1e7, -1e7]], np.float32)
    cases.assert_ulps(mf.cross_entropy(far, [1]), np.log(reference.LONG(3)), np.float32, 1)
    confident = np.zeros((1, 10), np.float32)
    confident[0, 4] = 25
    loss, gradient = mf.cross_entropy_and_grad(confident, [4])
    others = 9 * np.exp(reference.LONG(-25))
    cases.assert_ulps(loss, np.log1p(others), np.float32, 4)
    cases.assert_ulps(gradient[0, 4], -others / (1 + others), np.float32, 4)


@pytest.mark.parametrize("bad", [-1, -99, 10, 2**31, 2**40, -(2**63)])
@pytest.mark.parametrize("at", [0, 7, 49])
def test_wrong_target_is_named_before_anything_is_written(bad, at):
    x, y, _, _ = problem((50, 10), np.float32)
    y[at] = bad
    out = np.full_like(x, 123)
    with pytest.raises(IndexError, match=rf"^target\[{at}\]: received {bad}; accepted: 0 to 9, or the ignore_index"):
        mf.cross_entropy_and_grad(x, y, out=out)
    assert (out == 123).all()
    before = x.copy()
    with pytest.raises(IndexError):
        mf.cross_entropy_and_grad(x, y, out=x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("ignore_index", [2**63 - 1, -(2**63), -1, -100])
def test_unsigned_targets_beyond_int64_are_wrong(ignore_index):
    y = np.array([0, 2**64 - 1, 2**63], np.uint64)
    with pytest.raises(IndexError, match=r"^target\[1\]: received 18446744073709551615"):
        mf.cross_entropy(np.zeros((3, 2)), y, ignore_index=ignore_index)


def test_wrong_target_position_has_an_index_for_each_axis():
    with pytest.raises(IndexError, match=r"^target\[1, 2\]: received 5"):
        mf.cross_entropy(np.zeros((2, 4, 3)), np.array([[0, 1, 2], [3, 0, 5]]), axis=1)
    with pytest.raises(IndexError, match=r"^target: received 7"):
        mf.cross_entropy(np.zeros(4), 7)
    with pytest.raises(IndexError, match=r"received 18446744073709551615"):
        mf.cross_entropy(np.zeros((1, 4)), np.array([2**64 - 1], np.uint64))


def test_first_of_many_wrong_targets_is_named(threads):
    threads(4)
    y = np.zeros(1_000_000, np.int32)
    y[[123_456, 999_999]] = -5
    with pytest.raises(IndexError, match=r"^target\[123456\]"):
        mf.cross_entropy(np.zeros((1_000_000, 2), np.float32), y)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": [0.0, 1.0]}, TypeError, "target: received an array of dtype float64"),
        ({"target": [True, False]}, TypeError, "target: received an array of dtype bool"),
        ({"target": [0, 1, 2]}, ValueError, r"target: received shape \(3,\); accepted: \(2,\)"),
        ({"target": 0}, ValueError, r"target: received shape \(\)"),
        ({"axis": 5}, ValueError, "axis: received 5"),
        ({"axis": None}, TypeError, "axis: received None"),
        ({"weight": [1.0, 2.0]}, ValueError, r"weight: received shape \(2,\); accepted: \(3,\)"),
        ({"weight": ["a", "b", "c"]}, TypeError, "weight: received"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index: received 1.5"),
        ({"ignore_index": 2**70}, ValueError, "ignore_index: received"),
        ({"reduction": "average"}, ValueError, "reduction: received 'average'"),
        ({"reduction": None}, ValueError, "reduction: received None"),
        ({"denominator": 0}, ValueError, "denominator: received 0.0; accepted: a number > 0"),
        ({"denominator": -1.0}, ValueError, "denominator: received -1.0"),
        ({"denominator": nan}, ValueError, "denominator: received nan"),
        ({"denominator": "5"}, TypeError, "denominator: received '5'"),
        ({"denominator": 2, "reduction": "none"}, ValueError, "denominator: received with reduction='none'"),
        ({"upstream": [1.0, 2.0]}, ValueError, r"upstream: received shape \(2,\); accepted: a scalar"),
        ({"upstream": [1.0], "reduction": "none"}, ValueError, r"upstream: received shape \(1,\)"),
        ({"upstream": "x"}, TypeError, "upstream: received"),
        ({"out": np.empty((2, 3), np.float32)}, ValueError, "out: received an array of dtype float32"),
        ({"logits": np.zeros((2, 3), bool)}, TypeError, "logits: received an array of dtype bool"),
        ({"logits": np.zeros((2, 0))}, ValueError, "logits: received shape"),
        ({"logits": 1.0}, ValueError, "logits: received a scalar"),
    ],
)
def test_refused(arguments, error, message):
    given = {"logits": np.zeros((2, 3)), "target": [0, 1], **arguments}
    with pytest.raises(error, match="^" + message):
        mf.cross_entropy_and_grad(given.pop("logits"), given.pop("target"), **given)


@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 33, 3, 7), (3, 200, 40), (7, 2)])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_any_axis(isa, shape, axis, dtype):
    r = np.random.default_rng(0)
    x = (3 * r.standard_normal(shape)).astype(dtype)
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    y = r.integers(-1, rows.shape[-1], rows.shape[:-1])
    w = r.uniform(0.5, 2, rows.shape[-1])
    options = {"weight": w, "ignore_index": -1, "reduction": "none", "upstream": r.standard_normal(y.shape)}
    losses, gradient = mf.cross_entropy_and_grad(x, y, axis=axis, **options)
    want, want_gradient = reference.cross_entropy(
        rows, y, weight=w.astype(dtype), ignore_index=-1, upstream=options["upstream"].astype(dtype)
    )
    cases.assert_ulps(losses, want, dtype, cases.ULP + 6)
    cases.assert_ulps(np.moveaxis(gradient, axis, -1), want_gradient, dtype, cases.ULP + 6 + 0.5 * reference.gap(rows))
    out = np.empty(shape, dtype)
    mf.cross_entropy_and_grad(np.asfortranarray(x), y, axis=axis, out=out, **options)
    cases.assert_ulps(np.moveaxis(out, axis, -1), want_gradient, dtype, cases.ULP + 6 + 0.5 * reference.gap(rows))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_shape_strides_and_targets(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=4)))
    r = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from(cases.DTYPES))
    x = (5 * r.standard_normal(shape)).astype(dtype).transpose(data.draw(st.permutations(range(len(shape)))))
    x = x[tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in shape)]
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    rows = np.moveaxis(x, axis, -1)
    y = r.integers(-1, rows.shape[-1], rows.shape[:-1])
    losses, gradient = mf.cross_entropy_and_grad(x, y, axis=axis, ignore_index=-1, reduction="none")
    want, want_gradient = reference.cross_entropy(rows, y, ignore_index=-1)
    cases.assert_ulps(losses, want, dtype, cases.ULP + 5)
    cases.assert_ulps(np.moveaxis(gradient, axis, -1), want_gradient, dtype, cases.ULP + 6 + 0.5 * reference.gap(rows))


@pytest.mark.parametrize("shape", [(1, 10), (10,), (4, 3, 5), (500, 100), (3, 30_000), (0, 4)])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_plain_arguments_take_a_shorter_way_to_the_same_bits(shape, dtype, reduction, ignore_index):
    r = np.random.default_rng(0)
    x = (4 * r.standard_normal(shape)).astype(dtype)
    for integer in (np.int64, np.int32):
        y = r.integers(0, shape[-1], shape[:-1], dtype=integer)
        for gradient in (False, True):
            assert plain_cross_entropy(x, y, ignore_index, reduction, None, gradient, None) is not None
        options = {"ignore_index": ignore_index, "reduction": reduction}
        loss, gradient = mf.cross_entropy_and_grad(x, y, **options)
        alone = mf.cross_entropy(x, y, **options)
        # Not plain: the axis is given.
        want, want_gradient = mf.cross_entropy_and_grad(x, y, axis=x.ndim - 1, **options)
        assert type(loss) is type(alone) is type(want) is dtype
        assert gradient.dtype == dtype
        np.testing.assert_array_equal([loss, alone], [want, want])
        np.testing.assert_array_equal(gradient, want_gradient)

        want, want_gradient = mf.cross_entropy_and_grad(x, y, axis=x.ndim - 1, denominator=7.0, **options)
        assert mf.cross_entropy(x, y, denominator=7.0, **options) == want
        out, in_place = np.empty_like(x), x.copy()
        for logits, written in ((x, out), (in_place, in_place)):
            loss, returned = mf.cross_entropy_and_grad(logits, y, denominator=7.0, out=written, **options)
            assert returned is written
            assert loss == want
            np.testing.assert_array_equal(written, want_gradient)
        assert plain_cross_entropy(x, y, ignore_index, reduction, 7.0, True, out) is not None


def test_what_is_not_plain_is_looked_at_closely():
    x, y = np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0])
    read_only = x.copy()
    read_only.flags.writeable = False
    assert plain_cross_entropy(read_only, y, -100, "mean", None, True, None) is not None
    long = np.zeros((5, 3), np.float32)
    for denominator, out in [
        (0.0, None),
        (-1.0, None),
        (nan, None),
        (2, None),
        (np.float64(2), None),
        (None, read_only),
        (None, x.astype(np.float64)),
        (None, np.asfortranarray(x)),
        (None, long),
        (None, x.tolist()),
    ]:
        assert plain_cross_entropy(x, y, -100, "mean", denominator, True, out) is None
    assert plain_cross_entropy(long[:4], y, -100, "mean", None, True, long[1:]) is None  # overlaps in part
    for logits, target, ignore_index, reduction in [
        (x.tolist(), y, -100, "mean"),
        (x, y.tolist(), -100, "mean"),
        (x.astype(np.float16), y, -100, "mean"),
        (x.astype(">f4"), y, -100, "mean"),
        (x.view(np.recarray), y, -100, "mean"),
        (np.asfortranarray(x), y, -100, "mean"),
        (x[:, ::-1], y, -100, "mean"),
        (np.frombuffer(bytes(49), np.uint8)[1:].view(np.float32).reshape(4, 3), y, -100, "mean"),
        (x[:, :0], y, -100, "mean"),
        (x[0, 0], y, -100, "mean"),
        (x, y.astype(np.uint8), -100, "mean"),
        (x, y.astype(">i8"), -100, "mean"),
        (x, y.astype(float), -100, "mean"),
        (x, np.repeat(y, 2)[::2], -100, "mean"),
        (x, y[:3], -100, "mean"),
        (x, y[:, None], -100, "mean"),
        (x, y + 1, -100, "mean"),
        (x, y, True, "mean"),
        (x, y, -100.0, "mean"),
        (x, y, 2**64, "mean"),
        (x, y, -100, "none"),
        (x, y, -100, "Mean"),
        (x, y, -100, None),
    ]:
        for gradient in (False, True):
            assert plain_cross_entropy(logits, target, ignore_index, reduction, None, gradient, None) is None


def test_negative_and_huge_upstream():
    x, y, _, _ = problem((30, 20), np.float32)
    _, gradient = mf.cross_entropy_and_grad(x, y)
    for factor in (-1.0, 0.0, 1e30, -1e-30, 1e-38):
        _, scaled = mf.cross_entropy_and_grad(x, y, upstream=factor)
        want = gradient.astype(np.float64) * factor
        np.testing.assert_allclose(scaled, want, rtol=1e-5, atol=2.0**-148)


def test_lists_and_scalars():
    assert mf.cross_entropy([0, 0], 1) == np.log(2.0)
    _, gradient = mf.cross_entropy_and_grad([[0, 0]], [1])
    assert gradient.dtype == np.float64
    np.testing.assert_array_equal(gradient, [[0.5, -0.5]])
    assert mf.cross_entropy([0.0, 0.0], 1, reduction="none").shape == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_place", [False, True])
def test_classes_first_from_memory(dtype, in_place):
    """Arrays of more than 4 MB go through a copy, a tile at a time: the numbers are those of smaller ones."""
    classes, rows, width = 21, 60_013, 512
    random = np.random.default_rng(0)
    x = random.standard_normal((classes, rows)).astype(dtype)
    x[:, 100], x[3, 200], x[5, 300] = -np.inf, np.nan, np.inf
    y = random.integers(0, classes, rows)
    y[::97] = -100
    options = {"axis": 0, "reduction": "none"}
    pieces = [
        mf.cross_entropy_and_grad(np.ascontiguousarray(x[:, at : at + width]), y[at : at + width], **options)
        for at in range(0, rows, width)
    ]
    values = mf.cross_entropy(x, y, **options)
    losses, gradient = mf.cross_entropy_and_grad(x, y, out=x if in_place else None, **options)
    np.testing.assert_array_equal(losses, np.concatenate([loss for loss, _ in pieces]))
    np.testing.assert_array_equal(values, losses)
    np.testing.assert_array_equal(gradient, np.concatenate([part for _, part in pieces], axis=1))
