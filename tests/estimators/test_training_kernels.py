"""The kernels of a training step through the compiled module: their promised accuracy, memory, refused arrays."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from mlefast import _core
from mlefast.estimators.activations import ACTIVATIONS

DTYPES = [np.float32, np.float64]


def activate(name, z):
    """Values and slopes of an activation, without intercepts."""
    values = np.array(z).reshape(1, -1)
    slope = np.empty_like(values)
    _core.activate(ACTIVATIONS[name], values, np.zeros(values.size, values.dtype), slope, None, 0.0)
    return values[0], slope[0]


def tanh_in_float64(z):
    e = np.exp(-2 * np.abs(z))
    slope = 4 * e / (1 + e) ** 2
    return np.tanh(z), slope, slope


def gelu_in_float64(z):
    with np.errstate(invalid="ignore"):
        swing = np.where(np.isinf(z), 0, z * np.exp(-0.5 * z * z)) / np.sqrt(2 * np.pi)
        value = np.where(z == -np.inf, 0, z * scipy.special.ndtr(z))
    slope = scipy.special.ndtr(z) + swing
    return value, slope, np.maximum(scipy.special.ndtr(z), np.abs(swing))


IN_FLOAT64 = {"tanh": tanh_in_float64, "gelu": gelu_in_float64}
PROMISED = {"tanh": (2, 4), "gelu": (7, 7)}  # ULP of value and slope: src/cpp/training_math.hpp


def largest_errors(name, z):
    """In ULP, of float32 arguments; half a denormal number is forgiven."""
    with np.errstate(all="ignore"):
        value, slope, scale = IN_FLOAT64[name](z.astype(np.float64))
    got = [array.astype(np.float64) for array in activate(name, z)]
    errors = []
    for array, want, size in zip(got, (value, slope), (value, scale), strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            unit = np.maximum(np.spacing(np.abs(size).astype(np.float32)).astype(np.float64), 2.0**-149)
            error = np.where(array == want, 0, np.maximum(np.abs(array - want) - 2.0**-150, 0) / unit)
        errors.append(float(error.max()))
    return errors


@pytest.mark.parametrize("name", IN_FLOAT64)
def test_float32_keeps_its_promise(isa, name):
    bits = np.arange(0, 0x7F800001, 1009, dtype=np.uint32)  # every thousandth: SciPy takes minutes for all
    for sign in (0, 0x80000000):
        value, slope = largest_errors(name, (bits | np.uint32(sign)).view(np.float32))
        assert value <= PROMISED[name][0]
        assert slope <= PROMISED[name][1]


def exactly(mpmath, name, z):
    """Value, slope and the slope's scale in 40 digits."""
    z = mpmath.mpf(float(z))
    if name == "tanh":
        slope = 1 / mpmath.cosh(z) ** 2
        return mpmath.tanh(z), slope, slope
    swing = z * mpmath.npdf(z)
    below = mpmath.erfc(-z / mpmath.sqrt(2)) / 2
    return z * below, below + swing, max(below, abs(swing))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", IN_FLOAT64)
def test_promise_against_many_digits(isa, name, dtype):
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed: CI has it")
    random = np.random.default_rng(0)
    last = 13.3 if dtype == np.float32 else 38.6
    z = np.concatenate(
        [random.uniform(-last, last, 600), random.standard_normal(400), random.uniform(-1, 1, 200) * 1e-3,
         [-13, -12.9, -0.7517915246935645, -0.7, 0.7, np.nextafter(0.7, 0), -37.5, -38, -38.4]]
    ).astype(dtype)  # fmt: skip
    with mpmath.workdps(40):
        for x, value, slope in zip(z, *activate(name, z), strict=True):
            want, want_slope, scale = exactly(mpmath, name, x)
            promises = zip((value, slope), (want, want_slope), (want, scale), PROMISED[name], strict=True)
            for got, exact, size, promised in promises:
                unit = max(float(np.spacing(dtype(abs(size)))), float(np.finfo(dtype).smallest_subnormal))
                allowed = promised * unit + 0.5 * float(np.finfo(dtype).smallest_subnormal)
                assert abs(mpmath.mpf(float(got)) - exact) <= allowed, (x, got, exact)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails_of_gelu_have_digits(isa, dtype):
    """Where exp(-z^2/2) of a rounded square would lose all but a few of them."""
    z = np.array([-12.7, -12.83] if dtype == np.float32 else [-12.7, -30.3, -37.4], dtype)
    mpmath = pytest.importorskip("mpmath", reason="mpmath is not installed: CI has it")
    with mpmath.workdps(40):
        for x, value in zip(z, activate("gelu", z)[0], strict=True):
            exact = exactly(mpmath, "gelu", x)[0]
            assert abs(float(value) / exact - 1) < 7 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_limits(isa, name, dtype):
    values, slope = activate(name, np.array([np.inf, -np.inf, np.nan, 0.0], dtype))
    want = {
        "identity": ([np.inf, -np.inf, 0], [1, 1, 1]),
        "relu": ([np.inf, 0, 0], [1, 0, 0]),
        "tanh": ([1, -1, 0], [0, 0, 1]),
        "gelu": ([np.inf, 0, 0], [1, 0, 0.5]),
    }[name]
    assert np.isnan(values[2])
    np.testing.assert_array_equal(values[[0, 1, 3]], want[0])
    np.testing.assert_array_equal(slope[[0, 1, 3]], want[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_intercepts_and_dropout(isa, name, dtype):
    random = np.random.default_rng(0)
    z, bias = random.standard_normal((9, 37)).astype(dtype), random.standard_normal(37).astype(dtype)
    uniform = random.random((9, 37), dtype)
    uniform[0, :5] = [0.3, 0.0, 0.29999, 0.30001, 0.9]
    value, derivative = activate(name, (z + bias).ravel())
    factor = np.where(uniform >= dtype(0.3), dtype(1 / 0.7), 0)
    slope = np.empty_like(z)
    _core.activate(ACTIVATIONS[name], z, bias, slope, uniform, 0.3)
    np.testing.assert_array_equal(z, value.reshape(9, 37) * factor)
    np.testing.assert_array_equal(slope, derivative.reshape(9, 37) * factor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 7, 8, 10, 70, 257])
def test_error_flows_back(isa, dtype, columns):
    random = np.random.default_rng(0)
    error, slope = (random.standard_normal((300, columns)).astype(dtype) for _ in range(2))
    before, sums = error.copy(), np.empty(columns, dtype)
    _core.backpropagate(error, slope, sums)
    np.testing.assert_array_equal(error, before * slope)
    np.testing.assert_allclose(sums, (before * slope).astype(np.longdouble).sum(0), rtol=np.finfo(dtype).eps)
    _core.backpropagate(before, None, sums)
    np.testing.assert_allclose(sums, before.astype(np.longdouble).sum(0), rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_error_of_sums_does_not_grow_with_the_rows(dtype):
    error = np.full((200_000, 3), 0.1, dtype)
    sums = np.empty(3, dtype)
    _core.backpropagate(error, None, sums)
    np.testing.assert_allclose(sums, 200_000 * error[0].astype(np.longdouble), rtol=np.finfo(dtype).eps)


def test_threads_do_not_change_a_bit(threads):
    random = np.random.default_rng(0)
    z, bias = random.standard_normal((2000, 700), np.float32), random.standard_normal(700, np.float32)
    results = []
    for n in (1, 2, 4):
        threads(n)
        values, slope, sums = z.copy(), np.empty_like(z), np.empty_like(bias)
        _core.activate(ACTIVATIONS["gelu"], values, bias, slope, None, 0.0)
        error = z.copy()
        _core.backpropagate(error, slope, sums)
        results.append([array.tobytes() for array in (values, slope, error, sums)])
    assert results[0] == results[1] == results[2]


def good():
    """Arguments of every kernel."""
    vector, matrix = np.ones(4, np.float32), np.ones((3, 4), np.float32)
    return {
        "activate": [1, matrix, vector.copy(), matrix.copy(), matrix.copy(), 0.5],
        "backpropagate": [matrix.copy(), matrix.copy(), vector.copy()],
        "sgd_step": [*(vector.copy() for _ in range(3)), 4, 0.1, 0.9, True, 0.1, 0.1],
        "adamw_step": [*(vector.copy() for _ in range(4)), 4, 0.1, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.1, 1],
        "take_rows": [matrix.copy(), np.array([0, 2]), np.empty((2, 4), np.float32)],
    }


@pytest.mark.parametrize("kernel", good())
def test_arrays_that_do_not_fit_are_refused(kernel):
    call = getattr(_core, kernel)
    call(*good()[kernel])
    for i, argument in enumerate(good()[kernel]):
        if not isinstance(argument, np.ndarray):
            continue
        wide = np.ones((*argument.shape[:-1], 2 * argument.shape[-1]), argument.dtype)
        for wrong in (argument[..., :-1].copy(), argument.astype(np.complex64), wide[..., ::2], argument[:0]):
            arguments = good()[kernel]
            arguments[i] = wrong
            with pytest.raises((ValueError, TypeError, IndexError)):
                call(*arguments)


@pytest.mark.parametrize(
    ("kernel", "place", "wrong", "message"),
    [
        ("activate", 0, 4, "ACTIVATIONS"),
        ("activate", 0, -1, "ACTIVATIONS"),
        ("activate", 1, np.ones(4, np.float32), "matrix"),
        ("activate", 2, np.ones(4), "bias: received float64 of 4 elements; accepted: contiguous float32 of 4"),
        ("activate", 5, 1.0, "rate"),
        ("backpropagate", 2, np.ones(3, np.float32), "bias_gradient: received float32 of 3"),
        ("sgd_step", 2, np.ones(4), "velocity: received float64"),
        ("sgd_step", 3, 5, "n_weights"),
        ("sgd_step", 5, 1.0, "momentum"),
        ("adamw_step", 3, np.ones(8, np.float32)[::2], "square: received float32 of 4 elements, not contiguous"),
        ("adamw_step", 4, -1, "n_weights"),
        ("adamw_step", 6, 1.0, "beta_1"),
        ("adamw_step", 12, 0, "step"),
        ("take_rows", 1, np.array([0, 2], np.int32), "index"),
        ("take_rows", 2, np.empty((2, 4)), "out"),
    ],
)
def test_messages(kernel, place, wrong, message):
    arguments = good()[kernel]
    arguments[place] = wrong
    with pytest.raises(ValueError, match=message):
        getattr(_core, kernel)(*arguments)


@pytest.mark.parametrize(
    ("kernel", "place"), [("activate", 1), ("backpropagate", 0), ("sgd_step", 0), ("take_rows", 2)]
)
def test_read_only_arrays_are_refused(kernel, place):
    arguments = good()[kernel]
    arguments[place].flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        getattr(_core, kernel)(*arguments)


def test_rows_that_are_not_there():
    x, out = np.arange(12.0).reshape(6, 2), np.zeros((3, 2))
    _core.take_rows(x, np.array([5, 0, 5]), out)
    np.testing.assert_array_equal(out, x[[5, 0, 5]])
    for index, name in (([0, 6, 1], "6 at position 1"), ([0, 1, -1], "-1 at position 2")):
        with pytest.raises(IndexError, match=name):
            _core.take_rows(x, np.array(index), out)
    np.testing.assert_array_equal(out, x[[5, 0, 5]])
