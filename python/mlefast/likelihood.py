"""Log-probabilities of chosen classes and the entropy of the distribution, for reinforcement learning and scoring."""

from __future__ import annotations

from typing import Any

from mlefast._arguments import NONE_IGNORED, as_out, as_upstream
from mlefast._backends import backend_of, device_functions_of
from mlefast._table import Loss, check

__all__ = ["log_prob", "log_prob_and_entropy", "log_prob_and_entropy_and_grad", "log_prob_and_grad"]

_ROW = Loss(("index",))


def log_prob(logits: Any, index: Any, axis: int = -1) -> Any:
    r"""Log-probability of one class for each row: :math:`x_y - \log \sum_k e^{x_k}`.

    Parameters
    ----------
    logits : array_like of float16, bfloat16, float32 or float64, shape (..., C, ...)
        Unnormalised log-probabilities. Lists and integers are taken as float64. -inf masks a class.
    index : array_like of int, the shape of `logits` without `axis`
        Classes from 0 to C - 1, such as actions taken or tokens sampled.
    axis : int, default -1
        The class axis.

    Returns
    -------
    scalar or ndarray
        In the shape of `index`, of the dtype of `logits` (float32 for halves).

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If a shape or the axis does not fit.
    IndexError
        If an index is no class.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.log_prob([[0.0, 0.0], [40.0, 0.0]], [0, 0])
    array([-6.93147181e-01, -4.24835426e-18])
    """
    return _log_prob(logits, index, axis)[0]


def log_prob_and_grad(
    logits: Any, index: Any, axis: int = -1, *, upstream: Any = None, out: Any = None
) -> tuple[Any, Any]:
    r"""Log-probabilities of :func:`log_prob` and their gradient with respect to the logits, :math:`[j = y] - p_j`.

    Parameters
    ----------
    logits, index, axis
        As for :func:`log_prob`.
    upstream : float or array_like in the shape of `index`, default 1
        A factor of each row's gradient, such as an advantage.
    out : ndarray, optional
        As for :func:`cross_entropy_and_grad`.

    Returns
    -------
    log_prob : scalar or ndarray
        As :func:`log_prob`.
    gradient : ndarray
        Of the dtype and shape of `logits`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`log_prob`, and if `upstream` or `out` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.log_prob_and_grad([[0.0, 0.0]], [0])[1]
    array([[ 0.5, -0.5]])
    """
    value, _, gradient = _log_prob(logits, index, axis, gradient=True, upstream=upstream, out=out)
    return value, gradient


def log_prob_and_entropy(logits: Any, index: Any, axis: int = -1) -> tuple[Any, Any]:
    r"""Log-probability of one class for each row, and the entropy of the row's distribution, in the same passes.

    Parameters
    ----------
    logits, index, axis
        As for :func:`log_prob`.

    Returns
    -------
    log_prob : scalar or ndarray
        As :func:`log_prob`.
    entropy : scalar or ndarray
        :math:`-\sum_j p_j \log p_j` in nats; masked classes count for 0.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`log_prob`.

    Examples
    --------
    >>> import mlefast as mf
    >>> log_prob, entropy = mf.log_prob_and_entropy([[0.0, 0.0]], [0])
    >>> entropy
    array([0.69314718])
    """
    value, entropy, _ = _log_prob(logits, index, axis, entropy=True)
    return value, entropy


def log_prob_and_entropy_and_grad(
    logits: Any, index: Any, axis: int = -1, *, upstream: Any = None, entropy_upstream: Any = None, out: Any = None
) -> tuple[Any, Any, Any]:
    r"""Log-probabilities, entropies, and the gradient of their weighted sum with respect to the logits.

    With the factors :math:`u` and :math:`v` of a row, the gradient is that of :math:`u \log p_y + v H`:
    :math:`u\,([j = y] - p_j) - v\,p_j (\log p_j + H)`.

    Parameters
    ----------
    logits, index, axis
        As for :func:`log_prob`.
    upstream, entropy_upstream : float or array_like in the shape of `index`, default 1
        Factors of the gradients of the log-probability and of the entropy: for a policy gradient with an entropy bonus,
        the advantages and the bonus.
    out : ndarray, optional
        As for :func:`cross_entropy_and_grad`.

    Returns
    -------
    log_prob, entropy : scalar or ndarray
        As :func:`log_prob_and_entropy`.
    gradient : ndarray
        Of the dtype and shape of `logits`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`log_prob`, and if a factor or `out` does not fit.

    Examples
    --------
    >>> import mlefast as mf
    >>> mf.log_prob_and_entropy_and_grad([[0.0, 0.0]], [0], entropy_upstream=0.01)[2]
    array([[ 0.5, -0.5]])
    """
    return _log_prob(
        logits, index, axis, entropy=True, gradient=True, upstream=upstream, entropy_upstream=entropy_upstream, out=out
    )


def _log_prob(
    logits: Any,
    index: Any,
    axis: Any,
    *,
    entropy: bool = False,
    gradient: bool = False,
    upstream: Any = None,
    entropy_upstream: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    on_device = device_functions_of(logits)
    if on_device is not None:
        return on_device.log_prob(
            logits,
            index,
            axis,
            entropy=entropy,
            gradient=gradient,
            upstream=upstream,
            entropy_upstream=entropy_upstream,
            out=out,
        )
    backend, in_kind = backend_of(logits)
    of = check(_ROW, logits, index, axis, None, NONE_IGNORED, {}, target_name="index")
    dtype = of.logits.dtype
    value, entropies, dlogits = backend.log_prob(
        of,
        entropy=entropy,
        gradient=gradient,
        upstream=as_upstream(upstream, "none", of.rows, dtype),
        entropy_upstream=as_upstream(entropy_upstream, "none", of.rows, dtype, "entropy_upstream"),
        out=as_out(out, of.logits),
    )
    answer = out if out is not None or dlogits is None else in_kind(dlogits)
    return in_kind(value), None if entropies is None else in_kind(entropies), answer
