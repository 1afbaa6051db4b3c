"""Cross-entropy of independent yes-or-no questions: the negative log-likelihood of Bernoulli variables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlefast._arguments import (
    FloatArray,
    as_fraction,
    as_like,
    as_logits,
    as_numpy,
    as_out,
    as_reals,
    as_reduction,
    as_upstream,
    compute_dtype,
    quotient,
)
from mlefast._backends import backend_of, device_functions_of

__all__ = ["binary_cross_entropy", "binary_cross_entropy_and_grad"]


def binary_cross_entropy(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    r"""Cross-entropy between targets and the sigmoid of logits, element by element.

    For a logit :math:`x` with the target :math:`t` it is
    :math:`w\,(c\,t \log(1 + e^{-x}) + (1 - t) \log(1 + e^x))`, with the weight :math:`w` and the factor :math:`c` of
    positive targets.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, any shape
        Log-odds. Lists and integers are taken as float64.
    target : array_like of real numbers or bool, the shape of `logits`
        Probabilities, 0 and 1 as a rule.
    weight : array_like, broadcastable to the shape of `logits`, optional
        :math:`w`; a number for each class of the last axis is never expanded.
    pos_weight : array_like, shape () or (C,) for logits of shape (..., C), optional
        :math:`c`.
    label_smoothing : float from 0 to 1, default 0
        :math:`\varepsilon`: :math:`t` becomes :math:`(1 - \varepsilon) t + \varepsilon / 2`.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides by the number of elements. "none" returns the loss of each.

    Returns
    -------
    scalar or ndarray
        Of the dtype of `logits` (float32 for halves). A logit of +-inf gives 0 or +inf, not NaN.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a shape or an option does not fit.

    Notes
    -----
    :math:`\log(1 + e^x)` is :math:`\max(x, 0) + \operatorname{log1p}(e^{-|x|})`: a confident prediction keeps all
    digits of its loss.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.binary_cross_entropy([0.0, 50.0], [1, 1], reduction="none")
    array([6.93147181e-01, 1.92874985e-22])
    """
    return _binary(logits, target, weight, pos_weight, label_smoothing, reduction)[0]


def binary_cross_entropy_and_grad(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    upstream: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    r"""Loss of :func:`binary_cross_entropy` and its gradient with respect to the logits.

    The gradient is :math:`w\,((1 - t)\,\sigma(x) - c\,t\,\sigma(-x))`, which is :math:`\sigma(x) - t` without factors.

    Parameters
    ----------
    logits, target, weight, pos_weight, label_smoothing, reduction
        As for :func:`binary_cross_entropy`.
    upstream, out
        As for :func:`cross_entropy_and_grad`.

    Returns
    -------
    loss : scalar or ndarray
        As :func:`binary_cross_entropy`.
    gradient : ndarray
        Of the dtype and shape of `logits`.

    Raises
    ------
    TypeError, ValueError
        As :func:`binary_cross_entropy`, and if `upstream` or `out` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.binary_cross_entropy_and_grad([0.0, 0.0], [0, 1], reduction="sum")[1]
    array([ 0.5, -0.5])
    """
    return _binary(
        logits, target, weight, pos_weight, label_smoothing, reduction, gradient=True, upstream=upstream, out=out
    )


def _binary(
    logits: Any,
    target: Any,
    weight: Any,
    pos_weight: Any,
    label_smoothing: Any,
    reduction: Any,
    *,
    gradient: bool = False,
    upstream: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    on_device = device_functions_of(logits)
    if on_device is not None:
        return on_device.binary_cross_entropy(
            logits,
            target,
            weight=weight,
            pos_weight=pos_weight,
            label_smoothing=label_smoothing,
            reduction=reduction,
            gradient=gradient,
            upstream=upstream,
            out=out,
        )
    backend, in_kind = backend_of(logits)
    array = as_logits(logits)
    dtype = compute_dtype(array.dtype)
    targets = _as_targets(target, array)
    element_weight = class_weight = None
    if weight is not None:
        element_weight, class_weight = _as_weights(weight, array.shape, dtype)
    reduced = as_reduction(reduction)
    scale, factors = as_upstream(upstream, reduced, array.shape, array.dtype)
    into = as_out(out, array)
    divisor = float(array.size) if reduced == "mean" else 1.0
    # A scalar is an array of one element.
    shape = array.shape or (1,)
    total, losses, dlogits = backend.binary_cross_entropy(
        array.reshape(shape),
        targets.reshape(shape),
        weight=class_weight,
        element_weight=None if element_weight is None else element_weight.reshape(shape),
        pos_weight=None if pos_weight is None else _as_pos_weight(pos_weight, shape[-1], dtype),
        smoothing=as_fraction(label_smoothing, "label_smoothing"),
        gradient=gradient,
        scale=quotient(scale, divisor),
        upstream=None if factors is None else factors.reshape(shape),
        losses=reduced == "none",
        out=None if into is None else into.reshape(shape),
    )
    if losses is None:
        loss = dtype.type(quotient(total, divisor) if array.size or reduced == "sum" else math.nan)
    else:
        loss = losses.reshape(array.shape)[()]
    if dlogits is None:
        return in_kind(loss), None
    return in_kind(loss), out if out is not None else in_kind(dlogits.reshape(array.shape))


# Real numbers in the shape of the logits; bool is yes or no.
def _as_targets(target: Any, logits: FloatArray) -> FloatArray:
    array = as_numpy(target, "target")
    if array.dtype.kind != "b":
        array = as_reals(array, "target", "real numbers or bool")
    return as_like(array, logits, "target")


# A weight for each element, or for each class of the last axis.
def _as_weights(
    weight: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[FloatArray | None, FloatArray | None]:
    array = as_reals(weight, "weight")
    try:
        full = np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"weight: received shape {array.shape}; accepted: one that broadcasts to {shape}") from None
    if shape and array.size == 1:
        return None, np.full(shape[-1], array.reshape(()), dtype)
    if shape and array.ndim and array.shape[-1] == shape[-1] == array.size:
        return None, np.ascontiguousarray(array.reshape(-1), dtype)
    return np.asarray(full, dtype), None


# A factor for each class of the last axis, or one for all.
def _as_pos_weight(pos_weight: Any, classes: int, dtype: np.dtype[Any]) -> FloatArray:
    array = as_reals(pos_weight, "pos_weight")
    if array.shape not in ((), (1,), (classes,)):
        raise ValueError(
            f"pos_weight: received shape {array.shape}; accepted: () or ({classes},), a number for each class"
        )
    return np.ascontiguousarray(np.broadcast_to(array, (classes,)), dtype)
