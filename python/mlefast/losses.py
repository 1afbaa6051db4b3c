"""Losses of classifiers: negative log-likelihoods that take logits, and their gradients."""

from __future__ import annotations

from typing import Any

from mlefast._arguments import (
    as_axis,
    as_denominator,
    as_ignore_index,
    as_logits,
    as_out,
    as_reduction,
    as_target,
    as_upstream,
    as_weight,
    check_classes,
)
from mlefast._backends import backend_of, device_functions_of
from mlefast._core import plain_cross_entropy

__all__ = ["cross_entropy", "cross_entropy_and_grad"]


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | None = None,
) -> Any:
    r"""Negative log-likelihood of class labels under the softmax of logits.

    For a row of logits :math:`x` with the label :math:`y` it is :math:`w_y (\log \sum_k e^{x_k} - x_y)`: the
    cross-entropy between the one-hot distribution of the label and :math:`\mathrm{softmax}(x)`.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Unnormalised log-probabilities, with any strides. Lists and integers are taken as float64. -inf masks a class.
    target : array_like of int, the shape of `logits` without `axis`
        Class indices from 0 to C - 1, of any integer dtype.
    axis : int, default -1
        The class axis.
    weight : array_like, shape (C,), optional
        A factor for each class: :math:`w`.
    ignore_index : int, default -100
        Rows with this target count for nothing: their loss is 0 and their gradient exactly 0, whatever they hold.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum of the losses by the sum of the weights :math:`w_y` of the rows that are not ignored
        (without weights: by their number). "none" returns the loss of each row.
    denominator : float, optional
        Divide the sum by this instead, for gradient accumulation or training on several machines.

    Returns
    -------
    scalar or ndarray
        The loss, of the dtype of `logits` (float32 for halves); with ``reduction="none"`` in the shape of `target`.
        +inf where the target's own logit is -inf. NaN where the row's largest logit is infinite or one is NaN, and as
        the mean of no rows.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind (booleans, complex numbers, floating targets).
    ValueError
        If a shape or an option does not fit.
    IndexError
        If a target is neither a class nor `ignore_index`; negative ones do not wrap. Nothing is written then.

    See Also
    --------
    cross_entropy_and_grad : the loss and its gradient in one pass.

    Notes
    -----
    It is computed as :math:`(m - x_y) + \operatorname{log1p}(\sum_{k \ne \operatorname{argmax}} e^{x_k - m})` with
    :math:`m = \max x`, so that neither large logits nor a confident row cost digits: where one logit leads by 25, the
    loss is 1.4e-11 times the number of others, not 0. Sums over rows are taken in float64, in an order that does not
    depend on the number of threads. Halves (float16, bfloat16) are computed in float32; what is written is its result,
    rounded once.

    Examples
    --------
    >>> import mlefast as mf
    >>> float(mf.cross_entropy([[2.0, 0.0], [0.0, 0.0]], [0, 1]))
    0.4100375958014589
    """
    if axis == -1 and weight is None:
        loss = plain_cross_entropy(logits, target, ignore_index, reduction, denominator, False, None)
        if loss is not None:
            return loss
    loss, _ = _cross_entropy(
        logits, target, axis, weight, ignore_index, reduction, denominator, gradient=False, upstream=None, out=None
    )
    return loss


def cross_entropy_and_grad(
    logits: Any,
    target: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | None = None,
    upstream: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    r"""Loss of :func:`cross_entropy` and its gradient with respect to the logits, in one pass over them.

    The gradient of a row is :math:`u\,w_y (p - \mathrm{onehot}(y)) / d` with :math:`p = \mathrm{softmax}(x)`, the
    denominator :math:`d` of the reduction and the upstream gradient :math:`u`.

    Parameters
    ----------
    logits, target, axis, weight, ignore_index, reduction, denominator
        As for :func:`cross_entropy`.
    upstream : float or array_like in the shape of the loss, default 1
        The gradient of what follows with respect to this loss; scales the gradient only. Without it
        ``reduction="none"`` gives each row's own gradient.
    out : ndarray, optional
        Where to write the gradient: C-contiguous, of the dtype and shape of `logits`. ``out=logits`` overwrites them.

    Returns
    -------
    loss : scalar or ndarray
        As :func:`cross_entropy`.
    gradient : ndarray
        Of the dtype and shape of `logits`. The entry at the target is :math:`-\sum_{k \ne y} p_k`, not
        :math:`p_y - 1`, which would cancel. Exactly 0 for masked classes and ignored rows.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`cross_entropy`, and if `upstream` or `out` does not fit; nothing is written then.

    Notes
    -----
    For large arrays whose gradient is needed but once, ``out=logits`` is the fastest: nothing is allocated, and each
    cache line is read and written in place.

    Examples
    --------
    >>> import numpy as np
    >>> import mlefast as mf
    >>> loss, gradient = mf.cross_entropy_and_grad(np.zeros((1, 4), np.float32), [2])
    >>> gradient
    array([[ 0.25,  0.25, -0.75,  0.25]], dtype=float32)
    """
    if axis == -1 and weight is None and upstream is None:
        both: tuple[Any, Any] | None = plain_cross_entropy(
            logits, target, ignore_index, reduction, denominator, True, out
        )
        if both is not None:
            return both
    return _cross_entropy(
        logits, target, axis, weight, ignore_index, reduction, denominator, gradient=True, upstream=upstream, out=out
    )


def _cross_entropy(
    logits: Any,
    target: Any,
    axis: Any,
    weight: Any,
    ignore_index: Any,
    reduction: Any,
    denominator: Any,
    *,
    gradient: bool,
    upstream: Any,
    out: Any,
) -> tuple[Any, Any]:
    on_device = device_functions_of(logits)
    if on_device is not None:
        return on_device.cross_entropy(
            logits,
            target,
            axis=axis,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            denominator=denominator,
            gradient=gradient,
            upstream=upstream,
            out=out,
        )
    backend, in_kind = backend_of(logits)
    array = as_logits(logits)
    class_axis = as_axis(axis, array.ndim)
    check_classes(array.shape, (class_axis,))
    rows = array.shape[:class_axis] + array.shape[class_axis + 1 :]
    reduced = as_reduction(reduction)
    loss, dlogits = backend.cross_entropy(
        array,
        as_target(target, rows),
        class_axis,
        weight=as_weight(weight, array.shape[class_axis], array.dtype),
        ignore_index=as_ignore_index(ignore_index),
        reduction=reduced,
        denominator=as_denominator(denominator, reduced),
        gradient=gradient,
        upstream=as_upstream(upstream, reduced, rows, array.dtype),
        out=as_out(out, array),
    )
    return in_kind(loss), in_kind(dlogits) if out is None and gradient else out
