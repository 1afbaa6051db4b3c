"""NumPy arrays, computed by the compiled kernels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlefast import _core
from mlefast._arguments import Array, FloatArray, IntArray, Reduction, compute_dtype, quotient, wrong_target

if TYPE_CHECKING:
    from mlefast._backends import Factors
    from mlefast._table import Checked

_TASKS = _core.TASKS
_LOSSES = _core.LOSSES
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


def loss(
    name: str,
    of: Checked,
    *,
    reduction: Reduction,
    denominator: float | None,
    gradient: bool,
    upstream: Factors,
    out: FloatArray | None,
    byproducts: tuple[str, ...],
) -> tuple[Any, ...]:
    """Return a loss of the table, its gradient (None unless asked for) and the by-products."""
    # The gradient is scaled while it is written, so what the sum is divided by must be known before it is taken.
    count = _mean_denominator(of)
    divisor = 1.0
    if reduction != "none":
        divisor = denominator if denominator is not None else count if reduction == "mean" else 1.0
    scale, row_upstream = upstream
    dtype = compute_dtype(of.logits.dtype)
    value = np.empty(of.rows, dtype) if reduction == "none" else None
    scale = quotient(scale, divisor)
    extra: dict[str, Any] = {}
    if not byproducts and not of.options and name == "cross_entropy" and of.target.dtype.kind in "iu":
        into = None
        if gradient:
            direct = is_apart(out, of.target, of.weight, row_upstream)
            into = out if direct else np.empty_like(of.logits, subok=False)
        total = _core.run(
            _TASKS["cross_entropy_and_grad" if gradient else "cross_entropy"],
            of.logits,
            of.axis,
            into,
            value,
            of.target,
            of.ignore_index,
            of.weight,
            row_upstream,
            scale,
        )
        if out is None:
            out = into
        elif into is not None and into is not out:
            out[...] = into
    else:
        if "lse" in byproducts:
            extra["lse"] = np.empty(of.rows, dtype)
        if "hit" in byproducts:
            extra["hit"] = np.empty(of.rows, np.bool_)
        outputs = Outputs(of.logits, out, gradient, of.target, of.weight, row_upstream)
        total = _core.run_loss(
            _LOSSES[name],
            outputs.x,
            of.axis,
            out=outputs.out,
            **target_arguments(of, outputs.x),
            upstream=row_upstream,
            value=value,
            second_value=extra.get("lse"),
            hit=extra.get("hit"),
            scale=scale,
        )
        out = outputs.finish()
    result = cast("Any", dtype.type)(quotient(total, divisor)) if value is None else value[()]
    return result, out, *(extra[name][()] for name in byproducts)


def hessian_product(
    of: Checked, vector: FloatArray, *, reduction: Reduction, denominator: float | None, out: FloatArray | None
) -> FloatArray:
    """Return the Hessian of a cross-entropy times a vector."""
    count = _mean_denominator(of)
    divisor = denominator if denominator is not None else count if reduction == "mean" else 1.0
    outputs = Outputs(of.logits, out, True, of.target, of.weight, vector)
    _core.run_loss(
        _LOSSES["cross_entropy_hvp"],
        outputs.x,
        of.axis,
        out=outputs.out,
        **target_arguments(of, outputs.x),
        v=like(outputs.x, vector),
        scale=quotient(1.0, divisor),
    )
    return cast("FloatArray", outputs.finish())


def gradient_and_hessian(
    of: Checked, row_weight: FloatArray | None, hessian: float, floor: float
) -> tuple[FloatArray, FloatArray]:
    """Return each row's gradient and the diagonal of its Hessian."""
    _mean_denominator(of)
    outputs = Outputs(of.logits, None, True)
    second = np.empty_like(outputs.x, compute_dtype(of.logits.dtype), subok=False)
    arguments = target_arguments(of, outputs.x)
    arguments["options"] |= {"hessian": hessian, "floor": floor}
    _core.run_loss(
        _LOSSES["cross_entropy_grad_hess"],
        outputs.x,
        of.axis,
        out=outputs.out,
        **arguments,
        second=second,
        upstream=row_weight,
    )
    return cast("FloatArray", outputs.finish()), second


def log_prob(
    of: Checked,
    *,
    entropy: bool,
    gradient: bool,
    upstream: Factors,
    entropy_upstream: Factors,
    out: FloatArray | None,
) -> tuple[Any, Any, FloatArray | None]:
    """Return log-probabilities, entropies (None unless asked for) and the gradient of their weighted sum."""
    _mean_denominator(of)
    dtype = compute_dtype(of.logits.dtype)
    value = np.empty(of.rows, dtype)
    second = np.empty(of.rows, dtype) if entropy else None
    outputs = Outputs(of.logits, out, gradient, of.target, upstream[1], entropy_upstream[1])
    _core.run_loss(
        _LOSSES["log_prob"],
        outputs.x,
        of.axis,
        out=outputs.out,
        **target_arguments(of, outputs.x),
        value=value,
        second_value=second,
        scale=upstream[0],
        upstream=upstream[1],
        second_scale=entropy_upstream[0] if entropy else 0.0,
        second_upstream=entropy_upstream[1],
    )
    return value[()], None if second is None else second[()], outputs.finish()


def row_function(
    name: str,
    x: FloatArray,
    axis: int,
    *,
    v: FloatArray | None = None,
    upstream: Factors = (1.0, None),
    gradient: bool = False,
    out: FloatArray | None = None,
    value: FloatArray | None = None,
) -> tuple[float, FloatArray | None]:
    """Run a function of rows without a target; return the sum of its values and its output."""
    outputs = Outputs(x, out, gradient, v, upstream[1])
    total = _core.run_loss(
        _LOSSES[name],
        outputs.x,
        axis,
        out=outputs.out,
        v=None if v is None else like(outputs.x, v),
        value=value,
        scale=upstream[0],
        upstream=upstream[1],
    )
    return total, outputs.finish()


def binary_cross_entropy(
    logits: FloatArray,
    target: FloatArray,
    *,
    weight: FloatArray | None,
    element_weight: FloatArray | None,
    pos_weight: FloatArray | None,
    smoothing: float,
    gradient: bool,
    scale: float,
    upstream: FloatArray | None,
    losses: bool,
    out: FloatArray | None,
) -> tuple[float, FloatArray | None, FloatArray | None]:
    """Return the sum of all losses, each of them if asked for, and the gradient.

    Elements are worked on as rows of any convenient length; factors of the last axis's classes are repeated to fill it.
    """
    per_class = weight is not None or pos_weight is not None
    others = (target, weight, element_weight, pos_weight, upstream)
    outputs = Outputs(np.ascontiguousarray(logits) if per_class else logits, out, gradient, *others)
    x = outputs.x
    second = np.empty_like(x, compute_dtype(x.dtype), subok=False) if losses else None
    arrays: dict[str, Array | None] = {
        "out": outputs.out,
        "second": second,
        "probabilities": like(x, target),
        "u": None if element_weight is None else like(x, element_weight),
        "v": None if upstream is None else like(x, upstream),
    }
    classes = x.shape[-1] if per_class else 1
    length = classes * max(1, 4096 // classes)
    factors = {
        name: None if factor is None else np.tile(factor, length // classes)
        for name, factor in (("weight", weight), ("positive", pos_weight))
    }
    options = {"keep": 1 - smoothing, "spread": smoothing / 2} if smoothing else {}
    total = 0.0
    flat = {name: None if a is None else in_memory_order(a) for name, a in arrays.items()}
    flat_x = in_memory_order(x)
    whole = flat_x.size // length * length
    for part, shape in ((slice(0, whole), (-1, length)), (slice(whole, None), (1, -1))):
        rows = flat_x[part]
        if rows.size == 0:
            continue
        columns = rows.size if shape[0] == 1 else length  # of the factors
        total += _core.run_loss(
            _LOSSES["binary_cross_entropy"],
            rows.reshape(shape),
            1,
            **{name: None if a is None else a[part].reshape(shape) for name, a in flat.items()},
            **{name: None if f is None else f[:columns] for name, f in factors.items()},
            scale=scale,
            options=options,
        )
    return total, second, outputs.finish()


# ---- layouts


def _mean_denominator(of: Checked) -> float:
    """Return what a mean divides by; raise for targets that are out of range."""
    if of.target.dtype.kind not in "iu":
        return float(math.prod(of.rows))
    return weigh_targets(of.target, of.classes, of.ignore_index, of.weight, of.target_name)[1]


def weigh_targets(
    target: IntArray, classes: int, ignore_index: int, weight: FloatArray | None, name: str = "target"
) -> tuple[int, float]:
    """Return how many rows are not ignored and the sum of their weights; raise for a target that is out of range."""
    position, count, total = _core.check_targets(target, classes, ignore_index, weight)
    if position >= 0:
        raise wrong_target(target, position, classes, ignore_index, name)
    return count, total


def target_arguments(of: Checked, x: FloatArray) -> dict[str, Any]:
    """Return the arguments of ``run_loss`` that a target and its options make."""
    is_index = of.target.dtype.kind in "iu"
    return {
        "target" if is_index else "probabilities": of.target if is_index else like(x, of.target),
        "ignore_index": of.ignore_index,
        "weight": of.weight,
        "options": dict(of.options),
    }


def same_layout(a: Array, b: Array) -> bool:
    """Whether elements of one index are equally far from the first in both arrays."""
    return all(n < 2 or s * b.itemsize == t * a.itemsize for n, s, t in zip(a.shape, a.strides, b.strides))


def like(x: Array, array: Array) -> Array:
    """Return an array with the layout of `x`: itself, or a copy."""
    if same_layout(x, array):
        return array
    copy = np.empty_like(x, array.dtype, subok=False)
    copy[...] = array
    return copy


def in_memory_order(array: Array) -> Array:
    """Return a dense array's elements as they follow each other in memory, without a copy."""
    order = sorted(range(array.ndim), key=lambda d: (-array.strides[d], array.shape[d] != 1))
    return array.transpose(order).reshape(-1)


def is_apart(out: Array | None, *others: Array | None) -> bool:
    """Whether there is an `out` that shares no memory with what is read besides the logits, which may be read later."""
    return out is not None and not any(other is not None and np.may_share_memory(out, other) for other in others)


class Outputs:
    """Logits and an output of one layout, whatever the layout of what was given.

    The kernels of losses with several arrays walk all of them by the same strides. Logits that have gaps are copied;
    where `out` is laid out differently, or is the memory of another array that is read, the result is copied into it.
    """

    def __init__(self, logits: FloatArray, out: FloatArray | None, wanted: bool, *others: Array | None) -> None:
        dense = np.empty_like(logits, subok=False)  # takes no memory until it is written to
        self.x = logits
        if not same_layout(logits, dense):
            dense[...] = logits
            self.x = dense
        self.target = out if wanted else None
        self.out: FloatArray | None = None
        if wanted:
            direct = out is not None and same_layout(self.x, out) and is_apart(out, *others)
            self.out = out if direct else np.empty_like(self.x, subok=False)

    def finish(self) -> FloatArray | None:
        """Return the output, where it was to be written."""
        if self.target is None or self.out is self.target:
            return self.out
        self.target[...] = cast("FloatArray", self.out)
        return self.target
