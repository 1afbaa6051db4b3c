"""NumPy arrays, computed by the compiled kernels."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from mlefast import _core
from mlefast._arguments import FloatArray, IntArray, Reduction, compute_dtype, quotient, wrong_target

_TASKS = _core.TASKS
_NO_TARGET = -1  # an ignore_index for tasks that have no target


def softmax(task: str, x: FloatArray, axis: int, out: FloatArray | None) -> FloatArray:
    """Run ``"softmax"`` or ``"log_softmax"``."""
    if out is None:
        out = np.empty_like(x, subok=False)  # with the strides of x: then neither is walked against the grain
    _core.run(_TASKS[task], x, axis, out, None, None, _NO_TARGET, None, None, 1.0)
    return out


def logsumexp(x: FloatArray, axis: int) -> Any:
    """Return the log of the sum of exponentials along an axis."""
    value = np.empty(x.shape[:axis] + x.shape[axis + 1 :], compute_dtype(x.dtype))
    _core.run(_TASKS["logsumexp"], x, axis, None, value, None, _NO_TARGET, None, None, 1.0)
    return value[()]


def cross_entropy(
    logits: FloatArray,
    target: IntArray,
    axis: int,
    *,
    weight: FloatArray | None,
    ignore_index: int,
    reduction: Reduction,
    denominator: float | None,
    gradient: bool,
    upstream: tuple[float, FloatArray | None],
    out: FloatArray | None,
) -> tuple[Any, FloatArray | None]:
    """Return the loss and, if asked for, its gradient."""
    classes = logits.shape[axis]
    position, _, row_weight = _core.check_targets(target, classes, ignore_index, weight)
    if position >= 0:
        raise wrong_target(target, position, classes, ignore_index)

    # The gradient is scaled while it is written, so what the sum is divided by must be known before it is taken.
    divisor = 1.0
    if reduction != "none":
        divisor = denominator if denominator is not None else row_weight if reduction == "mean" else 1.0
    scale, row_upstream = upstream
    dtype = compute_dtype(logits.dtype)
    value = np.empty(target.shape, dtype) if reduction == "none" else None
    if gradient and out is None:
        out = np.empty_like(logits, subok=False)
    total = _core.run(
        _TASKS["cross_entropy_and_grad" if gradient else "cross_entropy"],
        logits,
        axis,
        out if gradient else None,
        value,
        target,
        ignore_index,
        weight,
        row_upstream,
        quotient(scale, divisor),
    )
    loss = cast("Any", dtype.type)(quotient(total, divisor)) if value is None else value[()]
    return loss, out
