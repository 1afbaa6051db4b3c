"""Divergences between distributions, entropy and information gain."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlefast._arguments import (
    as_axis,
    as_logits,
    as_out,
    as_reals,
    as_upstream,
    check_classes,
    compute_dtype,
)
from mlefast._backends import array_functions, backend_of, device_functions_of
from mlefast._table import evaluate

__all__ = [
    "entropy",
    "entropy_and_grad",
    "information_gain",
    "js_div",
    "js_div_and_grad",
    "kl_div",
    "kl_div_and_grad",
]


def kl_div(target: Any, logits: Any, *, axis: int = -1, reduction: str = "mean") -> Any:
    r"""Kullback-Leibler divergence of the softmax of logits from target probabilities.

    :math:`\mathrm{KL}(t \| p) = \sum_j t_j \log (t_j / p_j)` with :math:`p = \mathrm{softmax}(x)`: the cross-entropy
    less the target's own entropy [1]_.

    Parameters
    ----------
    target : array_like of float, the shape of `logits`
        A probability for each class, taken as given, whatever they sum to; a negative one makes its row's divergence
        NaN. :math:`0 \log 0 = 0`.
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Unnormalised log-probabilities. Lists and integers are taken as float64. -inf masks a class.
    axis : int, default -1
        The class axis.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" is that of the rows, not of the elements. "none" returns the divergence of each row.

    Returns
    -------
    scalar or ndarray
        Of the dtype of `logits` (float32 for halves). +inf where a class has a target but a logit of -inf.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a shape or an option does not fit.

    Notes
    -----
    Where :math:`t_j` and :math:`p_j` are close, the logarithm of their ratio is computed from their difference, and
    that of a winning class from the sum of the others: a divergence near 0 keeps its digits as far as the targets
    themselves have them.

    References
    ----------
    .. [1] S. Kullback, R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22 (1951),
       :doi:`10.1214/aoms/1177729694`.

    Examples
    --------
    >>> import mlefast as mf
    >>> float(mf.kl_div([[0.5, 0.5]], [[1.0, 1.0]]))
    0.0
    """
    return evaluate("kl_div", logits, target, axis=axis, reduction=reduction)[0]


def kl_div_and_grad(
    target: Any, logits: Any, *, axis: int = -1, reduction: str = "mean", upstream: Any = None, out: Any = None
) -> tuple[Any, Any]:
    r"""Divergence of :func:`kl_div` and its gradient with respect to the logits, :math:`p \sum_k t_k - t`.

    Parameters
    ----------
    target, logits, axis, reduction
        As for :func:`kl_div`.
    upstream, out
        As for :func:`cross_entropy_and_grad`.

    Returns
    -------
    divergence : scalar or ndarray
        As :func:`kl_div`.
    gradient : ndarray
        Of the dtype and shape of `logits`.

    Raises
    ------
    TypeError, ValueError
        As :func:`kl_div`, and if `upstream` or `out` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> divergence, gradient = mf.kl_div_and_grad([[1.0, 0.0]], [[0.0, 0.0]])
    >>> gradient
    array([[-0.5,  0.5]])
    """
    divergence, gradient = evaluate(
        "kl_div", logits, target, axis=axis, reduction=reduction, gradient=True, upstream=upstream, out=out
    )
    return divergence, gradient


def js_div(target: Any, logits: Any, *, axis: int = -1, reduction: str = "mean") -> Any:
    r"""Jensen-Shannon divergence between target probabilities and the softmax of logits, in nats.

    :math:`\mathrm{JS}(t, p) = (\mathrm{KL}(t \| m) + \mathrm{KL}(p \| m)) / 2` with :math:`m = (t + p) / 2` and
    :math:`p = \mathrm{softmax}(x)`; from 0 to log 2, and finite whatever is masked [1]_.

    Parameters
    ----------
    target : array_like of float, the shape of `logits`
        A probability for each class, taken as given, whatever they sum to; a negative one makes its row's divergence
        NaN.
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Unnormalised log-probabilities. Lists and integers are taken as float64. -inf masks a class.
    axis : int, default -1
        The class axis.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" is that of the rows, not of the elements. "none" returns the divergence of each row.

    Returns
    -------
    scalar or ndarray
        Of the dtype of `logits` (float32 for halves).

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a shape or an option does not fit.

    Notes
    -----
    With :math:`s = t + p`, :math:`r = |t - p| / s`, :math:`a = |t - p| / \min(t, p)`, :math:`b = |t - p| / \max(t, p)`
    it is the sum of :math:`s\,(r \log(1 + a) - \log(1 + ab/4)) / 4`, in which nothing cancels where both are close.

    References
    ----------
    .. [1] J. Lin, "Divergence Measures Based on the Shannon Entropy", IEEE Transactions on Information Theory 37
       (1991), :doi:`10.1109/18.61115`.

    Examples
    --------
    >>> import math
    >>> import mlefast as mf
    >>> float(mf.js_div([[1.0, 0.0]], [[-math.inf, 0.0]]))
    0.6931471805599453
    """
    return evaluate("js_div", logits, target, axis=axis, reduction=reduction)[0]


def js_div_and_grad(
    target: Any, logits: Any, *, axis: int = -1, reduction: str = "mean", upstream: Any = None, out: Any = None
) -> tuple[Any, Any]:
    r"""Divergence of :func:`js_div` and its gradient with respect to the logits.

    With :math:`g_j = \tfrac12 \log (p_j / m_j)` it is :math:`p_j (g_j - \sum_k p_k g_k)`.

    Parameters
    ----------
    target, logits, axis, reduction
        As for :func:`js_div`.
    upstream, out
        As for :func:`cross_entropy_and_grad`.

    Returns
    -------
    divergence : scalar or ndarray
        As :func:`js_div`.
    gradient : ndarray
        Of the dtype and shape of `logits`.

    Raises
    ------
    TypeError, ValueError
        As :func:`js_div`, and if `upstream` or `out` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> divergence, gradient = mf.js_div_and_grad([[0.5, 0.5]], [[1.0, 1.0]])
    >>> float(divergence), gradient
    (0.0, array([[0., 0.]]))
    """
    divergence, gradient = evaluate(
        "js_div", logits, target, axis=axis, reduction=reduction, gradient=True, upstream=upstream, out=out
    )
    return divergence, gradient


def entropy(p: Any, axis: int = -1) -> Any:
    r"""Shannon entropy of probabilities, in nats: :math:`-\sum_j p_j \log p_j`, with :math:`0 \log 0 = 0`.

    Parameters
    ----------
    p : array_like of float16, bfloat16, float32 or float64
        Probabilities, taken as given, whatever they sum to; a negative one makes its row's entropy NaN. For those of
        logits, see :func:`log_prob_and_entropy`.
    axis : int, default -1
        The axis to sum over.

    Returns
    -------
    scalar or ndarray
        In the shape of `p` without `axis`, of the dtype of `p` (float32 for halves).

    Raises
    ------
    TypeError
        If `p` does not hold real numbers.
    ValueError
        If the axis is empty or out of range.

    Examples
    --------
    >>> import mlefast as mf
    >>> float(mf.entropy([0.25, 0.25, 0.25, 0.25]))
    1.3862943611198906
    """
    return _entropy(p, axis, gradient=False, upstream=None, out=None)[0]


def entropy_and_grad(p: Any, axis: int = -1, *, upstream: Any = None, out: Any = None) -> tuple[Any, Any]:
    r"""Entropy of :func:`entropy` and its gradient with respect to the probabilities, :math:`-(\log p + 1)`.

    Parameters
    ----------
    p, axis
        As for :func:`entropy`.
    upstream : float or array_like in the shape of the entropy, default 1
        Scales the gradient.
    out : ndarray, optional
        Where to write the gradient: C-contiguous, of the dtype and shape of `p`; may be `p` itself.

    Returns
    -------
    entropy : scalar or ndarray
        As :func:`entropy`.
    gradient : ndarray
        Of the dtype and shape of `p`; +inf where a probability is 0.

    Raises
    ------
    TypeError, ValueError
        As :func:`entropy`, and if `upstream` or `out` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.entropy_and_grad([1.0])[1]
    array([-1.])
    """
    return _entropy(p, axis, gradient=True, upstream=upstream, out=out)


def _entropy(p: Any, axis: Any, *, gradient: bool, upstream: Any, out: Any) -> tuple[Any, Any]:
    on_device = device_functions_of(p)
    if on_device is not None:
        return on_device.entropy(p, axis, gradient=gradient, upstream=upstream, out=out)
    backend, in_kind = backend_of(p)
    array = as_logits(p, "p")
    class_axis = as_axis(axis, array.ndim, "p")
    check_classes(array.shape, (class_axis,), "p")
    rows = array.shape[:class_axis] + array.shape[class_axis + 1 :]
    value = np.empty(rows, compute_dtype(array.dtype))
    _, dp = backend.row_function(
        "entropy",
        array,
        class_axis,
        upstream=as_upstream(upstream, "none", rows, array.dtype),
        gradient=gradient,
        out=as_out(out, array, "p"),
        value=value,
    )
    return in_kind(value[()]), out if out is not None or dp is None else in_kind(dp)


def information_gain(counts: Any) -> Any:
    r"""Information that a split gives about the class, in nats: the entropy before it less the mean entropy after it.

    It is the mutual information of the branch and the class,
    :math:`\sum_{bc} \frac{n_{bc}}{n} \log \frac{n_{bc}\, n}{n_b\, n_c}` [1]_.

    Parameters
    ----------
    counts : array_like, shape (..., branches, classes)
        How many samples (or what weight of them) of each class go to each branch; at least 0.

    Returns
    -------
    scalar or ndarray
        float64, in the shape (...); at least 0. NaN where there are no samples. On a CUDA device NaN where a count is
        negative, too, unless ``MLEFAST_CUDA_CHECK=1`` asks for the error.

    Raises
    ------
    TypeError
        If `counts` does not hold real numbers.
    ValueError
        If there are fewer than two dimensions, or a count is negative.

    References
    ----------
    .. [1] J. R. Quinlan, "Induction of Decision Trees", Machine Learning 1 (1986), :doi:`10.1007/BF00116251`.

    Examples
    --------
    >>> import mlefast as mf
    >>> round(float(mf.information_gain([[8, 0], [0, 8]])), 6)
    0.693147
    """
    on_device = device_functions_of(counts)
    if on_device is not None:
        return on_device.information_gain(counts)
    array = as_reals(counts, "counts")
    array_functions.check_tables(tuple(array.shape))
    n = array.astype(np.float64)
    if not (n >= 0).all():
        raise array_functions.negative_count(float(n.min()))
    return array_functions.information_gain(np, n)[()]
