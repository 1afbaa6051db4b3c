"""Networks: gradients against finite differences, what dropout and the prior do, no memory in a step."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from mlefast import _core
from mlefast.estimators.activations import ACTIVATIONS
from mlefast.estimators.network import Network
from mlefast.estimators.optimizers import SGD, AdamW


def make(sizes=(5, 7, 4, 3), activation="tanh", *, dropout=0.0, dtype=np.float64, seed=0):
    network = Network(sizes, activation, dropout=dropout, dtype=dtype)
    random = np.random.default_rng(seed)
    network.initialize(random)
    network.parameters += 0.1 * random.standard_normal(network.parameters.shape).astype(dtype)  # no intercept is 0
    return network


def make_data(n_samples=20, n_features=5, n_classes=3, dtype=np.float64):
    random = np.random.default_rng(1)
    X = random.standard_normal((n_samples, n_features)).astype(dtype)
    return X, random.integers(0, n_classes, n_samples), random.uniform(0.5, 2, n_samples).astype(dtype)


def numerical_gradient(network, value, step=1e-6):
    gradient = np.empty_like(network.parameters)
    for i in range(len(gradient)):
        kept = network.parameters[i]
        network.parameters[i] = kept + step
        above = value()
        network.parameters[i] = kept - step
        gradient[i] = (above - value()) / (2 * step)
        network.parameters[i] = kept
    return gradient


@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (5, 7, 4, 6, 2)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_against_finite_differences(sizes, activation, weighted):
    network = make(sizes, activation)
    X, y, weight = make_data(n_classes=sizes[-1])
    arguments = (X, y, weight, weight.sum()) if weighted else (X, y, None, len(y))
    network.loss_and_gradient(*arguments)
    gradient = network.gradient.copy()
    want = numerical_gradient(network, lambda: network.loss_and_gradient(*arguments))
    np.testing.assert_allclose(gradient, want, rtol=1e-6, atol=1e-9)


def test_the_penalty_is_that_of_the_weights():
    network = make()
    assert network.n_weights == network.weights.size == sum(coef.size for coef in network.coefs)
    assert network.penalty(0.3) == pytest.approx(0.15 * sum(np.sum(coef**2) for coef in network.coefs))
    # the optimizer takes the same from the same parameters
    network.gradient.fill(0)
    before = network.parameters.copy()
    rule = SGD(network.parameters, n_weights=network.n_weights, learning_rate=0.1, momentum=0.0, nesterov=False, l2=0.3)
    rule.step(network.parameters, network.gradient)
    np.testing.assert_allclose(network.weights, 0.97 * before[: network.n_weights])
    np.testing.assert_array_equal(np.concatenate(network.intercepts), before[network.n_weights :])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_slope_of_an_activation(activation):
    z = (np.linspace(-6, 6, 241) + 0.013).reshape(1, -1)
    number, none = ACTIVATIONS[activation], np.zeros(z.size)
    values, slope, above, below, alone = z.copy(), np.empty_like(z), z + 1e-6, z - 1e-6, z.copy()
    _core.activate(number, values, none, slope, None, 0.0)
    for each in (above, below, alone):
        _core.activate(number, each, none, None, None, 0.0)
    np.testing.assert_array_equal(values, alone)
    np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-7, atol=1e-9)


def test_gradient_with_dropout_is_that_of_the_same_units():
    network = make((5, 40, 30, 3), "gelu", dropout=0.4)
    X, y, _ = make_data()

    def loss():
        return network.loss_and_gradient(X, y, None, len(y), np.random.default_rng(3))

    first = loss()
    gradient = network.gradient.copy()
    assert first == loss()
    assert first != network.loss_and_gradient(X, y, None, len(y))
    assert np.mean(np.concatenate([slope.ravel() for slope in network._slopes]) == 0) == 0
    loss()
    assert np.mean(network._slopes[0] == 0) == pytest.approx(0.4, abs=0.06)
    np.testing.assert_allclose(gradient, numerical_gradient(network, loss), rtol=1e-6, atol=1e-9)


def test_dropout_keeps_the_mean():
    network = make((5, 200, 3), "identity", dropout=0.25)
    X, y, _ = make_data(50)
    network.loss_and_gradient(X, y, None, 50)
    without = network._values[0].copy()
    total = np.zeros_like(without)
    random = np.random.default_rng(0)
    for _ in range(400):
        network.loss_and_gradient(X, y, None, 50, random)
        total += network._values[0]
    # a unit's mean over 400 draws has a standard deviation of sqrt(p / (1 - p) / 400) = 0.029 of itself
    assert np.abs(total / 400 / without - 1).max() < 6 * 0.029


def test_smaller_batches_use_the_same_buffers():
    network = make()
    X, y, _ = make_data()
    fresh = [make().loss_and_gradient(X[:n], y[:n], None, n) for n in (20, 3, 1)]
    assert [network.loss_and_gradient(X[:n], y[:n], None, n) for n in (20, 3, 1)] == fresh


def test_sparse_features_are_the_same():
    X, y, _ = make_data()
    X[np.abs(X) < 0.8] = 0
    dense, sparse = make(), make()
    convert = scipy.sparse.csr_array
    assert sparse.loss_and_gradient(convert(X), y, None, 20) == pytest.approx(
        dense.loss_and_gradient(X, y, None, 20), rel=1e-14
    )
    np.testing.assert_allclose(sparse.gradient, dense.gradient, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(sparse.logits(convert(X)), dense.logits(X), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dtype_is_kept(dtype, activation):
    network = make(activation=activation, dropout=0.5, dtype=dtype)
    X, y, _ = make_data(dtype=dtype)
    network.loss_and_gradient(X, y, None, 20, np.random.default_rng(0))
    assert network.gradient.dtype == network.logits(X).dtype == dtype
    assert network.logits(X.astype(np.float64)).dtype == np.float64


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_a_step_allocates_nothing(activation, rule):
    network = make((300, 400, 200, 10), activation, dropout=0.2, dtype=np.float32)
    X, y, _ = make_data(256, 300, 10, np.float32)
    optimizer = (
        AdamW(network.parameters, n_weights=network.n_weights, learning_rate=1e-3, weight_decay=0.1)
        if rule == "adamw"
        else SGD(
            network.parameters, n_weights=network.n_weights, learning_rate=1e-3, momentum=0.9, nesterov=True, l2=1e-3
        )
    )
    random = np.random.default_rng(0)

    def step():
        network.loss_and_gradient(X, y, None, 256, random)
        optimizer.step(network.parameters, network.gradient)

    step()
    tracemalloc.start()
    try:
        step()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 10_000  # a layer's values alone have 400 KB, the parameters 800


def test_initial_weights():
    network = Network((400, 300, 200, 10), "relu", dtype=np.float64)
    network.initialize(np.random.default_rng(0))
    assert not any(intercept.any() for intercept in network.intercepts)
    for coef, n_in in zip(network.coefs[:2], (400, 300), strict=True):
        assert coef.std() == pytest.approx(np.sqrt(2 / n_in), rel=0.02)
    limit = np.sqrt(6 / 210)
    assert 0.99 * limit < np.abs(network.coefs[2]).max() <= limit
    network = Network((400, 300, 10), "tanh", dtype=np.float64)
    network.initialize(np.random.default_rng(0))
    assert 0.99 * np.sqrt(6 / 700) < np.abs(network.coefs[0]).max() <= np.sqrt(6 / 700)


def test_pickled_networks_stay_whole():
    network = pickle.loads(pickle.dumps(make()))
    network.parameters.fill(2)
    assert all((part == 2).all() for part in (*network.coefs, *network.intercepts, network.weights))
    X, y, _ = make_data()
    network.loss_and_gradient(X, y, None, 20)
    assert network.gradient.any()
