"""softmax, log_softmax and logsumexp: axes, outputs, edge rows, what is refused."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest
import reference
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

FUNCTIONS = [mf.softmax, mf.log_softmax, mf.logsumexp]
SCIPY = {
    mf.softmax: scipy.special.softmax,
    mf.log_softmax: scipy.special.log_softmax,
    mf.logsumexp: scipy.special.logsumexp,
}
inf, nan = np.inf, np.nan


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("axis", [-1, 0, 1, 2, -3, (0, 1), (2, 0), (1, 2), (0, 1, 2), None])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_axes_as_in_scipy(function, axis, dtype):
    x = cases.rows("ordinary", 5 * 7, 3, dtype).reshape(5, 7, 3)
    want = SCIPY[function](x.astype(np.float64), axis=axis)
    eps = np.finfo(dtype).eps  # an absolute one too: SciPy's own log_softmax loses a confident winner's digits
    np.testing.assert_allclose(function(x, axis), want, rtol=20 * eps, atol=0 if function is mf.softmax else 4 * eps)


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None])
def test_keepdims(axis):
    x = cases.rows("ordinary", 12, 5, np.float64).reshape(3, 4, 5)
    want = scipy.special.logsumexp(x, axis=axis, keepdims=True)
    got = mf.logsumexp(x, axis, keepdims=True)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-14)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_scalar_results_are_numpy_scalars(dtype):
    got = mf.logsumexp(np.zeros(4, dtype))
    assert type(got) is dtype
    assert got == dtype(np.log(dtype(4)))


# What is plain (contiguous, classes last, no options) is answered by the compiled module, without Python's checks.
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", [(7,), (1, 10), (4, 3, 5), (0, 5), (300, 100), (2, 1)])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_plain_calls_answer_as_any_others(function, shape, dtype):
    x = cases.rows("ordinary", int(np.prod(shape[:-1])), shape[-1], dtype).reshape(shape)
    got, general = function(x), function(x, (len(shape) - 1,))
    assert type(got) is type(general)
    assert got.dtype == general.dtype
    np.testing.assert_array_equal(got, general)
    if function is not mf.logsumexp:
        out, same = np.full_like(x, 7), x.copy()
        assert function(x, out=out) is out
        assert function(same, out=same) is same
        np.testing.assert_array_equal(out, general)
        np.testing.assert_array_equal(same, general)
        read_only = np.zeros_like(x)
        read_only.flags.writeable = False
        with pytest.raises(ValueError, match="out: "):
            function(x, out=read_only)


# Every way in which rows may lie in memory: the class axis last or not, steps, reversed, broadcast, Fortran order.
LAYOUTS = {
    "last": lambda x: (x, -1),
    "first": lambda x: (np.ascontiguousarray(x.T), 0),
    "transposed": lambda x: (np.asfortranarray(x), -1),
    "every other class": lambda x: (np.repeat(x, 2, -1)[:, ::2], -1),
    "every other row": lambda x: (np.repeat(x, 2, 0)[::2], -1),
    "both": lambda x: (np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3], -1),
    "reversed classes": lambda x: (np.ascontiguousarray(x[:, ::-1])[:, ::-1], -1),
    "reversed rows": lambda x: (np.ascontiguousarray(x[::-1])[::-1], -1),
    "offset by one": lambda x: (np.concatenate([[0], x.ravel()]).astype(x.dtype)[1:].reshape(x.shape), -1),
    "columns in steps": lambda x: (np.repeat(x.T, 2, 1)[:, ::2], 0),
    "one axis more": lambda x: (x.reshape(-1, 1, x.shape[1]), -1),
    "padded rows": lambda x: (np.pad(x, ((0, 0), (0, 7)))[:, :-7], -1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(67, 2), (67, 10), (70, 100), (5, 129), (6, 1000), (3, 2500)])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_layouts(isa, layout, shape, dtype):
    x = cases.rows("ordinary", *shape, dtype)
    laid, axis = LAYOUTS[layout](x)
    before = laid.copy()
    for function in FUNCTIONS:
        want = function(x)
        got = function(laid, axis)
        got = (
            got.reshape(want.shape)
            if layout == "one axis more"
            else np.moveaxis(got, axis, -1)
            if got.ndim == 2
            else got
        )
        allowed = 2 * (cases.ULP + cases.ULP_PER_GAP * (reference.gap(x) if got.ndim == 2 else 0))
        cases.assert_ulps(got, want.astype(reference.LONG), dtype, allowed)
    np.testing.assert_array_equal(laid, before)


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (2, 10, 8, 9), (2, 200, 3, 33), (1, 4, 1, 64), (3, 5, 2, 1)])
def test_images_with_classes_in_the_middle(isa, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    moved = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for function in (mf.softmax, mf.log_softmax):
        got = np.moveaxis(function(x, 1), 1, -1)
        cases.assert_ulps(got, function(moved).astype(reference.LONG), np.float32, 2 * (4 + 0.5 * reference.gap(moved)))
    cases.assert_ulps(mf.logsumexp(x, 1), mf.logsumexp(moved).astype(reference.LONG), np.float32, 8)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_shape_and_strides(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9))
    dtype = data.draw(st.sampled_from(cases.DTYPES))
    elements = st.floats(-50, 50, width=32) | st.just(-inf)
    x = data.draw(hnp.arrays(dtype, shape, elements=elements))
    x = x.transpose(data.draw(st.permutations(range(x.ndim))))
    x = x[tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1, -2]))) for _ in range(x.ndim))]
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    rows = np.moveaxis(x, axis, -1)
    got = np.moveaxis(mf.softmax(x, axis), axis, -1)
    allowed = cases.ULP + cases.ULP_PER_GAP * reference.gap(rows)
    cases.assert_ulps(got, reference.softmax(rows), dtype, allowed)
    assert mf.logsumexp(x, axis).shape == rows.shape[:-1]


EDGE_ROWS = [  # row, logsumexp, softmax
    ([-inf, -inf, -inf], -inf, [nan, nan, nan]),
    ([inf, 1.0, 2.0], inf, [nan, nan, nan]),
    ([inf, inf, -inf], inf, [nan, nan, nan]),
    ([nan, 1.0, 2.0], nan, [nan, nan, nan]),
    ([nan, inf, 2.0], nan, [nan, nan, nan]),
    ([nan, inf, inf], nan, [nan, nan, nan]),
    ([nan, -inf, -inf], nan, [nan, nan, nan]),
    ([nan, nan, nan], nan, [nan, nan, nan]),
    ([-inf, 3.0, -inf], 3.0, [0, 1, 0]),
    ([-inf, 3.0, 3.0], 3.0 + np.log(2), [0, 0.5, 0.5]),
]


@pytest.mark.parametrize(("row", "lse", "p"), EDGE_ROWS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("copies", [1, 5, 50, 400, 6000])  # the row's middle entry apart, its ends further away
@pytest.mark.parametrize("axis", [-1, 0])
def test_edge_rows_stay_in_their_row(isa, row, lse, p, dtype, copies, axis):
    special = np.array([row[0]] * copies + row[1:2] + [-inf] * (copies - 1) + row[2:], dtype)
    x = cases.rows("ordinary", 5, special.size, dtype)
    want_other = reference.softmax(x)[3], reference.logsumexp(x)[3]
    x[2] = special
    laid = np.ascontiguousarray(x.T) if axis == 0 else x
    got_p, got_log_p, got_lse = mf.softmax(laid, axis), mf.log_softmax(laid, axis), mf.logsumexp(laid, axis)
    if axis == 0:
        got_p, got_log_p = got_p.T, got_log_p.T
    np.testing.assert_allclose(got_lse[2], lse, rtol=1e-6)
    ends = [0, copies, -1]
    np.testing.assert_array_equal(got_p[2, ends], p)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(got_log_p[2, ends], np.log(p), rtol=1e-6)
    np.testing.assert_allclose(got_p[3], want_other[0].astype(np.float64), rtol=1e-5 if dtype == np.float32 else 1e-13)
    assert np.isfinite(got_lse[[0, 1, 3, 4]]).all()


def test_many_equal_logits():
    for dtype in cases.DTYPES:
        for n in (100_000, 1_000_000):
            x = np.full((2, n), 7, dtype)
            cases.assert_ulps(mf.softmax(x), np.full((2, n), reference.LONG(1) / n), dtype, 1)
            cases.assert_ulps(mf.logsumexp(x), 7 + np.log(np.full(2, n, reference.LONG)), dtype, 1)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("classes", [10, 17, 64, 80, 127, 128, 300, 680, 704, 1000, 5000])
def test_equal_logits_but_one(isa, dtype, axis, classes):
    """Sums of equal terms: each addition may be rounded to the same side as the one before."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(0, 5, (200, 1)).astype(dtype), classes, 1)
    x[:, 0] += rng.uniform(0.01, 0.1, 200).astype(dtype)
    got = np.moveaxis(mf.softmax(np.ascontiguousarray(np.moveaxis(x, 1, axis)), axis), axis, 1)
    cases.assert_ulps(got, reference.softmax(x), dtype, 4 + 0.5 * reference.gap(x))


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("classes", [10, 100, 2000])
def test_a_maximum_and_its_logarithm_are_added_with_one_rounding(isa, dtype, classes):
    """In units of the larger of the two; a logarithm that is rounded before would add up to 0.2."""
    x = cases.rows("masked", 3000, classes, dtype)
    want, m = reference.logsumexp(x), x.max(-1)
    larger = np.maximum(np.abs(want), np.maximum(np.abs(m), want - m))
    cases.assert_ulps(mf.logsumexp(x), want, dtype, 0.75 * larger / np.abs(want))


@pytest.mark.parametrize("function", [mf.softmax, mf.log_softmax])
def test_out(function):
    x = cases.rows("ordinary", 9, 40, np.float32)
    want = function(x)
    out = np.empty_like(x)
    assert function(x, out=out) is out
    np.testing.assert_array_equal(out, want)
    transposed = np.asfortranarray(x)
    assert function(transposed, out=out) is out  # another layout than the input's
    cases.assert_ulps(out, want.astype(reference.LONG), np.float32, 2 * (4 + 0.5 * reference.gap(x)))
    assert function(x, out=x) is x
    np.testing.assert_array_equal(x, want)
    cube = cases.rows("ordinary", 6, 4, np.float64).reshape(2, 3, 4)
    out = np.empty_like(cube)
    assert function(cube, (0, 2), out=out) is out
    np.testing.assert_array_equal(out, function(cube, (0, 2)))


def test_results_share_no_memory_with_the_input():
    x = cases.rows("ordinary", 3, 4, np.float64)
    x.flags.writeable = False
    for function in FUNCTIONS:
        assert not np.shares_memory(function(x), x)


REFUSED_OUT = {
    "dtype": (lambda x: np.empty(x.shape, np.float64), "float64"),
    "shape": (lambda x: np.empty((x.shape[0], x.shape[1] + 1), x.dtype), "shape"),
    "strides": (lambda x: np.empty((x.shape[0], 2 * x.shape[1]), x.dtype)[:, ::2], "C-contiguous"),
    "read-only": (lambda x: np.broadcast_to(np.ascontiguousarray(x), x.shape), "read-only|C-contiguous"),
    "overlap": (lambda x: x.base[1:].reshape(x.shape), "overlaps"),
}


@pytest.mark.parametrize("case", REFUSED_OUT)
def test_out_that_does_not_fit_is_refused_and_untouched(case):
    base = np.arange(13, dtype=np.float32)
    x = base[:-1].reshape(3, 4)
    make, message = REFUSED_OUT[case]
    out = make(x)
    if case == "read-only":
        out.flags.writeable = False
    before, base_before = out.copy(), base.copy()
    with pytest.raises(ValueError, match=f"^out: received.*({message})"):
        mf.softmax(x, out=out)
    np.testing.assert_array_equal(out, before)
    np.testing.assert_array_equal(base, base_before)


def test_out_must_be_an_array():
    with pytest.raises(TypeError, match="^out: received .*list"):
        mf.softmax(np.zeros(3), out=[0.0, 0.0, 0.0])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("x", "axis", "error", "message"),
    [
        (np.array([True, False]), -1, TypeError, "x: received an array of dtype bool"),
        (np.array([1 + 2j]), -1, TypeError, "x: received an array of dtype complex128"),
        (["a", "b"], -1, TypeError, "x: received an array of dtype <U1"),
        (np.array([None]), -1, TypeError, "x: received an array of dtype object"),
        (np.zeros((2, 0)), -1, ValueError, r"x: received shape \(2, 0\), empty along axis 1"),
        (np.zeros((0, 2)), (0, 1), ValueError, "empty along axis 0"),
        (np.float64(1.0), -1, ValueError, "x: received a scalar"),
        (np.zeros((2, 3)), 2, ValueError, "axis: received 2; accepted: -2 to 1"),
        (np.zeros((2, 3)), 1.0, TypeError, "axis: received 1.0"),
        (np.zeros((2, 3)), (0, -2), ValueError, r"axis: received \(0, -2\); accepted: each axis once"),
    ],
)
def test_refused(function, x, axis, error, message):
    with pytest.raises(error, match=message):
        function(x, axis)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_is_taken_as_float64(function):
    want = function(np.array([[1.0, 2.0], [3.0, 4.0]]))
    for x in ([[1, 2], [3, 4]], ((1.0, 2.0), (3.0, 4.0)), np.array([[1, 2], [3, 4]], np.uint8)):
        got = function(x)
        assert got.dtype == np.float64
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_other_byte_order_and_unaligned_memory(dtype):
    x = cases.rows("ordinary", 3, 5, dtype)
    swapped = x.astype(np.dtype(dtype).newbyteorder())
    unaligned = np.frombuffer(b"x" + x.tobytes(), np.uint8)[1:].view(dtype).reshape(x.shape)
    assert not unaligned.flags.aligned
    for function in FUNCTIONS:
        np.testing.assert_array_equal(function(swapped), function(x))
        np.testing.assert_array_equal(function(unaligned), function(x))


class OnlyDLPack:
    """An array of a library that knows nothing of NumPy's protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_subclasses_are_taken_as_arrays():
    x = cases.rows("ordinary", 3, 5, np.float32)
    x[0, 0] = -inf
    for kind in (np.asmatrix, np.ma.masked_invalid):
        for function in FUNCTIONS:
            for axis in (None, 0, (0, 1)):
                got = function(kind(x), axis)
                assert type(got) in (np.ndarray, np.float32)
                np.testing.assert_array_equal(got, function(x, axis))
        np.testing.assert_array_equal(mf.softmax(kind(x), temperature=2.0), mf.softmax(x, temperature=2.0))


def test_dlpack_alone():
    x = cases.rows("ordinary", 3, 5, np.float32)
    for function in FUNCTIONS:
        np.testing.assert_array_equal(function(OnlyDLPack(x)), function(x))
    y = cases.targets(x)
    assert mf.cross_entropy(OnlyDLPack(x), OnlyDLPack(y)) == mf.cross_entropy(x, y)
    weight = np.arange(5.0)
    assert mf.cross_entropy(x, y, weight=OnlyDLPack(weight)) == mf.cross_entropy(x, y, weight=weight)


def test_stride_of_an_axis_of_one():
    """It is never walked along, so it may be anything: that of a structure, for instance."""
    field = np.zeros(1, [("logits", "f2", (5,)), ("label", "u1")])["logits"]
    assert field.strides == (11, 2)
    field[...] = [[0, 1, 2, 3, 4]]
    for x in (field, field[..., :1]):
        for axis in (0, 1):
            for function in FUNCTIONS:
                np.testing.assert_array_equal(function(x, axis), function(x.copy(), axis))
            y = np.zeros(x.shape[1 - axis], np.int64)
            for smoothing in (0, 0.1):
                got, want = (
                    mf.cross_entropy(a, y, axis=axis, label_smoothing=smoothing, reduction="none")
                    for a in (x, x.copy())
                )
                np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [*cases.DTYPES, np.float16])
def test_no_axis(dtype):
    """The logarithm of each entry's exponential: the entry, in memory of its own and of the documented dtype."""
    x = np.array([[1, -inf], [3, 4]], dtype)
    y = mf.logsumexp(x, axis=())
    assert y.dtype == mf.logsumexp(x).dtype
    np.testing.assert_array_equal(y, x)
    assert not np.shares_memory(x, y)
    assert mf.logsumexp(x[1, 1], axis=None).dtype == y.dtype


@pytest.mark.parametrize("shape", [(0, 3), (3, 0, 4), (0,)])
def test_no_rows(shape):
    x = np.zeros(shape, np.float32)
    if shape == (0,):
        with pytest.raises(ValueError, match="empty"):
            mf.softmax(x)
        return
    assert mf.softmax(x).shape == shape
    assert mf.logsumexp(x).shape == shape[:-1]


def test_one_class():
    for dtype in cases.DTYPES:
        x = np.array([[-3.5], [1e30], [np.nan], [-inf]], dtype)
        np.testing.assert_array_equal(mf.softmax(x), [[1], [1], [nan], [nan]])
        np.testing.assert_array_equal(mf.log_softmax(x), [[0], [0], [nan], [nan]])
        np.testing.assert_array_equal(mf.logsumexp(x), x[:, 0])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("dtype", [*cases.DTYPES, np.float16])
def test_temperature(name, dtype):
    x = cases.rows("ordinary", 9, 30, dtype)
    function, want = getattr(mf, name), getattr(reference, name)
    wide = np.float64 if dtype == np.float64 else np.float32
    quotient = (x.astype(wide) / wide(2.5)).astype(wide)
    for axis in (-1, 0, None):
        moved = np.moveaxis(quotient, axis, -1) if axis is not None else quotient.reshape(1, -1)
        expected = want(moved).reshape(x.shape) if axis is None else np.moveaxis(want(moved), -1, axis)
        got = function(x, axis, temperature=2.5)
        assert got.dtype == dtype
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=30 * eps, atol=30 * eps)
    out = x.copy()
    assert function(out, temperature=2, out=out) is out
    np.testing.assert_array_equal(out, function(x, temperature=2.0))
    np.testing.assert_array_equal(function(x, temperature=1), function(x))
    for layout in (np.asfortranarray, lambda x: x[::-1, ::2], lambda x: x.T):
        np.testing.assert_array_equal(
            function(layout(x), temperature=2.5), function(np.ascontiguousarray(layout(x)), temperature=2.5)
        )
    with pytest.raises(ValueError, match="temperature: received 0"):
        function(x, temperature=0)
    with pytest.raises(TypeError, match="temperature: received"):
        function(x, temperature="hot")
