"""Calibration: the temperature is the likelihood's maximum, bins are what they say, and what is refused."""

from __future__ import annotations

import mlefast as mf
import numpy as np
import pytest
import scipy.optimize
from mlefast.calibration import expected_calibration_error, fit_temperature, reliability_diagram


@pytest.fixture(scope="module")
def true():
    """Logits of which labels are drawn."""
    random = np.random.default_rng(0)
    logits = 2 * random.standard_normal((20_000, 5))
    return logits, np.argmax(logits + random.gumbel(size=logits.shape), axis=1)


@pytest.mark.parametrize("temperature", [1e-3, 0.3, 1.0, 2.5, 1e6])
def test_recovers_the_temperature(true, temperature):
    logits, y = true
    assert fit_temperature(temperature * logits, y) == pytest.approx(temperature, rel=0.03)
    assert fit_temperature(temperature * logits, y) == pytest.approx(
        temperature * fit_temperature(logits, y), rel=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_maximum(true, dtype):
    logits, y = (3 * true[0][:500]).astype(dtype), true[1][:500]
    weight = np.random.default_rng(1).uniform(0, 2, 500)

    def loss(b):
        return float(weight @ mf.cross_entropy(b * logits.astype(np.float64), y, reduction="none"))

    best = scipy.optimize.minimize_scalar(loss, bounds=(0.01, 10), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(logits, y, sample_weight=weight) == pytest.approx(1 / best, rel=1e-6)
    offset = logits.astype(np.float64) + 1e4 * np.arange(500)[:, None]
    assert fit_temperature(offset, y, sample_weight=weight) == pytest.approx(1 / best, rel=1e-6)


def test_exact_solution():
    assert fit_temperature([[8.0, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(8 / np.log(3), rel=1e-14)
    assert fit_temperature([[8.0, 0.0]] * 2, [0, 1], sample_weight=[3, 1]) == pytest.approx(8 / np.log(3), rel=1e-14)
    masked = [[8.0, 0.0, -np.inf], [8.0, 0.0, -np.inf]]
    assert fit_temperature(masked, [0, 1], sample_weight=[3, 1]) == pytest.approx(8 / np.log(3), rel=1e-14)
    assert fit_temperature([[1e-300, 0.0]] * 4, [0, 0, 0, 1]) == pytest.approx(1e-300 / np.log(3), rel=1e-12)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_true_probabilities_are_calibrated(true, strategy):
    logits, y = true
    assert expected_calibration_error(mf.softmax(logits), y, strategy=strategy) < 0.01
    sure = expected_calibration_error(mf.softmax(3 * logits), y, strategy=strategy)
    assert sure > 0.1
    again = 3 * logits / fit_temperature(3 * logits, y)
    assert expected_calibration_error(mf.softmax(again), y, strategy=strategy) < 0.01


def test_bins_of_equal_width():
    p = np.array([[0.5, 0.5], [0.4, 0.6], [0.25, 0.75], [0.9, 0.1], [1.0, 0.0]])
    y = [0, 0, 1, 0, 0]
    diagram = reliability_diagram(p, y, n_bins=4)
    np.testing.assert_array_equal(diagram.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(diagram.weight, [0, 1, 2, 2])  # a border belongs to the lower bin
    np.testing.assert_allclose(diagram.confidence, [np.nan, 0.5, 0.675, 0.95])
    np.testing.assert_allclose(diagram.accuracy, [np.nan, 1, 0.5, 1])
    assert diagram.expected_error == pytest.approx((0.5 + 2 * 0.175 + 2 * 0.05) / 5)
    assert diagram.largest_error == pytest.approx(0.5)
    weighted = reliability_diagram(p, y, n_bins=4, sample_weight=[0, 3, 1, 1, 1])
    np.testing.assert_array_equal(weighted.weight, [0, 0, 4, 2])
    np.testing.assert_allclose(weighted.accuracy, [np.nan, np.nan, 0.25, 1])


def test_bins_of_equal_mass(true):
    logits, y = true
    diagram = reliability_diagram(mf.softmax(logits), y, n_bins=8, strategy="quantile")
    assert len(diagram.weight) == 8
    assert np.abs(diagram.weight - 2500).max() <= 1
    assert (np.diff(diagram.edges) > 0).all()
    # Equal confidences stay together, so that there may be fewer bins.
    tied = reliability_diagram([[0.7, 0.3]] * 90 + [[0.9, 0.1]] * 10, [0] * 100, n_bins=5, strategy="quantile")
    np.testing.assert_array_equal(tied.weight[tied.weight > 0], [90, 10])


def test_hand_computed_error_over_classes():
    p = np.eye(3)[[0, 1, 2, 0]] * 0.7 + 0.1
    assert expected_calibration_error(p, [0, 1, 2, 1]) == pytest.approx(0.8 - 0.75)


def test_samples_without_a_best_temperature():
    with pytest.raises(ValueError, match="all classified right"):
        fit_temperature([[2.0, 0.0], [0.0, 3.0]], [0, 1])
    with pytest.raises(ValueError, match="all classified right"):  # the most probable class, if not alone
        fit_temperature([[2.0, 2.0], [0.0, 3.0]], [0, 1])
    with pytest.raises(ValueError, match="better than chance"):
        fit_temperature([[2.0, 0.0], [0.0, 3.0]], [1, 0])
    with pytest.raises(ValueError, match="better than chance"):
        fit_temperature([[1.0, 0.0], [1.0, 0.0]], [1, 0])


@pytest.mark.parametrize("function", [fit_temperature, reliability_diagram])
def test_refused_for_both(function):
    p = np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match="received shape"):
        function(p[0], [0])
    with pytest.raises(ValueError, match="^target: received shape"):
        function(p, [0, 1])
    with pytest.raises(IndexError, match=r"^target\[2\]: received 2; accepted: 0 to 1"):
        function(p, [0, 1, 2])
    with pytest.raises(TypeError, match="^target: received .*float"):
        function(p, [0.0, 1.0, 1.0])
    for weight, message in (([1, 1], "shape"), ([1, -1, 1], "negative"), ([0, 0, 0], "none > 0")):
        with pytest.raises(ValueError, match=f"^sample_weight: received .*{message}"):
            function(p, [0, 1, 1], sample_weight=weight)


def test_refused():
    for bad in ([[np.nan, 0.0]], [[np.inf, 0.0]], [[-np.inf, 0.0]]):
        with pytest.raises(ValueError, match="^logits: received NaN, "):
            fit_temperature(bad, [0])
    with pytest.raises(ValueError, match="^probabilities: received a row that is no distribution"):
        reliability_diagram([[2.0, 1.0]], [0])
    with pytest.raises(ValueError, match="^n_bins: received 0"):
        reliability_diagram([[0.5, 0.5]], [0], n_bins=0)
    with pytest.raises(ValueError, match="^strategy: received 'kmeans'"):
        reliability_diagram([[0.5, 0.5]], [0], strategy="kmeans")
