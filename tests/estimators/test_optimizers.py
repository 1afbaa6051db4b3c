"""The rules of the optimisers against their formulas, for arrays of more than one block."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast.estimators.optimizers import SGD, AdamW


def gradients(shape, steps=5):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape) * 10.0 ** random.integers(-4, 2) for _ in range(steps)]


SHAPES = [(1,), (10, 785), (300_000,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(shape, nesterov):
    parameters = np.ones(shape)
    rule = SGD(parameters, learning_rate=0.1, momentum=0.8, nesterov=nesterov)
    want, velocity = np.ones(shape), np.zeros(shape)
    for gradient in gradients(shape):
        velocity = 0.8 * velocity - 0.1 * gradient
        want = want + (0.8 * velocity - 0.1 * gradient if nesterov else velocity)
        rule.step(parameters, gradient.copy())
        np.testing.assert_allclose(parameters, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adamw(shape, weight_decay):
    parameters = np.full(shape, 2.0)
    rule = AdamW(parameters, learning_rate=0.05, beta_1=0.8, beta_2=0.95, epsilon=1e-3, weight_decay=weight_decay)
    want, m, v = np.full(shape, 2.0), np.zeros(shape), np.zeros(shape)
    decaying = np.ones(shape)
    decaying[..., -1] = 0  # the last column is free
    for t, gradient in enumerate(gradients(shape), start=1):
        m = 0.8 * m + 0.2 * gradient
        v = 0.95 * v + 0.05 * gradient**2
        step = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
        want = want - 0.05 * (step + weight_decay * decaying * want)
        rule.step(parameters, gradient.copy(), parameters[..., :-1])
        np.testing.assert_allclose(parameters, want, rtol=1e-12, atol=1e-14)


def test_everything_decays_by_default():
    parameters = np.ones(3)
    AdamW(parameters, learning_rate=0.1, weight_decay=0.5).step(parameters, np.zeros(3))
    np.testing.assert_allclose(parameters, 0.95)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, learning_rate=0.1, momentum=0.9, nesterov=True),
        lambda p: AdamW(p, learning_rate=0.1, weight_decay=0.1),
    ],
)
def test_float32_stays_float32(make):
    parameters = np.ones(7, np.float32)
    rule = make(parameters)
    rule.step(parameters, np.ones(7, np.float32))
    assert all(value.dtype == np.float32 for value in vars(rule).values() if isinstance(value, np.ndarray))
