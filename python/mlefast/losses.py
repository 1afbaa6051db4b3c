"""Losses of classifiers: negative log-likelihoods that take logits, and their gradients."""

from __future__ import annotations

from typing import Any

from mlefast._core import plain_cross_entropy
from mlefast._table import evaluate

__all__ = ["cross_entropy", "cross_entropy_and_grad", "focal_loss", "focal_loss_and_grad"]


def cross_entropy(
    logits: Any,
    target: Any,
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
    return_lse: bool = False,
    return_hit: bool = False,
) -> Any:
    r"""Cross-entropy between targets and the softmax of logits: the negative log-likelihood of class labels.

    For a row of logits :math:`x` with the label :math:`y` it is :math:`w_y (\log \sum_k e^{x_k} - x_y)`. With a
    probability :math:`t_j` for each class it is :math:`\sum_j w_j t_j (\log \sum_k e^{x_k} - x_j)`; a label is the
    one-hot distribution.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Unnormalised log-probabilities, with any strides. Lists and integers are taken as float64. -inf masks a class.
    target : array_like of int in the shape of `logits` without `axis`, or of float in the shape of `logits`
        Class indices from 0 to C - 1, of any integer dtype; or a probability for each class. Probabilities are taken as
        given, whatever they sum to; float32 ones (float64 for float64 logits) are not copied.
    axis : int, default -1
        The class axis.
    weight : array_like, shape (C,), optional
        A factor for each class: :math:`w`.
    ignore_index : int, default -100
        Rows with this target count for nothing: their loss is 0 and their gradient exactly 0, whatever they hold.
        Of class indices only.
    label_smoothing : float from 0 to 1, default 0
        :math:`\varepsilon`: the target distribution :math:`t` becomes :math:`(1 - \varepsilon) t + \varepsilon / C`.
    z_loss : float, default 0
        A factor of :math:`(\log \sum_k e^{z_k})^2`, which is added to each row's loss and not weighted [1]_.
    softcap : float, optional
        :math:`s`: the logits become :math:`s \tanh(x / s)` first. A masked one becomes :math:`-s`.
    temperature : float, default 1
        What the logits are divided by, after `softcap`.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the sum of the losses by the sum of the weights :math:`w_y` of the rows that are not ignored
        (without weights: by their number); with probabilities by the number of rows. "none" returns the loss of each
        row.
    denominator : float, optional
        Divide the sum by this instead, for gradient accumulation or training on several machines.
    return_lse, return_hit : bool, default False
        Return as well, found in the same passes, each row's :math:`\log \sum_k e^{z_k}` of the logits :math:`z` that
        `softcap` and `temperature` make, and whether its first largest logit is the target's (or stands at the first
        largest probability); False for ignored rows.

    Returns
    -------
    loss : scalar or ndarray
        The loss, of the dtype of `logits` (float32 for halves); with ``reduction="none"`` in the shape of
        `logits` without `axis`.
        +inf where the target's own logit is -inf. NaN where the row's largest logit is infinite or one is NaN, and as
        the mean of no rows.
    lse : ndarray, of the dtype of the loss, optional
        With `return_lse`; 0 for ignored rows.
    hit : ndarray of bool, optional
        With `return_hit`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind (booleans, complex numbers).
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
    rounded once. The formulas of weights with smoothing are PyTorch's.

    References
    ----------
    .. [1] A. Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 24 (2023), arXiv:2204.02311.

    Examples
    --------
    >>> import mlefast as mf
    >>> float(mf.cross_entropy([[2.0, 0.0], [0.0, 0.0]], [0, 1]))
    0.4100375958014589
    >>> mf.cross_entropy([[2.0, 0.0]], [[0.5, 0.5]], reduction="none")
    array([1.12692801])
    """
    plain = axis == -1 and weight is None and softcap is None and not (return_lse or return_hit)
    if plain and (label_smoothing, z_loss, temperature) == (0.0, 0.0, 1.0):
        loss = plain_cross_entropy(logits, target, ignore_index, reduction, denominator, False, None)
        if loss is not None:
            return loss
    loss, _, *others = evaluate(
        "cross_entropy",
        logits,
        target,
        axis=axis,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
        denominator=denominator,
        byproducts=_byproducts(return_lse, return_hit),
    )
    return (loss, *others) if others else loss


def cross_entropy_and_grad(
    logits: Any,
    target: Any,
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
    upstream: Any = None,
    out: Any = None,
    return_lse: bool = False,
    return_hit: bool = False,
) -> tuple[Any, ...]:
    r"""Loss of :func:`cross_entropy` and its gradient with respect to the logits, in one pass over them.

    The gradient of a row is :math:`u\,w_y (p - \mathrm{onehot}(y)) / d` with :math:`p = \mathrm{softmax}(x)`, the
    denominator :math:`d` of the reduction and the upstream gradient :math:`u`; with probabilities :math:`t` as targets
    it is :math:`u\,(p \sum_k w_k t_k - w t) / d`.

    Parameters
    ----------
    logits, target, axis, weight, ignore_index, label_smoothing, z_loss, softcap, temperature, reduction, denominator
        As for :func:`cross_entropy`.
    upstream : float or array_like in the shape of the loss, default 1
        The gradient of what follows with respect to this loss; scales the gradient only. Without it
        ``reduction="none"`` gives each row's own gradient.
    out : ndarray, optional
        Where to write the gradient: C-contiguous, of the dtype and shape of `logits`. ``out=logits`` overwrites them.
    return_lse, return_hit : bool, default False
        As for :func:`cross_entropy`; after the gradient.

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
    plain = axis == -1 and weight is None and upstream is None and softcap is None and not (return_lse or return_hit)
    if plain and (label_smoothing, z_loss, temperature) == (0.0, 0.0, 1.0):
        both: tuple[Any, Any] | None = plain_cross_entropy(
            logits, target, ignore_index, reduction, denominator, True, out
        )
        if both is not None:
            return both
    return evaluate(
        "cross_entropy",
        logits,
        target,
        axis=axis,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        temperature=temperature,
        reduction=reduction,
        denominator=denominator,
        byproducts=_byproducts(return_lse, return_hit),
        gradient=True,
        upstream=upstream,
        out=out,
    )


def focal_loss(
    logits: Any,
    target: Any,
    *,
    gamma: float = 2.0,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | None = None,
) -> Any:
    r"""Focal loss of class labels under the softmax of logits: :math:`-w_y (1 - p_y)^\gamma \log p_y`.

    Rows that are classified well count for less than in :func:`cross_entropy` [1]_.

    Parameters
    ----------
    logits, axis, weight, ignore_index, reduction, denominator
        As for :func:`cross_entropy`.
    target : array_like of int, the shape of `logits` without `axis`
        Class indices from 0 to C - 1.
    gamma : float, default 2
        At least 0, which gives the cross-entropy.

    Returns
    -------
    scalar or ndarray
        As :func:`cross_entropy`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`cross_entropy`.

    References
    ----------
    .. [1] T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollár, "Focal Loss for Dense Object Detection", ICCV 2017,
       arXiv:1708.02002.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.focal_loss([[2.0, 0.0], [0.0, 2.0]], [0, 0], reduction="none")
    array([0.00180356, 1.65007818])
    """
    return evaluate(
        "focal_loss",
        logits,
        target,
        gamma=gamma,
        axis=axis,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        denominator=denominator,
    )[0]


def focal_loss_and_grad(
    logits: Any,
    target: Any,
    *,
    gamma: float = 2.0,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    denominator: float | None = None,
    upstream: Any = None,
    out: Any = None,
) -> tuple[Any, Any]:
    r"""Loss of :func:`focal_loss` and its gradient with respect to the logits.

    Parameters
    ----------
    logits, target, gamma, axis, weight, ignore_index, reduction, denominator
        As for :func:`focal_loss`.
    upstream, out
        As for :func:`cross_entropy_and_grad`.

    Returns
    -------
    loss : scalar or ndarray
        As :func:`focal_loss`.
    gradient : ndarray
        Of the dtype and shape of `logits`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`cross_entropy_and_grad`.

    Examples
    --------
    >>> import mlefast as mf
    >>> loss, gradient = mf.focal_loss_and_grad([[0.0, 0.0]], [0])
    >>> gradient
    array([[-0.2982868,  0.2982868]])
    """
    loss, gradient = evaluate(
        "focal_loss",
        logits,
        target,
        gamma=gamma,
        axis=axis,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        denominator=denominator,
        gradient=True,
        upstream=upstream,
        out=out,
    )
    return loss, gradient


def _byproducts(lse: bool, hit: bool) -> tuple[str, ...]:
    return (("lse",) if lse else ()) + (("hit",) if hit else ())
