"""The rules of the optimisers against their formulas, their penalties against the objective's minimum, their state."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast.estimators.optimizers import SGD, AdamW


def gradients(shape, steps=5):
    random = np.random.default_rng(0)
    return [random.standard_normal(shape) * 10.0 ** random.integers(-4, 2) for _ in range(steps)]


def shrunk(p, threshold):
    return np.sign(p) * np.maximum(np.abs(p) - threshold, 0)


SHAPES = [(1,), (10, 785), (300_000,)]
PENALTIES = [{}, {"l2": 0.3}, {"l1": 0.02}, {"l2": 0.3, "l1": 0.02}]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_momentum(shape, nesterov, penalty):
    size = int(np.prod(shape))
    n_weights = size * 2 // 3
    is_weight = (np.arange(size) < n_weights).reshape(shape)
    l2, l1 = penalty.get("l2", 0.0) * is_weight, penalty.get("l1", 0.0) * is_weight
    parameters = np.ones(shape)
    rule = SGD(parameters, n_weights=n_weights, learning_rate=0.1, momentum=0.8, nesterov=nesterov, **penalty)
    want, velocity = np.ones(shape), np.zeros(shape)
    for gradient in gradients(shape):
        g = gradient + l2 * want
        velocity = 0.8 * velocity - 0.1 * g
        want = shrunk(want + (0.8 * velocity - 0.1 * g if nesterov else velocity), 0.1 * l1 / 0.2)
        given = gradient.copy()
        rule.step(parameters, given)
        np.testing.assert_allclose(parameters, want, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(given, gradient)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_adamw(shape, weight_decay, penalty):
    size = int(np.prod(shape))
    n_weights = size * 2 // 3
    is_weight = (np.arange(size) < n_weights).reshape(shape)
    l2, l1 = penalty.get("l2", 0.0) * is_weight, penalty.get("l1", 0.0) * is_weight
    parameters = np.full(shape, 2.0)
    rule = AdamW(
        parameters, n_weights=n_weights, learning_rate=0.05, beta_1=0.8, beta_2=0.95, epsilon=1e-3,
        weight_decay=weight_decay, **penalty,
    )  # fmt: skip
    want, m, v = np.full(shape, 2.0), np.zeros(shape), np.zeros(shape)
    for t, gradient in enumerate(gradients(shape), start=1):
        g = gradient + l2 * want
        m = 0.8 * m + 0.2 * g
        v = 0.95 * v + 0.05 * g**2
        denominator = np.sqrt(v / (1 - 0.95**t)) + 1e-3
        moved = want - 0.05 * (m / (1 - 0.8**t) / denominator + weight_decay * is_weight * want)
        want = shrunk(moved, 0.05 * l1 / denominator)
        given = gradient.copy()
        rule.step(parameters, given)
        np.testing.assert_allclose(parameters, want, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(given, gradient)


def make_rules(like, **options):
    return [
        SGD(like, learning_rate=0.02, momentum=0.0, nesterov=False, **options),
        SGD(like, learning_rate=0.005, momentum=0.9, nesterov=False, **options),
        SGD(like, learning_rate=0.005, momentum=0.9, nesterov=True, **options),
        AdamW(like, learning_rate=0.005, beta_1=0.5, **options),
    ]


@pytest.mark.parametrize("which", range(4))
def test_rules_rest_at_the_minimum_of_the_penalised_objective(which):
    """Of 1/2 (p - a)' H (p - a) + l2/2 p'p + l1 |p|, whose optimality conditions are checked entry by entry."""
    random = np.random.default_rng(1)
    root = random.standard_normal((12, 12))
    hessian = root @ root.T / 12 + 0.5 * np.eye(12)
    target = random.standard_normal(12)
    l2, l1 = 0.2, 0.6
    p = random.standard_normal(12)
    rule = make_rules(p, n_weights=9, l2=l2, l1=l1)[which]
    for step in range(40_000):
        if which == 3 and step % 10_000 == 9999:
            rule.learning_rate /= 10
        rule.step(p, hessian @ (p - target))
    slope = hessian @ (p - target)
    slope[:9] += l2 * p[:9]
    zero = p == 0
    assert 2 <= zero.sum() <= 8
    assert not zero[9:].any()
    assert (np.abs(slope[zero]) < l1).all()
    moving = ~zero[:9]
    np.testing.assert_allclose(slope[:9][moving], -l1 * np.sign(p[:9][moving]), atol=1e-6)
    np.testing.assert_allclose(slope[9:], 0, atol=1e-6)


def test_everything_decays_by_default():
    parameters = np.ones(3)
    AdamW(parameters, learning_rate=0.1, weight_decay=0.5).step(parameters, np.zeros(3))
    np.testing.assert_allclose(parameters, 0.95)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_state_continues_bit_for_bit(which, dtype):
    random = np.random.default_rng(0)
    p = random.standard_normal(50).astype(dtype)
    rule = make_rules(p, l1=0.01)[which]
    steps = [random.standard_normal(50).astype(dtype) for _ in range(6)]
    for gradient in steps[:3]:
        rule.step(p, gradient)
    rule.learning_rate /= 3
    state, start = rule.state(), p.copy()
    for gradient in steps[3:]:
        rule.step(p, gradient)
    assert all(value.dtype == dtype for value in state.values() if isinstance(value, np.ndarray))
    other = make_rules(p, l1=0.01)[which]
    other.restore(state)
    for gradient in steps[3:]:
        other.step(start, gradient)
    np.testing.assert_array_equal(start, p)
    assert other.learning_rate == rule.learning_rate


def test_states_that_do_not_fit_change_nothing():
    like = np.zeros(5)
    sgd, adamw = make_rules(like)[1], make_rules(like)[3]
    sgd.step(like, np.ones(5))
    before = sgd.state()
    for wrong, message in (
        (adamw.state(), "mean"),
        ({**before, "velocity": np.zeros(4)}, r"velocity.*\(4,\)"),
        ({**before, "velocity": np.zeros(5, np.float32)}, "velocity.*float32"),
        ({"velocity": np.zeros(5)}, "learning_rate"),
    ):
        with pytest.raises(ValueError, match=message):
            sgd.restore(wrong)
    np.testing.assert_array_equal(sgd.state()["velocity"], before["velocity"])


@pytest.mark.parametrize("which", [1, 3])
def test_moments_of_parameters_at_rest_die_out(which):
    """They would otherwise stay denormal numbers, which some processors take a hundred times as long for."""
    p = np.zeros(20, np.float32)
    rule = make_rules(p)[which]
    rule.step(p, np.full(20, 1e-19, np.float32))
    for _ in range(1000 if which == 1 else 200):
        rule.step(p, np.zeros(20, np.float32))
    assert not (rule.velocity if which == 1 else rule.mean).any()
