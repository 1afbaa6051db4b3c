"""Second derivatives of the cross-entropy, and products with the Jacobians of the softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from mlefast._arguments import (
    as_axis,
    as_denominator,
    as_like,
    as_logits,
    as_out,
    as_reals,
    as_reduction,
    check_classes,
    compute_dtype,
    describe,
)
from mlefast._backends import backend_of, device_functions_of
from mlefast._table import DERIVATIVES, check

__all__ = ["cross_entropy_grad_hess", "cross_entropy_hvp", "log_softmax_vjp", "softmax_vjp"]

# What boosting libraries take for the second derivative: p (1 - p) times a factor, and never less than a floor.
_FACTORS: dict[str, Callable[[int], float]] = {
    "exact": lambda _: 1.0,
    "xgboost": lambda _: 2.0,
    "lightgbm": lambda c: c / (c - 1) if c > 1 else 1.0,
}
_FLOORS = {"exact": 0.0, "xgboost": 1e-16, "lightgbm": 0.0}


def cross_entropy_hvp(
    logits: Any,
    target: Any,
    vector: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
    denominator: float | None = None,
    out: Any = None,
) -> Any:
    r"""Hessian of :func:`cross_entropy` with respect to the logits, times a vector.

    A row's Hessian is :math:`w_y (\mathrm{diag}(p) - p p^\top)`; its product with :math:`v` is
    :math:`w_y\,p \circ (v - p^\top v)`, divided by the denominator of the reduction. The matrix never exists.

    Parameters
    ----------
    logits, target, axis, weight, ignore_index, label_smoothing, z_loss, softcap, temperature, denominator
        As for :func:`cross_entropy`.
    vector : array_like of float, the shape of `logits`
        :math:`v`.
    reduction : {"mean", "sum", "none"}, default "mean"
        That of the loss. "none" gives each row's own product, as "sum" does.
    out : ndarray, optional
        Where to write the product: C-contiguous, of the dtype and shape of `logits`; may be `logits` itself.

    Returns
    -------
    ndarray
        Of the dtype and shape of `logits`. Exactly 0 for masked classes and ignored rows.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`cross_entropy`, and if `vector` or `out` does not fit; nothing is written then.

    Notes
    -----
    With `softcap` the second derivative of the cap times the gradient is in it; with `z_loss` its own curvature. Where
    one class is nearly certain, :math:`v - p^\top v` is corrected by what rounding :math:`p^\top v` loses.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.cross_entropy_hvp([[0.0, 0.0]], [0], [[1.0, 0.0]])
    array([[ 0.25, -0.25]])
    """
    options = {
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "softcap": softcap,
        "temperature": temperature,
    }
    on_device = device_functions_of(logits)
    if on_device is not None:
        return on_device.hessian_product(
            logits,
            target,
            vector,
            axis=axis,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            denominator=denominator,
            out=out,
            options=options,
        )
    backend, in_kind = backend_of(logits)
    of = check(DERIVATIVES["cross_entropy_hvp"], logits, target, axis, weight, ignore_index, options)
    reduced = as_reduction(reduction)
    product = backend.hessian_product(
        of,
        as_like(as_reals(vector, "vector"), of.logits, "vector", "that of logits"),
        reduction=reduced,
        denominator=as_denominator(denominator, reduced),
        out=as_out(out, of.logits),
    )
    return in_kind(product) if out is None else out


def cross_entropy_grad_hess(
    logits: Any,
    target: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    convention: Literal["exact", "xgboost", "lightgbm"] = "exact",
) -> tuple[Any, Any]:
    r"""Gradient of each row's cross-entropy and the diagonal of its Hessian, for boosting.

    They are :math:`s\,w_y (p - \mathrm{onehot}(y))` and :math:`s\,w_y\,p \circ (1 - p)`, never divided by the number of
    rows; :math:`s` is the row's weight.

    Parameters
    ----------
    logits, target, axis, weight, ignore_index, label_smoothing
        As for :func:`cross_entropy`.
    sample_weight : array_like, the shape of `logits` without `axis`, optional
        :math:`s`.
    convention : {"exact", "xgboost", "lightgbm"}, default "exact"
        What stands for the second derivative: :math:`p (1 - p)`; XGBoost's :math:`\max(2 p (1 - p), 10^{-16})`;
        LightGBM's :math:`p (1 - p)\,C / (C - 1)`.

    Returns
    -------
    gradient : ndarray
        Of the dtype and shape of `logits`, which is the shape that both libraries take from a custom objective.
    hessian : ndarray
        In the same shape, of the dtype of the loss. Exactly 0 for ignored rows.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`cross_entropy`, and if `sample_weight` or `convention` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.cross_entropy_grad_hess([[0.0, 0.0]], [1])
    (array([[ 0.5, -0.5]]), array([[0.25, 0.25]]))
    """
    if convention not in _FACTORS:
        raise ValueError(f"convention: received {describe(convention)}; accepted: {', '.join(map(repr, _FACTORS))}")
    options = {"label_smoothing": label_smoothing}
    on_device = device_functions_of(logits)
    if on_device is not None:
        return on_device.gradient_and_hessian(
            logits,
            target,
            axis=axis,
            weight=weight,
            ignore_index=ignore_index,
            sample_weight=sample_weight,
            hessian=_FACTORS[convention],
            floor=_FLOORS[convention],
            options=options,
        )
    backend, in_kind = backend_of(logits)
    of = check(DERIVATIVES["cross_entropy_grad_hess"], logits, target, axis, weight, ignore_index, options)
    row_weight = None
    if sample_weight is not None:
        row_weight = as_reals(sample_weight, "sample_weight")
        if row_weight.shape != of.rows:
            raise ValueError(f"sample_weight: received shape {row_weight.shape}; accepted: {of.rows}, one for each row")
        row_weight = np.ascontiguousarray(row_weight, compute_dtype(of.logits.dtype))
    gradient, hessian = backend.gradient_and_hessian(
        of, row_weight, _FACTORS[convention](of.classes), _FLOORS[convention]
    )
    return in_kind(gradient), in_kind(hessian)


def softmax_vjp(y: Any, upstream: Any, axis: int = -1, *, out: Any = None) -> Any:
    r"""Vector-Jacobian product of the softmax: :math:`y \circ (u - \sum_k u_k y_k)`.

    Parameters
    ----------
    y : array_like of float16, bfloat16, float32 or float64
        What :func:`softmax` returned.
    upstream : array_like, the shape of `y`
        :math:`u`, the gradient of what follows with respect to `y`.
    axis : int, default -1
        The axis of the softmax.
    out : ndarray, optional
        Where to write the result: C-contiguous, of the dtype and shape of `y`; may be `y` itself.

    Returns
    -------
    ndarray
        The gradient with respect to the logits, of the dtype and shape of `y`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a shape, the axis or `out` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.softmax_vjp([0.5, 0.5], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    return _product("softmax_vjp", y, upstream, axis, out)


def log_softmax_vjp(y: Any, upstream: Any, axis: int = -1, *, out: Any = None) -> Any:
    r"""Vector-Jacobian product of the log-softmax: :math:`u - e^y \sum_k u_k`.

    Parameters
    ----------
    y : array_like of float16, bfloat16, float32 or float64
        What :func:`log_softmax` returned.
    upstream : array_like, the shape of `y`
        :math:`u`, the gradient of what follows with respect to `y`.
    axis : int, default -1
        The axis of the log-softmax.
    out : ndarray, optional
        Where to write the result: C-contiguous, of the dtype and shape of `y`; may be `y` itself.

    Returns
    -------
    ndarray
        The gradient with respect to the logits, of the dtype and shape of `y`.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax_vjp`.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.log_softmax_vjp(mf.log_softmax([0.0, 0.0]), [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    return _product("log_softmax_vjp", y, upstream, axis, out)


def _product(name: str, y: Any, upstream: Any, axis: Any, out: Any) -> Any:
    on_device = device_functions_of(y)
    if on_device is not None:
        return on_device.product(name, y, upstream, axis, out)
    backend, in_kind = backend_of(y)
    array = as_logits(y, "y")
    class_axis = as_axis(axis, array.ndim, "y")
    check_classes(array.shape, (class_axis,), "y")
    vector = as_like(as_reals(upstream, "upstream"), array, "upstream", "that of y")
    into = as_out(out, array, "y")
    _, result = backend.row_function(name, array, class_axis, v=vector, gradient=True, out=into)
    return in_kind(result) if out is None else out
