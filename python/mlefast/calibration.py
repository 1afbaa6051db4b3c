r"""How honest the probabilities of a classifier are, and how to make them so with one number.

A classifier is calibrated if, of the samples for which it names a class with confidence 0.8, it is right for 80 %.
Temperature scaling (C. Guo, G. Pleiss, Y. Sun, K. Weinberger, ICML 2017) divides the logits by a number T that is found
by maximum likelihood on samples that the classifier has not been fitted to: confidences change, predictions do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlefast._arguments import as_logits, as_target, describe
from mlefast.losses import cross_entropy_and_grad

__all__ = ["ReliabilityDiagram", "expected_calibration_error", "fit_temperature", "reliability_diagram"]

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReliabilityDiagram:
    """Confidence and accuracy of predictions, grouped into bins by their confidence.

    Attributes
    ----------
    edges : ndarray, shape (bins + 1,)
        The bins' borders; a confidence at a border belongs to the lower bin.
    weight : ndarray, shape (bins,)
        Samples in each bin, or the sum of their weights.
    confidence, accuracy : ndarray, shape (bins,)
        Means over the samples of each bin; NaN where there is none.
    """

    edges: Float64Array
    weight: Float64Array
    confidence: Float64Array
    accuracy: Float64Array

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean over the samples of the gap between their bin's two means."""
        filled = self.weight > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.average(gaps, weights=self.weight[filled]))

    @property
    def largest_error(self) -> float:
        """Maximum calibration error: the largest gap of a bin."""
        return float(np.nanmax(np.abs(self.confidence - self.accuracy)))


def reliability_diagram(
    probabilities: Any,
    target: Any,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    sample_weight: Any = None,
) -> ReliabilityDiagram:
    """Compare the confidence of predictions with how often they are right.

    The prediction for a sample is its most probable class, the confidence that class's probability.

    Parameters
    ----------
    probabilities : array_like, shape (samples, classes)
        As ``predict_proba`` returns them.
    target : array_like of int, shape (samples,)
        Class indices: the columns of the labels.
    n_bins : int, default 15
        At most so many bins.
    strategy : {"uniform", "quantile"}, default "uniform"
        Bins of equal width between 0 and 1, or with equally many samples each, but equal confidences stay together.
    sample_weight : array_like, shape (samples,), optional
        A factor for each sample.

    Returns
    -------
    ReliabilityDiagram

    Raises
    ------
    TypeError, ValueError, IndexError
        If an argument does not fit; the message names it.

    Examples
    --------
    >>> from mlefast.calibration import reliability_diagram
    >>> diagram = reliability_diagram([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8]], [0, 0, 0], n_bins=2)
    >>> diagram.confidence, diagram.accuracy
    (array([       nan, 0.83333333]), array([       nan, 0.66666667]))
    """
    p = np.asarray(as_logits(probabilities, "probabilities"), dtype=np.float64)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"probabilities: received shape {p.shape}; accepted: (samples, classes), 1 or more of each")
    if not (np.abs(p.sum(axis=1) - 1) < 1e-3).all() or p.min() < 0:
        raise ValueError("probabilities: received a row that is no distribution; accepted: numbers >= 0 of sum 1")
    y = _class_indices(target, p.shape)
    weight = _weights(sample_weight, len(p))
    if isinstance(n_bins, bool) or not isinstance(n_bins, (int, np.integer)) or n_bins < 1:
        raise ValueError(f"n_bins: received {describe(n_bins)}; accepted: an integer >= 1")
    confidence = p.max(axis=1)
    hit = np.argmax(p, axis=1) == y
    if strategy == "uniform":
        edges = np.linspace(0, 1, n_bins + 1)
    elif strategy == "quantile":
        edges = np.quantile(confidence, np.linspace(0, 1, n_bins + 1), method="inverted_cdf")
        edges = np.unique(np.concatenate([[0.0], edges[1:]]))
    else:
        raise ValueError(f"strategy: received {describe(strategy)}; accepted: 'uniform', 'quantile'")
    edges[-1] = max(1.0, edges[-1], confidence.max())
    bins = np.searchsorted(edges[1:-1], confidence, side="left")
    mass, total, right = (
        np.bincount(bins, weight * value, minlength=len(edges) - 1).astype(np.float64)
        for value in (1.0, confidence, hit)
    )
    with np.errstate(invalid="ignore"):
        return ReliabilityDiagram(edges, mass, total / mass, right / mass)


def expected_calibration_error(
    probabilities: Any,
    target: Any,
    *,
    n_bins: int = 15,
    strategy: Literal["uniform", "quantile"] = "uniform",
    sample_weight: Any = None,
) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy over bins of similar confidence.

    Parameters
    ----------
    probabilities, target, n_bins, strategy, sample_weight
        As for :func:`reliability_diagram`.

    Returns
    -------
    float
        In [0, 1]. It depends on the bins, and is above 0 for few samples even where probabilities are true.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`reliability_diagram`.

    Examples
    --------
    >>> from mlefast.calibration import expected_calibration_error
    >>> round(expected_calibration_error([[0.9, 0.1]] * 10, [0] * 7 + [1] * 3), 3)
    0.2
    """
    return reliability_diagram(
        probabilities, target, n_bins=n_bins, strategy=strategy, sample_weight=sample_weight
    ).expected_error


def fit_temperature(logits: Any, target: Any, *, sample_weight: Any = None) -> float:
    r"""Find the temperature T with which softmax(logits / T) makes labels most likely.

    The negative log-likelihood is convex in :math:`b = 1/T`, with the derivative
    :math:`\sum_i \mathrm{E}_{p_i}[x_i] - x_{i,y_i}`; its root is found to the last digits.

    Parameters
    ----------
    logits : array_like of float32 or float64, shape (samples, classes)
        Unnormalised log-probabilities of samples that the classifier has not been fitted to. -inf masks a class.
    target : array_like of int, shape (samples,)
        Class indices.
    sample_weight : array_like, shape (samples,), optional
        A factor for each sample.

    Returns
    -------
    float
        T > 0: above 1 where the classifier is too sure of itself, below 1 where it is not sure enough.

    Raises
    ------
    TypeError, IndexError
        If an argument is of the wrong kind or a label is no class.
    ValueError
        If a shape or value does not fit; if all samples are classified right, so that the likelihood only grows as T
        falls to 0; or if the logits say nothing or the opposite of the truth, so that it grows as T rises.

    Examples
    --------
    >>> from mlefast.calibration import fit_temperature
    >>> round(fit_temperature([[8.0, 0.0]] * 4, [0, 0, 0, 1]), 4)  # right for three of four: 8 / T = log 3
    7.2819
    """
    x = np.array(as_logits(logits), dtype=np.float64, order="C")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"logits: received shape {x.shape}; accepted: (samples, classes), 1 or more of each")
    y = _class_indices(target, x.shape)
    weight = _weights(sample_weight, len(x))
    x, y, weight = x[weight > 0], y[weight > 0], weight[weight > 0]
    masked = np.isneginf(x)
    if np.isnan(x).any() or np.isposinf(x).any() or masked[np.arange(len(y)), y].any():
        raise ValueError(
            "logits: received NaN, +inf, or -inf for a sample's own class; accepted: finite numbers, and -inf for "
            "classes that a sample is not of"
        )
    x -= x.max(axis=1, keepdims=True)  # the softmax is the same, and b x cannot overflow
    finite = np.where(masked, 0.0, x)  # where p is 0, so that 0 * -inf is 0
    unit = float(-finite.min()) or 1.0
    finite /= unit
    if not finite[np.arange(len(y)), y].any():
        raise ValueError(
            "logits: received samples that are all classified right, so that the likelihood grows without bound as T "
            "falls to 0; accepted: samples of which some are classified wrong"
        )
    weight = weight / weight.sum()
    buffer = np.empty_like(x)

    def slope(b: float) -> float:
        np.multiply(finite, b, out=buffer)
        buffer[masked] = -np.inf
        cross_entropy_and_grad(buffer, y, reduction="none", upstream=weight, out=buffer)
        return float(np.vdot(buffer, finite))

    if not slope(0.0) < 0:
        raise ValueError(
            "logits: received logits that do not favour the labels over the other classes; accepted: logits of a "
            "classifier that is better than chance on these samples"
        )
    high = 1.0  # some sample is classified wrong: where b is large, its margin makes the slope positive
    while slope(high) < 0:
        high *= 2
    from scipy.optimize import brentq

    low = high / 2
    while slope(low) > 0:
        low /= 2
    return unit / float(brentq(slope, low, high, xtol=low * 1e-15, rtol=4 * np.finfo(np.float64).eps))


def _class_indices(target: Any, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    y = as_target(target, shape[:1]).astype(np.int64)
    wrong = (y < 0) | (y >= shape[1])
    if wrong.any():
        i = int(np.argmax(wrong))
        raise IndexError(f"target[{i}]: received {y[i]}; accepted: 0 to {shape[1] - 1}")
    return y


def _weights(sample_weight: Any, n_samples: int) -> Float64Array:
    if sample_weight is None:
        return np.ones(n_samples)
    weight = np.asarray(as_logits(sample_weight, "sample_weight"), dtype=np.float64)
    if weight.shape != (n_samples,):
        raise ValueError(f"sample_weight: received shape {weight.shape}; accepted: ({n_samples},)")
    if not (np.isfinite(weight).all() and weight.min() >= 0 and weight.sum() > 0):
        raise ValueError("sample_weight: received a negative or infinite weight or none > 0; accepted: numbers >= 0")
    return weight
