"""The functions for arrays on a device, on the emulator: options, reductions, axes, outputs, what is refused."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest
import reference
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast
from cuda_tests.kernel_cases import BFLOAT16, DTYPES, name_of, needs_emulator

pytestmark = needs_emulator
inf, nan = np.inf, np.nan
SHAPES = [(1, 1), (70, 10), (40, 100), (3, 2000)]


@pytest.fixture(scope="module")
def device():
    return EmulatedDevice()


@pytest.fixture(scope="module")
def emulated(device):
    return EmulatedMlefast(device)


def problem(shape, dtype, seed=0):
    r = np.random.default_rng(seed)
    x = cases.rows("ordinary", *shape, np.float32, seed).astype(dtype)
    y = cases.targets(x.astype(np.float64), seed)
    y[r.random(shape[0]) < 0.3] = -100
    y[0] = 0
    value = np.float64 if x.dtype.itemsize == 8 else np.float32
    return x, y, r.uniform(0.5, 2, shape[1]).astype(value), r.standard_normal(shape[0]).astype(value)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions(emulated, shape, dtype, weighted, reduction):
    x, y, w, u = problem(shape, dtype)
    weight = w if weighted else None
    for denominator in (None,) if reduction == "none" else (None, 7.5):
        upstream = u if reduction == "none" else -2.5
        options = {"weight": weight, "reduction": reduction, "denominator": denominator}
        loss, gradient = emulated.cross_entropy_and_grad(x, y, upstream=upstream, **options)
        np.testing.assert_array_equal(loss, emulated.cross_entropy(x, y, **options))
        want, want_gradient = reference.cross_entropy(x.astype(np.float64), y, weight=weight, upstream=upstream)
        divisor = reference.LONG(denominator or 1)
        if denominator is None and reduction == "mean":
            divisor = reference.mean_weight(y, weight=weight)
        if reduction != "none":
            want = want.sum() / divisor
        value = np.float64 if x.dtype.itemsize == 8 else np.float32
        slack = 3 + 40 * (reduction == "none")
        cases.assert_ulps(loss, want, value, cases.ULP + slack)
        want_gradient = want_gradient / divisor
        if x.dtype.itemsize > 2:
            allowed = cases.ULP + 3 + cases.ULP_PER_GAP * reference.gap(x) + 40 * (x == x.max(-1, keepdims=True))
            cases.assert_ulps(gradient, want_gradient, dtype, allowed)
        else:
            got = gradient.astype(np.float64)
            np.testing.assert_allclose(got, want_gradient.astype(np.float64), rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("rows", [16385, 40000])
def test_sums_of_many_rows(emulated, device, rows):
    """More partial sums than one block adds up; the CPU's sum is of the same float64 terms."""
    x, y, w, _ = problem((rows, 3), np.float32)
    for weight in (None, w):
        loss, gradient = emulated.cross_entropy_and_grad(x, y, weight=weight)
        want, want_gradient = mf.cross_entropy_and_grad(x, y, weight=weight)
        assert loss == pytest.approx(float(want), rel=1e-6)
        np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-12)
    apart = np.zeros((rows, 40), np.float32)[:, :33]  # a partial sum for every four rows
    assert emulated.cross_entropy(apart, np.zeros(rows, np.int8)) == pytest.approx(np.log(33), rel=1e-6)


@pytest.mark.parametrize("integer", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_every_integer_dtype(emulated, integer):
    x, y, _, _ = problem((50, 10), np.float32)
    y[y == -100] = 3
    want = emulated.cross_entropy_and_grad(x, y)
    for target in (y.astype(integer), np.repeat(y.astype(integer), 2)[::2]):
        loss, gradient = emulated.cross_entropy_and_grad(x, target)
        assert loss == want[0]
        np.testing.assert_array_equal(gradient, want[1])
    labels = y.astype(integer)
    labels[7] = np.iinfo(integer).max
    losses = emulated.cross_entropy(x, labels, reduction="none")
    assert np.isnan(losses[7])
    assert np.isfinite(np.delete(losses, 7)).all()


def test_ignore_index_may_be_a_class_and_is_compared_before_the_range(emulated):
    x, y, _, _ = problem((50, 10), np.float32)
    y[y == -100] = 3
    for ignore_index in (3, 250, -(2**63), 2**63 - 1):
        labels = np.where(y == 3, ignore_index, y)
        loss, gradient = emulated.cross_entropy_and_grad(x, labels, ignore_index=ignore_index)
        want, want_gradient = mf.cross_entropy_and_grad(x, labels, ignore_index=ignore_index)
        assert loss == pytest.approx(float(want), rel=1e-6)
        np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("y", [[-100, -100], []])
def test_no_row_counts(emulated, y):
    x = np.full((len(y), 3), nan)
    assert np.isnan(emulated.cross_entropy(x, y))
    assert emulated.cross_entropy(x, y, reduction="sum") == 0
    assert emulated.cross_entropy(x, y, denominator=5) == 0
    for options in ({}, {"reduction": "sum"}, {"denominator": 2.0}, {"reduction": "none"}):
        _, gradient = emulated.cross_entropy_and_grad(x, y, **options)
        assert gradient.shape == x.shape
        assert (gradient == 0).all()


def test_a_wrong_label_spoils_its_row_and_the_sum_alone(emulated):
    x, y, w, _ = problem((50, 10), np.float32)
    y[7] = 10
    for weight in (None, w):
        loss, gradient = emulated.cross_entropy_and_grad(x, y, weight=weight)
        assert np.isnan(loss)
        assert np.isnan(gradient[7]).all()
        others = np.arange(50) != 7
        _, want = mf.cross_entropy_and_grad(x[others], y[others], weight=weight)
        np.testing.assert_allclose(gradient[others], want, rtol=1e-4, atol=1e-10)


def test_wrong_labels_are_raised_if_asked_for(emulated, monkeypatch):
    monkeypatch.setenv("MLEFAST_CUDA_CHECK", "1")
    x, y, _, _ = problem((40, 10), np.float32)
    emulated.cross_entropy(x, y)
    y[[13, 20]] = 77
    out = np.full_like(x, 123)
    for reduction in ("mean", "none"):
        with pytest.raises(IndexError, match=r"^target\[13\]: received 77; accepted: 0 to 9, or the ignore_index -100"):
            emulated.cross_entropy_and_grad(x, y, reduction=reduction, out=out)
        assert (out == 123).all()


@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 33, 3, 7), (7, 2), (5,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=name_of)
def test_any_axis_and_strides(emulated, shape, dtype):
    r = np.random.default_rng(0)
    for axis in range(len(shape)):
        x = (3 * r.standard_normal(shape)).astype(dtype)
        for laid in (x, np.asfortranarray(x), np.repeat(x, 2, axis=-1)[..., ::2], np.repeat(x, 2, axis=0)[::2]):
            want = mf.softmax(x.astype(np.float64), axis)
            tolerance = {"rtol": 3e-3, "atol": 1e-6} if dtype == np.float16 else {"rtol": 1e-5, "atol": 0}
            np.testing.assert_allclose(emulated.softmax(laid, axis).astype(np.float64), want, **tolerance)
            out = np.empty(shape, dtype)
            assert emulated.softmax(laid, axis, out=out) is out
            np.testing.assert_allclose(out.astype(np.float64), want, **tolerance)
            rows = shape[:axis] + shape[axis + 1 :]
            y = r.integers(0, shape[axis], rows)
            loss, gradient = emulated.cross_entropy_and_grad(laid, y, axis=axis, reduction="none")
            want_loss, want_gradient = mf.cross_entropy_and_grad(x.astype(np.float64), y, axis=axis, reduction="none")
            np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
            np.testing.assert_allclose(gradient.astype(np.float64), want_gradient, **tolerance)
            np.testing.assert_allclose(
                emulated.logsumexp(laid, axis, keepdims=True),
                mf.logsumexp(x.astype(np.float64), axis, keepdims=True),
                rtol=1e-5,
            )


@pytest.mark.parametrize("axis", [None, (0, 2), (1, 0), ()])
def test_several_axes(emulated, axis):
    x = np.random.default_rng(0).standard_normal((3, 4, 5))
    np.testing.assert_allclose(emulated.softmax(x, axis), mf.softmax(x, axis), rtol=1e-13)
    np.testing.assert_allclose(emulated.log_softmax(x, axis), mf.log_softmax(x, axis), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(emulated.logsumexp(x, axis), mf.logsumexp(x, axis), rtol=1e-13)
    out = x.copy()
    assert emulated.softmax(out, axis, out=out) is out
    np.testing.assert_allclose(out, mf.softmax(x, axis), rtol=1e-13)


def test_integers_lists_and_scalars(emulated):
    assert emulated.cross_entropy([0, 0], 1) == np.log(2.0)
    loss, gradient = emulated.cross_entropy_and_grad(np.zeros((1, 2), np.int32), [1])
    assert loss.dtype == gradient.dtype == np.float64
    np.testing.assert_array_equal(gradient, [[0.5, -0.5]])
    assert emulated.cross_entropy([0.0, 0.0], 1, reduction="none").shape == ()


def test_upstream_on_the_device_may_be_a_scalar(emulated):
    x, y, _, _ = problem((30, 20), np.float32)
    for reduction in ("mean", "sum"):
        _, want = emulated.cross_entropy_and_grad(x, y, reduction=reduction, upstream=-1.5)
        _, got = emulated.cross_entropy_and_grad(x, y, reduction=reduction, upstream=np.array(-1.5, np.float32))
        np.testing.assert_allclose(got, want, rtol=3e-7)


def test_read_only_broadcast_and_misaligned_input(emulated):
    x, y, _, _ = problem((8, 50), np.float32)
    row = np.broadcast_to(x[:1], (8, 50))
    np.testing.assert_allclose(emulated.cross_entropy(row, y), mf.cross_entropy(row, y), rtol=1e-6)
    np.testing.assert_allclose(
        emulated.softmax(x[:, 1:]).astype(np.float64), mf.softmax(x[:, 1:].astype(np.float64)), rtol=1e-5
    )
    np.testing.assert_allclose(emulated.softmax(x[::-1]), mf.softmax(x[::-1]), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": np.zeros(2)}, TypeError, "target: received an array of dtype float64"),
        ({"target": [True, False]}, TypeError, "target: received an array of dtype bool"),
        ({"target": [0, 1, 2]}, ValueError, r"target: received shape \(3,\); accepted: \(2,\)"),
        ({"axis": 5}, ValueError, "axis: received 5"),
        ({"axis": None}, TypeError, "axis: received None"),
        ({"weight": [1.0, 2.0]}, ValueError, r"weight: received shape \(2,\); accepted: \(3,\)"),
        ({"weight": ["a", "b", "c"]}, TypeError, "weight: received"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index: received 1.5"),
        ({"reduction": "average"}, ValueError, "reduction: received 'average'"),
        ({"denominator": 0}, ValueError, "denominator: received 0.0; accepted: a number > 0"),
        ({"denominator": 2, "reduction": "none"}, ValueError, "denominator: received with reduction='none'"),
        ({"upstream": [1.0, 2.0]}, ValueError, r"upstream: received shape \(2,\); accepted: a scalar"),
        ({"upstream": "x"}, TypeError, "upstream: received"),
        ({"out": np.empty((2, 3), np.float32)}, ValueError, "out: received an array of dtype float32"),
        ({"out": np.empty((3, 2)).T}, ValueError, "out: received strides"),
        ({"out": [[0.0] * 3] * 2}, TypeError, "out: received"),
        ({"logits": np.zeros((2, 3), bool)}, TypeError, "logits: received an array of dtype bool"),
        ({"logits": np.zeros((2, 3), complex)}, TypeError, "logits: received an array of dtype complex"),
        ({"logits": np.zeros((2, 0))}, ValueError, "logits: received shape"),
        ({"logits": np.float64(1.0)}, ValueError, "logits: received a scalar"),
    ],
)
def test_refused(emulated, arguments, error, message):
    given = {"logits": np.zeros((2, 3)), "target": [0, 1], **arguments}
    with pytest.raises(error, match="^" + message):
        emulated.cross_entropy_and_grad(given.pop("logits"), given.pop("target"), **given)


def test_an_output_that_overlaps_in_part_is_refused(emulated):
    memory = np.zeros(100)
    with pytest.raises(ValueError, match="^out: received an array that overlaps x in part"):
        emulated.softmax(memory[:60].reshape(3, 20), out=memory[20:80].reshape(3, 20))


@pytest.mark.parametrize("dtype", [np.int64, np.float32, BFLOAT16], ids=name_of)
def test_information_gain(emulated, monkeypatch, dtype):
    counts = np.random.default_rng(0).integers(0, 9, (6, 3, 5)).astype(dtype)
    counts[2], counts[3] = 0, np.outer([1, 2, 3], [1, 2, 0, 1, 2])
    want = mf.information_gain(counts)
    counts[4, 1, 2] = -1
    monkeypatch.delenv("MLEFAST_CUDA_CHECK", raising=False)
    got = emulated.information_gain(counts)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got[[0, 1, 2, 3, 5]], want[[0, 1, 2, 3, 5]])
    assert got[3] == 0
    assert np.isnan(got[[2, 4]]).all()
    assert np.isnan(emulated.information_gain(np.zeros((2, 0, 3), dtype))).all()
    assert emulated.information_gain(counts[0]).shape == ()
    monkeypatch.setenv("MLEFAST_CUDA_CHECK", "1")
    with pytest.raises(ValueError, match=r"^counts: received -1\.0; accepted: numbers >= 0"):
        emulated.information_gain(counts)
    with pytest.raises(ValueError, match=r"^counts: received shape \(3,\)"):
        emulated.information_gain(counts[0, :, 0])
    with pytest.raises(TypeError, match=r"^counts: received an array of dtype bool"):
        emulated.information_gain(counts > 0)


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16], ids=name_of)
def test_a_hundred_thousand_equal_16_bit_logits(emulated, dtype):
    x = np.zeros((1, 100_000), dtype)
    assert emulated.logsumexp(x)[0] == np.float32(np.log(100_000))
    assert emulated.logsumexp(x).dtype == np.float32


def test_gradient_is_the_derivative(emulated):
    x, y, w, _ = problem((5, 7), np.float64)
    _, gradient = emulated.cross_entropy_and_grad(x, y, weight=w)
    step = 1e-6
    for i, j in np.ndindex(5, 7):
        ahead, behind = x.copy(), x.copy()
        ahead[i, j] += step
        behind[i, j] -= step
        slope = (emulated.cross_entropy(ahead, y, weight=w) - emulated.cross_entropy(behind, y, weight=w)) / (2 * step)
        assert abs(gradient[i, j] - slope) <= 1e-8 + 1e-6 * abs(slope), (i, j)
