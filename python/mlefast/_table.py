"""The table of losses: what each is given and how its options reach the kernels.

A row for each loss of src/rules/term_losses.h that has a row of logits and a target. The functions, the tests and both
backends read it; to add a loss, see CONTRIBUTING.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mlefast._arguments import (
    FloatArray,
    as_axis,
    as_denominator,
    as_fraction,
    as_ignore_index,
    as_logits,
    as_not_negative,
    as_out,
    as_positive,
    as_probabilities,
    as_reduction,
    as_target,
    as_upstream,
    as_weight,
    check_classes,
    is_index_target,
)
from mlefast._backends import backend_of, device_functions_of


@dataclass(frozen=True)
class Option:
    """A number that a loss takes: its check, and what it is to the kernels of ``rules::Options``."""

    check: Callable[[object, str], float]
    to_kernel: Callable[[float, int], dict[str, float]]
    off: float | None  # with which it changes nothing


OPTIONS = {
    "label_smoothing": Option(as_fraction, lambda e, classes: {"keep": 1 - e, "spread": e / classes}, 0.0),
    "z_loss": Option(as_not_negative, lambda z, _: {"z_loss": z}, 0.0),
    "softcap": Option(as_positive, lambda s, _: {"softcap": s}, None),
    "temperature": Option(as_positive, lambda t, _: {"inverse_temperature": 1 / t}, 1.0),
    "gamma": Option(as_not_negative, lambda g, _: {"gamma": g}, 0.0),
}


@dataclass(frozen=True)
class Loss:
    """A row of the table."""

    targets: tuple[Literal["index", "probabilities"], ...]
    options: tuple[str, ...] = ()


CROSS_ENTROPY_OPTIONS = ("label_smoothing", "z_loss", "softcap", "temperature")
BOTH: tuple[Literal["index", "probabilities"], ...] = ("index", "probabilities")

LOSSES = {
    "cross_entropy": Loss(BOTH, CROSS_ENTROPY_OPTIONS),
    "focal_loss": Loss(("index",), ("gamma",)),
    "kl_div": Loss(("probabilities",)),
    "js_div": Loss(("probabilities",)),
}

# What is computed by the same kernels but is no loss: second derivatives, reduced like the loss or not at all.
DERIVATIVES = {
    "cross_entropy_hvp": Loss(BOTH, CROSS_ENTROPY_OPTIONS),
    "cross_entropy_grad_hess": Loss(BOTH, ("label_smoothing",)),
}


def kernel_options(loss: Loss, given: dict[str, Any], classes: int) -> dict[str, float]:
    """Check the options of a loss and translate those that are not off."""
    options: dict[str, float] = {}
    for name in loss.options:
        option = OPTIONS[name]
        value = given.get(name, option.off)
        if value is None and option.off is None:
            continue
        number = option.check(value, name)
        if number != option.off:
            options |= option.to_kernel(number, classes)
    return options


@dataclass
class Checked:
    """The arguments that every function of a row of logits and a target has, as the backends want them."""

    logits: FloatArray
    axis: int
    rows: tuple[int, ...]
    target: Any  # integers in the shape of `rows`, or probabilities
    weight: FloatArray | None
    ignore_index: int
    options: dict[str, float]
    target_name: str = "target"  # what the caller calls it

    @property
    def classes(self) -> int:
        return int(self.logits.shape[self.axis])


def check(
    loss: Loss,
    logits: Any,
    target: Any,
    axis: Any,
    weight: Any,
    ignore_index: Any,
    options: dict[str, Any],
    target_name: str = "target",
) -> Checked:
    """Check what :class:`Checked` holds."""
    array = as_logits(logits)
    class_axis = as_axis(axis, array.ndim)
    check_classes(array.shape, (class_axis,))
    rows = array.shape[:class_axis] + array.shape[class_axis + 1 :]
    classes = array.shape[class_axis]
    # A loss of one kind of target takes it as that, and says so if it is of the other.
    is_index = loss.targets == ("index",) or (loss.targets == BOTH and is_index_target(target, array))
    return Checked(
        logits=array,
        axis=class_axis,
        rows=rows,
        target=as_target(target, rows, target_name) if is_index else as_probabilities(target, array, target_name),
        weight=as_weight(weight, classes, array.dtype),
        ignore_index=as_ignore_index(ignore_index),
        options=kernel_options(loss, options, classes),
        target_name=target_name,
    )


def evaluate(
    name: str,
    logits: Any,
    target: Any,
    *,
    axis: Any = -1,
    weight: Any = None,
    ignore_index: Any = -100,
    reduction: Any = "mean",
    denominator: Any = None,
    gradient: bool = False,
    upstream: Any = None,
    out: Any = None,
    byproducts: tuple[str, ...] = (),
    **options: Any,
) -> tuple[Any, ...]:
    """Return the loss of a row of the table, its gradient (None unless asked for) and the by-products."""
    loss = LOSSES[name]
    on_device = device_functions_of(logits)
    if on_device is not None:
        return on_device.loss(
            name,
            loss,
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
            byproducts=byproducts,
            options=options,
        )
    backend, in_kind = backend_of(logits)
    checked = check(loss, logits, target, axis, weight, ignore_index, options)
    reduced = as_reduction(reduction)
    results = backend.loss(
        name,
        checked,
        reduction=reduced,
        denominator=as_denominator(denominator, reduced),
        gradient=gradient,
        upstream=as_upstream(upstream, reduced, checked.rows, checked.logits.dtype),
        out=as_out(out, checked.logits),
        byproducts=byproducts,
    )
    kinds = [None if result is None else in_kind(result) for result in results]
    if gradient and out is not None:
        kinds[1] = out
    return tuple(kinds)
