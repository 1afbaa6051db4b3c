"""Fits on a device: its operations against the host's kernels, estimators on arrays that NumPy cannot hold."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings

import device_arrays
import numpy as np
import pytest
import scipy.sparse
from cuda_emulator.emulator import COMPILER
from mlefast._backends import cupy as cuda_backend
from mlefast.estimators import MLPClassifier, SoftmaxClassifier, TemperatureCalibrator, machines
from mlefast.estimators.activations import ACTIVATIONS
from mlefast.estimators.machines import HOST, Device, machine_of

DTYPES = [np.float32, np.float64]
DEVICE = Device(np)


@pytest.fixture
def cupy(monkeypatch):
    """The stand-in for CuPy, in its place."""
    for name, module in device_arrays.MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda_backend, "FUNCTIONS", device_arrays.Losses())
    for cached in (machines.device_named, machines._special):
        cached.cache_clear()
    yield device_arrays.MODULES["cupy"]
    for cached in (machines.device_named, machines._special):
        cached.cache_clear()


@pytest.fixture
def same_dropout(monkeypatch):
    """The host draws the numbers of dropout as a device does."""
    monkeypatch.setattr(machines.Host, "uniform", lambda self, random, out: DEVICE.uniform(random, out))


# ---- single operations: a device's formulas are those of src/rules/training.h


def close(got, want, dtype, ulps=8):
    """To some units in the last place of the largest numbers that were added."""
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, want, rtol=ulps * eps, atol=ulps * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("slopes", [True, False])
def test_activations(dtype, name, rate, slopes):
    random = np.random.default_rng(0)
    z, bias = (3 * random.standard_normal(shape).astype(dtype) for shape in ((50, 37), 37))
    uniform = random.random(z.size, dtype) if rate else None
    results = []
    for machine in (HOST, DEVICE):
        values, slope = z.copy(), np.empty_like(z) if slopes else None
        machine.activate(ACTIVATIONS[name], values, bias, slope, uniform, rate)
        results.append((values, slope))
    (values, slope), (want, want_slope) = results[1], results[0]
    close(values, want, dtype)
    if slopes:
        close(slope, want_slope, dtype)
        assert ((slope == 0) == (want_slope == 0)).all()  # the same units are dropped


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_limits(dtype, name):
    z = np.array([[np.inf, -np.inf, 0, -0.0, 60, -60, 1e30, -1e30, np.nan]], dtype)
    results = []
    for machine in (HOST, DEVICE):
        values, slope = z.copy(), np.empty_like(z)
        machine.activate(ACTIVATIONS[name], values, np.zeros(z.size, dtype), slope, None, 0.0)
        results.append((values, slope))
    for got, want in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(got[:, :-1], want[:, :-1], rtol=1e-6, atol=1e-30)
    assert np.isnan(results[1][0][0, -1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_slope", [True, False])
def test_backpropagation(dtype, with_slope):
    random = np.random.default_rng(0)
    error, slope = (random.standard_normal((300, 37)).astype(dtype) for _ in range(2))
    results = []
    for machine in (HOST, DEVICE):
        own, sums = error.copy(), np.empty(37, dtype)
        machine.backpropagate(own, slope if with_slope else None, sums)
        results.append((own, sums))
    np.testing.assert_array_equal(results[1][0], results[0][0])
    close(results[1][1], results[0][1], dtype, 300)  # as many summands, of size 1


PENALTIES = [(0.0, 0.0), (0.3, 0.0), (0.0, 0.02), (0.3, 0.02)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("l2", "l1"), PENALTIES)
def test_steps_of_sgd(dtype, nesterov, l2, l1):
    random = np.random.default_rng(0)
    start = random.standard_normal(100).astype(dtype)
    own = [[start.copy(), np.zeros(100, dtype)] for _ in range(2)]
    for _ in range(5):
        gradient = random.standard_normal(100).astype(dtype)
        for machine, (parameters, velocity) in zip((HOST, DEVICE), own, strict=True):
            given = gradient.copy()
            machine.sgd_step(parameters, given, velocity, 70, 0.1, 0.8, nesterov, l2, l1)
            np.testing.assert_array_equal(given, gradient)
    for got, want in zip(own[1], own[0], strict=True):
        close(got, want, dtype)
    if l1:
        np.testing.assert_array_equal(own[1][0] == 0, own[0][0] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("l2", "l1"), PENALTIES)
def test_steps_of_adamw(dtype, decay, l2, l1):
    random = np.random.default_rng(0)
    parameters = random.standard_normal(100).astype(dtype)
    own = [[parameters.copy(), np.zeros(100, dtype), np.zeros(100, dtype)] for _ in range(2)]
    for step in range(1, 6):
        gradient = random.standard_normal(100).astype(dtype)
        for machine, (moved, mean, square) in zip((HOST, DEVICE), own, strict=True):
            given = gradient.copy()
            machine.adamw_step(moved, given, mean, square, 70, 0.05, 0.8, 0.95, 1e-3, decay, l2, l1, step)
            np.testing.assert_array_equal(given, gradient)
    for got, want in zip(own[1], own[0], strict=True):
        close(got, want, dtype)


@pytest.mark.parametrize("add", [False, True])
def test_products(add):
    random = np.random.default_rng(0)
    a, b = random.standard_normal((20, 30)), random.standard_normal((30, 1))
    for columns in (1, 2):
        for machine in (HOST, DEVICE):
            out = np.ones((20, columns))
            assert machine.product(a, b, out[:, -1:], add=add).base is out
            close(out[:, -1:], a @ b + add, np.float64, 64)
            assert (out[:, :-1] == 1).all()


def test_rows_and_sums():
    random = np.random.default_rng(0)
    x, index, weight = random.standard_normal((50, 7)), random.permutation(50)[:20], random.random(50)
    results = [np.empty((20, 7)) for _ in range(2)]
    for machine, out in zip((HOST, DEVICE), results, strict=True):
        machine.take_rows(x, index, out)
        np.testing.assert_array_equal(out, x[index])
    values = x[:, 0].astype(np.float32)
    for given in (None, weight):
        want = HOST.total(values, given)
        assert float(DEVICE.total(values, given)) == pytest.approx(want, rel=1e-14)
    assert DEVICE.total(values).dtype == DEVICE.number(values[:1].sum()).dtype == np.float64


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_dropout(dtype):
    """Uniform in every way that dropout could notice, other in each step, the same from the same generator."""
    random = np.random.default_rng(0)
    steps = np.empty((64, 4096), dtype)
    for step in steps:
        DEVICE.uniform(random, step)
    again = np.empty(4096, dtype)
    DEVICE.uniform(np.random.default_rng(0), again)
    np.testing.assert_array_equal(steps[0], again)
    assert steps.min() >= 0
    assert steps.max() < 1
    n = steps.size
    counts = np.histogram(steps, 64, (0, 1))[0]
    assert np.sum((counts - n / 64) ** 2) / (n / 64) < 63 + 5 * np.sqrt(2 * 63)  # chi-squared, 5 sigma
    for a, b in ((steps[:, 1:], steps[:, :-1]), (steps[1:], steps[:-1])):  # neighbours, and steps
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(n)


# ---- estimators

LINEAR = {
    "lbfgs": {"solver": "lbfgs", "tol": 1e-6},
    "lbfgs, l1": {"solver": "lbfgs", "penalty": "elasticnet", "C": 0.5, "tol": 1e-6},
    "newton-cg": {"solver": "newton-cg", "tol": 1e-6},
    "sgd": {"solver": "sgd", "max_iter": 5, "tol": 0},
    "sgd, l1": {"solver": "sgd", "penalty": "elasticnet", "C": 0.5, "max_iter": 5, "tol": 0},
    "adamw": {"solver": "adamw", "max_iter": 5, "tol": 0, "learning_rate_init": 0.01},
    "early stopping": {"solver": "sgd", "max_iter": 5, "tol": 0, "early_stopping": True},
    "unshuffled start": {"solver": "sgd", "max_iter": 3, "tol": 0, "fit_intercept": False, "batch_size": 7},
}
DEEP = {
    **{name: {"activation": name} for name in ACTIVATIONS},
    **{f"{name}, dropout": {"activation": name, "dropout": 0.5} for name in ACTIVATIONS},
    "sgd": {"solver": "sgd", "alpha": 0.1},
    "early stopping": {"early_stopping": True, "dropout": 0.5},
    "as it comes": {"shuffle": False, "learning_rate": "cosine"},
}


def problem(n_classes=5, n_samples=240, dtype=np.float64, weighted=False):
    random = np.random.default_rng(7)
    X = random.standard_normal((n_samples, 6)).astype(dtype)
    y = np.argmax(X @ random.standard_normal((6, n_classes)) + random.gumbel(size=(n_samples, n_classes)), axis=1)
    return X, y, random.uniform(0.5, 2, n_samples) if weighted else None


def linear(options, **more):
    return SoftmaxClassifier(**{"random_state": 0, "batch_size": 32, **options, **more})


def deep(options, **more):
    given = {"max_iter": 4, "tol": 0, "learning_rate_init": 0.01, "random_state": 0, "batch_size": 32}
    return MLPClassifier((9, 8), **{**given, **options, **more})


def parameters(model):
    return [model.coef_, model.intercept_] if hasattr(model, "coef_") else [*model.coefs_, *model.intercepts_]


def assert_same(model, want, rtol=1e-10):
    """Some hundred steps in float64, each of which amplifies a rounding error of 1e-16 but little."""
    for got, expected in zip(parameters(model), parameters(want), strict=True):
        assert type(got) is np.ndarray
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(model.loss_curve_, want.loss_curve_, rtol=rtol)
    if want.validation_scores_ is not None:
        assert model.validation_scores_ == want.validation_scores_


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_fits(cupy, name, n_classes, weighted):
    X, y, weight = problem(n_classes, weighted=weighted)
    want = linear(LINEAR[name]).fit(X, y, weight)
    model = linear(LINEAR[name]).fit(cupy.asarray(X), cupy.asarray(y), None if weight is None else cupy.asarray(weight))
    # What full-batch solvers do next depends on rounding errors a little more: they stop at 1e-6.
    assert_same(model, want, 1e-10 if LINEAR[name]["solver"] in ("sgd", "adamw") else 1e-7)


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", DEEP)
def test_deep_fits(cupy, name, weighted):
    X, y, weight = problem(3, weighted=weighted)
    want = deep(DEEP[name]).fit(X, y, weight)
    assert_same(deep(DEEP[name]).fit(cupy.asarray(X), y, weight), want)


MODELS = {"linear": (linear, LINEAR["sgd"]), "deep": (deep, DEEP["gelu, dropout"])}


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("model", MODELS)
def test_float32_stays_float32(cupy, model):
    make, options = MODELS[model]
    X, y, _ = problem(dtype=np.float32)
    got, want = make(options).fit(cupy.asarray(X), y), make(options).fit(X, y)
    assert parameters(got)[0].dtype == np.float32
    assert_same(got, want, 2e-4)


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("model", MODELS)
def test_partial_fit_and_pickle(cupy, model):
    make, options = MODELS[model]
    X, y, _ = problem()
    want, got = make(options), make(options)
    for first in (0, 120):
        some = slice(first, first + 120)
        want.partial_fit(X[some], y[some], classes=range(5))
        got.partial_fit(cupy.asarray(X[some]), y[some], classes=range(5))
        got = copy.deepcopy(pickle.loads(pickle.dumps(got)))
    # The optimiser's memory stays on the device: samples of the host come there.
    got.partial_fit(X, y)
    assert_same(got, want.partial_fit(X, y))
    assert machine_of(got._descent.model.parameters) is machines.device_named("cupy")


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("model", MODELS)
def test_streams(cupy, model):
    make, options = MODELS[model]
    X, y, _ = problem()
    batches = [(X[i : i + 50], y[i : i + 50]) for i in range(0, 240, 50)]
    want = make(options).fit_stream(batches, classes=range(5))
    on_device = [(cupy.asarray(X), cupy.asarray(y)) for X, y in batches]
    assert_same(make(options).fit_stream(on_device, classes=range(5)), want)
    mixed = [on_device[0], *batches[1:]]  # the first one decides where
    assert_same(make(options).fit_stream(mixed, classes=range(5)), want)


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("first_on_device", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adamw", "lbfgs", "newton-cg", "deep"])
def test_checkpoints_resume_on_either_machine(cupy, tmp_path, name, first_on_device):
    make, options = MODELS["deep"] if name == "deep" else (linear, LINEAR[name])
    X, y, _ = problem(2)
    options = {**options, "max_iter": 5}
    want = _quietly(make(options), X, y)
    first, second = (cupy.asarray(X), X) if first_on_device else (X, cupy.asarray(X))
    _quietly(make(options, max_iter=2, checkpoint=tmp_path), first, y)
    saved = np.load(tmp_path / "checkpoint.npz", allow_pickle=False)
    assert all(isinstance(saved[each], np.ndarray) for each in saved.files)
    got = _quietly(make(options, checkpoint=tmp_path, resume=True), second, y)
    assert_same(got, want, 1e-10)


def _quietly(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y)


@pytest.mark.parametrize("model", MODELS)
def test_resuming_on_a_device_gives_the_same_bits(cupy, tmp_path, model):
    make, options = MODELS[model]
    X, y, _ = problem()
    X = cupy.asarray(X)
    want = make(options).fit(X, y)
    make(options, max_iter=2, checkpoint=tmp_path).fit(X, y)
    got = make(options, checkpoint=tmp_path, resume=True).fit(X, y)
    for a, b in zip(parameters(got), parameters(want), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("model", MODELS)
def test_answers(cupy, model, n_classes):
    """On the machine of what is asked; labels are the host's. Whoever was fitted where does not matter."""
    make, options = MODELS[model]
    X, y, weight = problem(n_classes, weighted=True)
    on_device = cupy.asarray(X)
    labels = np.array(list("abcde"))[y]
    for fitted_to in (X, on_device):
        fitted = make(options).fit(fitted_to, labels)
        for method in ("predict_proba", "predict_log_proba", "decision_function"):
            want, got = getattr(fitted, method)(X), getattr(fitted, method)(on_device)
            assert isinstance(want, np.ndarray)
            assert isinstance(got, cupy.ndarray)
            assert got.dtype == want.dtype
            np.testing.assert_allclose(cupy.asnumpy(got), want, rtol=1e-12, atol=1e-14)
        assert fitted.predict(on_device).tolist() == fitted.predict(X).tolist()
        assert fitted.score(on_device, labels) == fitted.score(X, labels)
        assert fitted.score(on_device, labels, cupy.asarray(weight)) == fitted.score(X, labels, weight)
        for given in (None, weight):
            want = fitted.log_likelihood(X, labels, given)
            assert fitted.log_likelihood(on_device, labels, given) == pytest.approx(want, rel=1e-12)
    numbers = make(options).fit(on_device, cupy.asarray(y))
    assert numbers.score(on_device, cupy.asarray(y)) == numbers.score(X, y)


def test_warm_start_goes_on_from_either_machine(cupy):
    X, y, _ = problem()
    for make, options in MODELS.values():
        options = {**options, "dropout": 0.0} if make is deep else options
        want = make(options, warm_start=True).fit(X, y).fit(X, y)
        assert_same(make(options, warm_start=True).fit(X, y).fit(cupy.asarray(X), y), want)
        assert_same(make(options, warm_start=True).fit(cupy.asarray(X), y).fit(X, y), want)


@pytest.mark.parametrize("model", MODELS)
def test_steps_do_not_wait_for_the_device(cupy, monkeypatch, model):
    make, options = MODELS[model]
    X, y, _ = problem(weighted=True)

    def waits_of(**more):
        monkeypatch.setattr(device_arrays, "waits", 0)
        make(options, **more).fit(cupy.asarray(X), y)
        return device_arrays.waits

    few, many = waits_of(batch_size=120, max_iter=2), waits_of(batch_size=4, max_iter=2)
    assert few == many > 0
    assert waits_of(batch_size=120, max_iter=3) > few  # an epoch does wait: the counter counts


@pytest.mark.parametrize("model", MODELS)
def test_divergence_names_the_epoch(cupy, model):
    make, options = MODELS[model]
    X, y, _ = problem()
    options = {**options, "solver": "sgd", "learning_rate_init": 1e200}
    with pytest.raises(FloatingPointError, match=r"'sgd' diverged in epoch \d \((the loss|a parameter) is .*smaller"):
        make(options, max_iter=9).fit(cupy.asarray(X), y)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler for the emulator of CUDA")
@pytest.mark.parametrize("name", ["newton-cg", "sgd", "deep"])
def test_with_the_kernels_of_cuda(cupy, monkeypatch, name):
    """Their emulator checks that what estimators hand to a device's losses is what those take."""
    from cuda_emulator.device import EmulatedDevice
    from mlefast._backends.device_functions import DeviceFunctions

    functions = DeviceFunctions(EmulatedDevice())
    monkeypatch.setattr(cuda_backend, "FUNCTIONS", device_arrays.Losses(functions))
    make, options = (deep, {"activation": "tanh"}) if name == "deep" else (linear, LINEAR[name])
    X, y, weight = problem(3, 64, weighted=True)
    options = {**options, "max_iter": 2, "tol": 0.1 if name == "newton-cg" else 0}
    for given in (None, weight):
        assert_same(make(options).fit(cupy.asarray(X), y, given), make(options).fit(X, y, given), 1e-9)


# ---- what is refused


@pytest.mark.parametrize("model", MODELS)
def test_refused_arrays(cupy, model):
    make, options = MODELS[model]
    X, y, _ = problem()
    put = cupy.asarray
    fitted = make(options).fit(put(X), y)
    assert fitted.n_features_in_ == 6
    broken = X.copy()
    broken[3, 2] = np.nan
    for given, error, message in [
        (X[0], ValueError, r"^X: received an array of dtype float64 and shape \(6,\); accepted: shape \(n_samples"),
        (X[:0], ValueError, r"^X: received .* \(0, 6\); accepted: .* at least one"),
        (broken, ValueError, r"^X: received .* holds NaN or infinity; accepted: finite"),
        (X.astype(complex), TypeError, r"^X: received .*complex128.*accepted: real"),
    ]:
        with pytest.raises(error, match=message):
            make(options).fit(put(given), y[: len(given)])
        with pytest.raises(error, match=message):
            fitted.predict(put(given))
    with pytest.raises(ValueError, match=r"^X: received .*\(240, 5\); accepted: 6 features, as in fit"):
        fitted.predict_proba(put(X[:, :5]))
    with pytest.raises(ValueError, match=r"^y: received 239 labels; accepted: 240"):
        make(options).fit(put(X), y[1:])
    with pytest.raises(ValueError, match=r"^y: received None"):
        make(options).fit(put(X), None)
    with pytest.raises(ValueError, match="y: received only one class"):
        make(options).fit(put(X), 0 * y)


def test_other_dtypes_and_orders_are_converted(cupy):
    X, y, _ = problem()
    X = np.rint(4 * X)
    want = linear(LINEAR["sgd"]).fit(X, y)
    for given in (X.astype(np.int64), X.astype(np.float16), np.asfortranarray(X)):
        assert_same(linear(LINEAR["sgd"]).fit(cupy.asarray(given), y), want)


def test_sparse_matrices_of_a_device_are_refused():
    csr = type("csr_matrix", (), {"__module__": "cupyx.scipy.sparse._csr"})()
    for call in (lambda: linear({}).fit(csr, [0, 1]), lambda: deep({}).fit(csr, [0, 1])):
        with pytest.raises(TypeError, match="^X: received a csr_matrix on a CUDA device; accepted: dense CuPy arrays"):
            call()


def test_statistics_are_for_the_host(cupy):
    X, y, _ = problem()
    model = linear({"penalty": None}).fit(cupy.asarray(X), y)
    with pytest.raises(TypeError, match="^statistics: received an array on a CUDA device"):
        model.statistics(cupy.asarray(X), y)
    assert model.statistics(X, y).coef.shape == (4, 7)


def test_calibrated_answers_are_the_hosts(cupy):
    X, y, weight = problem(weighted=True)
    model = linear(LINEAR["sgd"]).fit(X, y)
    want = TemperatureCalibrator(model).fit(X, y, weight)
    got = TemperatureCalibrator(model).fit(cupy.asarray(X), cupy.asarray(y), cupy.asarray(weight))
    assert got.temperature_ == pytest.approx(want.temperature_, rel=1e-12)
    np.testing.assert_allclose(got.predict_proba(cupy.asarray(X)), want.predict_proba(X), rtol=1e-12)


def test_what_lies_on_the_host_stays_there(cupy):
    for x in (np.zeros(3), [1.0], scipy.sparse.csr_array((2, 2)), None):
        assert machine_of(x) is HOST
    assert machine_of(cupy.zeros(3)) is machines.device_named("cupy")
    assert pickle.loads(pickle.dumps(HOST)) is HOST
