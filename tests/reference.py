"""The functions of mlefast in extended precision, written for clarity: what the kernels are compared with.

Everything is computed in ``numpy.longdouble`` (64 or more bits of significand) from the exact values of the inputs, so
that a result's own error is below 1/1000 unit in the last place of float64.
"""

from __future__ import annotations

import numpy as np

LONG = np.longdouble
assert np.finfo(LONG).nmant >= 63, "the reference needs extended precision"


def parts(x):
    """Of rows (..., C): the maximum, the exponentials exp(x - max) and the sum of all of them but one maximum's.

    A row whose maximum is infinite or that holds a NaN has NaN exponentials.
    """
    x = np.asarray(x).astype(LONG)
    m = x.max(axis=-1)
    with np.errstate(invalid="ignore"):
        e = np.where(np.isfinite(m)[..., None], np.exp(x - m[..., None]), LONG(np.nan))
    without = e.copy()
    np.put_along_axis(without, np.argmax(x, axis=-1)[..., None], 0, axis=-1)
    return m, e, without.sum(axis=-1)


def logsumexp(x):
    m, _, others = parts(x)
    return np.where(np.isfinite(m), m + np.log1p(others), m)  # max propagates NaN


def softmax(x):
    _, e, others = parts(x)
    return e / (1 + others)[..., None]


def log_softmax(x):
    m, _, others = parts(x)
    with np.errstate(invalid="ignore"):
        return np.where(
            np.isfinite(m)[..., None], (np.asarray(x).astype(LONG) - m[..., None]) - np.log1p(others)[..., None], np.nan
        )


def cross_entropy(logits, target, *, weight=None, ignore_index=-100, upstream=1.0):
    """The loss and the gradient of each row of logits (..., C)."""
    logits = np.asarray(logits)
    classes = logits.shape[-1]
    target = np.asarray(target)
    ignored = target == ignore_index
    y = np.where(ignored, 0, target)[..., None]
    m, e, others = parts(logits)
    total = 1 + others
    at_target = np.take_along_axis(logits.astype(LONG), y, -1)[..., 0]
    w = np.ones(classes, LONG) if weight is None else np.asarray(weight).astype(LONG)
    with np.errstate(invalid="ignore"):
        loss = w[y[..., 0]] * np.where(np.isfinite(m), (m - at_target) + np.log1p(others), np.nan)
    gradient = e / total[..., None]
    but_target = e.copy()  # the entry at the target is minus what all the other classes have
    np.put_along_axis(but_target, y, 0, axis=-1)
    np.put_along_axis(gradient, y, -(but_target.sum(-1) / total)[..., None], axis=-1)
    gradient *= (w[y[..., 0]] * np.asarray(upstream, LONG))[..., None]
    return np.where(ignored, LONG(0), loss), np.where(ignored[..., None], LONG(0), gradient)


def mean_weight(target, *, weight=None, ignore_index=-100):
    """What reduction="mean" divides by."""
    kept = np.asarray(target)[np.asarray(target) != ignore_index]
    return LONG(kept.size) if weight is None else np.asarray(weight).astype(LONG)[kept].sum()


def gap(x):
    """By how much the largest logit of a row leads each entry: the rounding of that difference limits exp(x - max)."""
    x = np.asarray(x).astype(LONG)
    with np.errstate(invalid="ignore"):
        g = x.max(axis=-1, keepdims=True) - x
    return np.where(np.isfinite(g), g, 0).astype(np.float64)
