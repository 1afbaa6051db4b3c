"""What is computed by an array module's own functions: NumPy's, or those of one that speaks like it."""

from __future__ import annotations

from typing import Any

import numpy as np


def information_gain(xp: Any, counts: Any) -> Any:
    """Return the mutual information of each table's branches and classes; NaN if a count is below 0, or all are 0.

    Parameters
    ----------
    xp : module
        NumPy, or CuPy.
    counts : ndarray of float64, shape (..., branches, classes)

    Returns
    -------
    ndarray of float64, shape (...)
    """
    if 0 in counts.shape[-2:]:
        return xp.full(counts.shape[:-2], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        joint = counts / counts.sum((-2, -1), keepdims=True)
        apart = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
        # sum of (log(joint / apart) - 1) joint + apart: each term is at least 0, so that no gain is found where there
        # is none.
        terms = xp.where(joint > 0, joint * xp.log(joint / apart), 0) + (apart - joint)
        gain = xp.maximum(terms.sum((-2, -1)), 0)
    return xp.where((counts >= 0).all((-2, -1)), gain, np.nan)


def check_tables(shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a shape is that of tables."""
    if len(shape) < 2:
        raise ValueError(f"counts: received shape {shape}; accepted: (..., branches, classes)")


def negative_count(least: float) -> ValueError:
    """Say what is wrong with a table's counts."""
    return ValueError(f"counts: received {least}; accepted: numbers >= 0")
