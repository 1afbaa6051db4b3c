"""What is tested over: functions x dtypes x instruction sets x lengths x kinds of rows, and the promised errors."""

from __future__ import annotations

import mlefast as mf
import numpy as np
import reference
from mlefast import _core

ISAS = _core.isas()
DTYPES = [np.float32, np.float64]
LANES = 16  # the widest vector, in float32

# Every length up to two vectors and a bit, the borders of steps, groups, blocks and segments, and awkward ones.
CLASSES = sorted(
    {
        *range(1, 2 * LANES + 2),
        *(n + d for n in (64, 128, 256, 512, 1024, 2048) for d in (-1, 0, 1)),
        *(96, 100, 300, 352, 353, 384, 385, 700, 704, 705, 768, 769, 1000, 4099),
    }
)
LONG_CLASSES = [16383, 16384, 16385, 32000, 50257, 128256]

# The largest errors that are promised, in units in the last place of the dtype (docs/numerics.md): logsumexp and the
# loss of a row in which nobody leads by far, and what is added for entries whose own exponent was rounded.
ULP = 4.0
ULP_PER_GAP = 0.5


def rows(kind: str, n: int, classes: int, dtype, seed: int = 0):
    """Rows of logits of one kind. Outliers are in all of them, else the tests would mean nothing."""
    r = np.random.default_rng([seed, n, classes])
    x = 3 * r.standard_normal((n, classes))
    if kind == "ordinary":
        x[r.random((n, classes)) < 0.05] *= 5
    elif kind == "confident":  # one logit leads by 10 to 80
        x[np.arange(n), r.integers(0, classes, n)] += np.linspace(10, 80, n) + np.abs(x).max()
    elif kind == "offset":
        x += r.choice([-1e7, 1e7], (n, 1))
    elif kind == "masked":
        x[r.random((n, classes)) < 0.5] = -np.inf
        x[:, -1] = 1.5  # never all of them
    elif kind == "wide":  # exponentials down to denormal numbers and to 0
        x *= 40
    elif kind == "equal":
        x[:] = r.standard_normal((n, 1))
    elif kind == "ascending":  # every block has a new maximum
        x = np.sort(x, axis=-1)
    else:
        raise ValueError(kind)
    return x.astype(dtype)


KINDS = ["ordinary", "confident", "offset", "masked", "wide", "equal", "ascending"]


def targets(x, seed: int = 0):
    """Labels: some at the winner, some at random."""
    r = np.random.default_rng([seed, *x.shape])
    y = r.integers(0, x.shape[-1], x.shape[:-1])
    winners = r.random(y.shape) < 0.5
    return np.where(winners, np.argmax(x, -1), y)


def ulps(got, want, dtype):
    """The relative error of each entry, in units of epsilon; of denormal numbers, in the smallest of them."""
    info = np.finfo(dtype)
    got, want = np.asarray(got).astype(reference.LONG), np.asarray(want).astype(reference.LONG)
    with np.errstate(invalid="ignore"):
        unit = np.maximum(np.abs(want) * reference.LONG(info.eps), reference.LONG(info.smallest_subnormal))
        error = np.abs(got - want) / unit
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.where(same, 0, np.where(np.isnan(error), np.inf, error)).astype(np.float64)


def assert_ulps(got, want, dtype, allowed):
    """Every entry within ``allowed`` units of the true value, in the dtype and shape asked for."""
    got = np.asarray(got)
    assert got.dtype == np.dtype(dtype), f"{got.dtype} is not {np.dtype(dtype)}"
    assert got.shape == np.shape(want), f"shape {got.shape} is not {np.shape(want)}"
    error = ulps(got, want, dtype)
    excess = error - allowed
    if not (excess <= 0).all():
        at = np.unravel_index(np.argmax(excess), excess.shape)
        raise AssertionError(
            f"entry {tuple(map(int, at))} is {got[at]!r}, not {np.asarray(want)[at]!r}: {error[at]:.3g} ULP off, "
            f"{np.broadcast_to(allowed, error.shape)[at]:.3g} allowed ({(excess > 0).sum()} of {error.size} entries)"
        )


def check_rows(x, y, dtype, mf=mf):
    """Every function of `mf` on the rows x (N, C) with labels y, against the reference, entry by entry."""
    g = reference.gap(x)
    m, _, others = reference.parts(x)
    # A row's others, and with them small losses, are only as exact as the exponentials that lead among them.
    behind = np.where(np.isneginf(x), np.inf, g)
    lead = np.sort(behind, axis=-1)[:, 1] if x.shape[-1] > 1 else np.zeros(len(x))
    lead = np.where(np.isfinite(lead), lead, 0)
    row = ULP + ULP_PER_GAP * np.where(others < 0.5, lead, 0)
    lse = reference.logsumexp(x)
    scale = np.maximum(np.abs(m), np.log1p(others))  # an lse near 0 may be a difference of larger numbers
    with np.errstate(invalid="ignore", divide="ignore"):
        cancelled = np.where(np.isfinite(m), scale / np.abs(lse), 1)
    assert_ulps(mf.logsumexp(x), lse, dtype, row * cancelled)
    entry = ULP + ULP_PER_GAP * g
    assert_ulps(mf.softmax(x), reference.softmax(x), dtype, entry)
    winner = x == x.max(-1, keepdims=True)
    assert_ulps(mf.log_softmax(x), reference.log_softmax(x), dtype, np.where(winner, row[:, None], ULP))
    loss, gradient = reference.cross_entropy(x, y)
    at_winner = np.take_along_axis(winner, y[:, None], -1)[:, 0]
    allowed_loss = np.where(at_winner, row, ULP)
    assert_ulps(mf.cross_entropy(x, y, reduction="none"), loss, dtype, allowed_loss)
    got_loss, got_gradient = mf.cross_entropy_and_grad(x, y, reduction="none")
    assert_ulps(got_loss, loss, dtype, allowed_loss)
    allowed = entry.copy()
    np.put_along_axis(allowed, y[:, None], np.where(at_winner, row, ULP)[:, None], axis=-1)
    assert_ulps(got_gradient, gradient, dtype, allowed)
