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


# ---- the losses of python/mlefast/_table.py and what is computed by the same kernels, over rows (..., C)


def times(a, b):
    """a * b, and 0 where a is 0: 0 log 0 = 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(a == 0, LONG(0), a * b)


def transformed(x, softcap=None, temperature=1.0):
    """The logits after softcap and temperature."""
    x = np.asarray(x).astype(LONG)
    if softcap is not None:
        x = LONG(softcap) * np.tanh(x / LONG(softcap))
    return x / LONG(temperature)


def masses(shape, target, *, weight=None, label_smoothing=0.0):
    """What a loss puts on each class: smoothed targets times class weights."""
    classes = shape[-1]
    target = np.asarray(target)
    t = target.astype(LONG)
    if target.dtype.kind != "f":
        t = np.zeros(shape, LONG)
        np.put_along_axis(t, np.where(target < 0, 0, target)[..., None], 1, axis=-1)
    smoothing = LONG(np.float64(label_smoothing))
    t = t * (1 - smoothing) + smoothing / classes
    return t if weight is None else t * np.asarray(weight).astype(LONG)


def full_cross_entropy(
    logits,
    target,
    *,
    weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    softcap=None,
    temperature=1.0,
):
    """The loss and the gradient of each row with every option, and its lse."""
    z = transformed(logits, softcap, temperature)
    m, e, others = parts(z)
    mass = masses(z.shape, target, weight=weight, label_smoothing=label_smoothing)
    total = mass.sum(-1)
    lse = m + np.log1p(others)
    loss = times(mass, m[..., None] - z).sum(-1) + total * np.log1p(others) + LONG(z_loss) * lse**2
    p = e / (1 + others)[..., None]
    factor = total + 2 * LONG(z_loss) * lse
    gradient = factor[..., None] * p - mass
    # Of a winner 1 - p is taken from the others, so that the reference itself loses nothing there.
    wins = (np.asarray(logits) == np.asarray(logits).max(-1, keepdims=True)) & (m == z.max(-1))[..., None]
    beside = (others / (1 + others))[..., None]
    gradient = np.where(wins, (factor[..., None] - mass) - factor[..., None] * beside, gradient)
    slope = np.full(z.shape, 1 / LONG(temperature))
    if softcap is not None:
        slope = slope * (1 - np.tanh(np.asarray(logits).astype(LONG) / LONG(softcap)) ** 2)
    gradient = gradient * slope
    if np.asarray(target).dtype.kind != "f":
        ignored = np.asarray(target) == ignore_index
        loss, gradient = np.where(ignored, LONG(0), loss), np.where(ignored[..., None], LONG(0), gradient)
    return loss, gradient, lse


def focal_loss(logits, target, *, gamma=2.0, weight=None, ignore_index=-100):
    target = np.asarray(target)
    ignored = target == ignore_index
    y = np.where(ignored, 0, target)
    nll, to_logits = cross_entropy(logits, y, ignore_index=-1)
    p = np.exp(-nll)
    rest = -np.expm1(-nll)
    w = np.ones(np.shape(logits)[-1], LONG) if weight is None else np.asarray(weight).astype(LONG)
    gamma = LONG(gamma)
    with np.errstate(invalid="ignore", divide="ignore"):
        power = rest**gamma
        by_rest = np.where(rest > 0, nll / rest, 1)
    loss = times(power, nll) * w[y]
    factor = (power + times(gamma * power * p, by_rest)) * w[y]
    return np.where(ignored, LONG(0), loss), np.where(ignored[..., None], LONG(0), factor[..., None] * to_logits)


def kl_div(target, logits):
    t = np.asarray(target).astype(LONG)
    log_p = log_softmax(logits)
    with np.errstate(divide="ignore"):
        value = times(t, np.log(t) - log_p).sum(-1)
    return value, t.sum(-1, keepdims=True) * softmax(logits) - t


def js_div(target, logits):
    t, p = np.asarray(target).astype(LONG), softmax(logits)
    middle = (t + p) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        log_t, log_p = np.log(t / middle), np.log(p / middle)
    value = (times(t, log_t) + times(p, log_p)).sum(-1) / 2
    g = np.where(p > 0, log_p, 0) / 2
    return value, p * (g - (p * g).sum(-1, keepdims=True))


def entropy(p):
    p = np.asarray(p).astype(LONG)
    with np.errstate(divide="ignore"):
        return -times(p, np.log(p)).sum(-1), -(np.log(p) + 1)


def log_prob_and_entropy(logits, index):
    """log p_y, the entropy, and their gradients."""
    m, e, others = parts(logits)
    p = e / (1 + others)[..., None]
    gap = m[..., None] - np.asarray(logits).astype(LONG)
    mean_gap = times(p, gap).sum(-1)
    nll, to_logits = cross_entropy(logits, index, ignore_index=-1)
    return -nll, np.log1p(others) + mean_gap, -to_logits, times(p, gap - mean_gap[..., None])


def binary_cross_entropy(logits, target, *, weight=1.0, pos_weight=1.0, label_smoothing=0.0):
    """The loss and the gradient of each element."""
    x, t = np.asarray(logits).astype(LONG), np.asarray(target).astype(LONG)
    t = t * (1 - LONG(label_smoothing)) + LONG(label_smoothing) / 2
    log = np.log1p(np.exp(-np.abs(x)))
    positive = np.asarray(pos_weight).astype(LONG)
    w = np.asarray(weight).astype(LONG)
    loss = w * (times(t * positive, np.maximum(-x, 0) + log) + times(1 - t, np.maximum(x, 0) + log))
    e = np.exp(-np.abs(x))
    larger, smaller = 1 / (1 + e), e / (1 + e)
    p, rest = np.where(x < 0, smaller, larger), np.where(x < 0, larger, smaller)
    return loss, w * ((1 - t) * p - t * positive * rest)
