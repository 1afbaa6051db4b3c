"""Softmax, its logarithm, and the logarithm of its denominator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlefast._arguments import FloatArray, as_axes, as_logits, as_out, as_positive, check_classes, compute_dtype
from mlefast._backends import backend_of, device_functions_of
from mlefast._core import TASKS, plain_rows

__all__ = ["log_softmax", "logsumexp", "softmax"]


def softmax(x: Any, axis: int | Sequence[int] | None = -1, *, temperature: float = 1.0, out: Any = None) -> Any:
    r"""Softmax along an axis: :math:`p_j = e^{x_j / T} / \sum_k e^{x_k / T}`.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        Logits. Lists and integers are taken as float64.
    axis : int, tuple of int or None, default -1
        The axis or axes over which the entries sum to 1; None: all of them.
    temperature : float, default 1
        :math:`T > 0`. With another than 1 the quotients are rounded to the dtype that is computed in, in a copy.
    out : ndarray, optional
        Where to write the result: C-contiguous, of the dtype and shape of `x`; may be `x` itself.

    Returns
    -------
    ndarray
        Probabilities, of the dtype and shape of `x`. A masked entry (-inf) is exactly 0. Where the largest logit is
        infinite or there is a NaN, the whole distribution is NaN.

    Raises
    ------
    TypeError
        If `x` holds booleans, complex numbers or anything that is no number.
    ValueError
        If the axis is empty or out of range, or if `out` does not fit; nothing is written then.

    Notes
    -----
    An entry is at most 4 + g/2 units in the last place from the true value, g being the largest logit minus its own:
    :math:`e^{x_j - m}` is divided by the sum, which is more accurate than :math:`e^{x_j - \mathrm{lse}}` [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax functions", IMA
       Journal of Numerical Analysis 41 (2021), :doi:`10.1093/imanum/draa038`.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.softmax([0.0, 0.0])
    array([0.5, 0.5])
    """
    return _distribution("softmax", x, axis, temperature, out)


def log_softmax(x: Any, axis: int | Sequence[int] | None = -1, *, temperature: float = 1.0, out: Any = None) -> Any:
    r"""Logarithm of the softmax along an axis: :math:`x_j / T - \log \sum_k e^{x_k / T}`.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        Logits. Lists and integers are taken as float64.
    axis : int, tuple of int or None, default -1
        The axis or axes over which the probabilities sum to 1; None: all of them.
    temperature : float, default 1
        As for :func:`softmax`.
    out : ndarray, optional
        Where to write the result: C-contiguous, of the dtype and shape of `x`; may be `x` itself.

    Returns
    -------
    ndarray
        Log-probabilities, of the dtype and shape of `x`. A masked entry stays -inf. A winner that leads by 25 has
        -1.4e-11 times the number of others, not 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.log_softmax([30.0, 0.0])
    array([-9.35762297e-14, -3.00000000e+01])
    """
    return _distribution("log_softmax", x, axis, temperature, out)


def logsumexp(x: Any, axis: int | Sequence[int] | None = -1, *, keepdims: bool = False) -> Any:
    r"""Logarithm of the sum of exponentials along an axis: :math:`\log \sum_k e^{x_k}`, which never overflows.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64
        Lists and integers are taken as float64.
    axis : int, tuple of int or None, default -1
        The axis or axes to sum over; None: all of them.
    keepdims : bool, default False
        Keep the summed axes with length 1.

    Returns
    -------
    ndarray or scalar
        Of the dtype of `x` (float32 for halves). -inf where all entries are -inf, +inf where one is +inf, NaN where
        one is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`.

    Examples
    --------
    >>> import mlefast as mf
    >>> float(mf.logsumexp([1000.0, 1000.0]))
    1000.6931471805599
    """
    if type(axis) is int and axis == -1 and keepdims is False:
        plain = plain_rows(TASKS["logsumexp"], x, None)
        if plain is not None:
            return plain
    on_device = device_functions_of(x)
    if on_device is not None:
        return on_device.logsumexp(x, axis, keepdims)
    backend, in_kind = backend_of(x)
    array = as_logits(x, "x")
    axes = as_axes(axis, array.ndim)
    check_classes(array.shape, axes, "x")
    if not axes:  # no axis to sum over: log(exp(x))
        return in_kind(array.astype(compute_dtype(array.dtype))[()])
    rows, class_axis, _ = _class_axis_of(array, axes)
    value = backend.logsumexp(rows, class_axis)
    if keepdims:
        value = value.reshape([1 if d in axes else n for d, n in enumerate(array.shape)])
    return in_kind(value)


def _distribution(task: str, x: Any, axis: int | Sequence[int] | None, temperature: Any, out: Any) -> Any:
    if type(axis) is int and axis == -1 and type(temperature) is float and temperature == 1.0:
        plain = plain_rows(TASKS[task], x, out)
        if plain is not None:
            return plain
    on_device = device_functions_of(x)
    if on_device is not None:
        return on_device.softmax(task, x, axis, as_positive(temperature, "temperature"), out)
    if not isinstance(temperature, float) or temperature != 1.0:
        return _at_temperature(task, x, axis, as_positive(temperature, "temperature"), out)
    backend, in_kind = backend_of(x)
    array = as_logits(x, "x")
    axes = as_axes(axis, array.ndim)
    check_classes(array.shape, axes, "x")
    into = as_out(out, array, "x")
    if len(axes) == 1:
        result = backend.softmax(task, array, axes[0], into)
    else:
        rows, class_axis, back = _class_axis_of(array, axes)
        result = back(backend.softmax(task, rows, class_axis, None))
        if into is not None:
            into[...] = result
            result = into
    return in_kind(result) if out is None else out


def _at_temperature(task: str, x: Any, axis: Any, temperature: float, out: Any) -> Any:
    _, in_kind = backend_of(x)
    array = as_logits(x, "x")
    into = as_out(out, array, "x")
    wide = compute_dtype(array.dtype)  # halves are divided, and their softmax taken, in float32
    result = np.divide(array, np.asarray(temperature, wide), dtype=wide, order="C")
    result = _distribution(task, result, axis, 1.0, None if array.ndim == 0 else result)
    if into is None:
        return in_kind(np.asarray(result).astype(array.dtype, copy=False))
    into[...] = result
    return out


def _class_axis_of(array: FloatArray, axes: tuple[int, ...]) -> tuple[FloatArray, int, Any]:
    """Several axes as one, which one it is, and the function that restores a result's shape."""
    if len(axes) == 1:
        return array, axes[0], lambda result: result
    others = [d for d in range(array.ndim) if d not in axes]
    order = [*others, *axes]
    moved = array.transpose(order)
    shape = (*(array.shape[d] for d in others), math.prod(array.shape[d] for d in axes))
    inverse = sorted(range(array.ndim), key=order.__getitem__)
    return moved.reshape(shape), len(others), lambda result: result.reshape(moved.shape).transpose(inverse)
