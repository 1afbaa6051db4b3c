"""All functions of mlefast for arrays on a device: those of rows, and the cross-entropy of a linear layer.

The latter goes over blocks of rows, as :mod:`mlefast.linear` does it on the CPU: a product of matrices, the loss's
kernel in place, two products. Nothing waits for the device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlefast._arguments import as_denominator, as_ignore_index, as_reduction, check_classes
from mlefast._backends.cuda import add_up, weigh
from mlefast._backends.device_arguments import describe
from mlefast._backends.device_rows import RowFunctions, checks_targets
from mlefast._table import LOSSES

BLOCK_BYTES = 2**28  # of logits; a choice that no GPU has measured yet


class DeviceFunctions(RowFunctions):
    """What the API offers, for the arrays of one device."""

    def linear_cross_entropy(
        self,
        x: Any,
        weight: Any,
        target: Any,
        *,
        bias: Any,
        class_weight: Any,
        ignore_index: Any,
        reduction: Any,
        denominator: Any,
        gradient: bool,
        upstream: Any,
        options: dict[str, Any],
    ) -> tuple[Any, Any, Any, Any]:
        """Return the loss and, if asked for, the gradients of x, weight and bias (else None)."""
        xp = self.xp
        arrays = {"x": self._logits(x, "x"), "weight": self._logits(weight, "weight")}
        if bias is not None:
            arrays["bias"] = self._logits(bias, "bias")
        _check_shapes(**arrays)
        wide = any(array.dtype == np.float64 for array in arrays.values())
        dtype = np.dtype(np.float64 if wide else np.float32)
        rows, (classes, features) = tuple(arrays["x"].shape[:-1]), arrays["weight"].shape
        count = math.prod(rows)
        labels = self._labels(target, rows, classes)
        is_index = labels.dtype.kind in "iu"
        ignored, reduced = as_ignore_index(ignore_index), as_reduction(reduction)
        divisor = as_denominator(denominator, reduced)
        factor, factors = self._upstream(upstream, rows if reduced == "none" else (), dtype)
        given = {
            "axis": -1,
            "weight": self._weight(class_weight, classes, dtype, "class_weight"),
            "ignore_index": ignored,
            "reduction": "none",
            "denominator": None,
            "gradient": gradient,
            "byproducts": (),
            "options": options,
        }
        self.loss(  # says what is wrong with them
            "cross_entropy",
            LOSSES["cross_entropy"],
            xp.empty((0, classes), dtype),
            [],
            upstream=None,
            out=None,
            **given,
        )
        if is_index and count and checks_targets():
            self._check_targets(labels, classes, ignored)

        # Of each row's gradient: the upstream factor by what the sum is divided by, which may stand on the device.
        scales = xp.full(count, factor / divisor if divisor is not None else factor, dtype)
        if factors is not None:
            scales *= factors.reshape(-1)
        total = None
        if reduced == "mean" and divisor is None and is_index and count:
            total, inverse = xp.empty((), np.float64), xp.empty((), np.float64)
            sums, _ = weigh(self.device, labels, classes, ignored, given["weight"], dtype)
            add_up(self.device, sums, dtype, total=total, inverse=inverse)
            scales *= inverse
        elif reduced == "mean" and divisor is None:
            divisor = float(count)
            scales /= divisor if count else math.nan

        flat_x, weights = arrays["x"].reshape(count, features), _as(xp, arrays["weight"], dtype)
        flat_labels = labels.reshape(-1) if is_index else labels.reshape(count, classes)
        values = xp.zeros(count, dtype)
        dx = xp.zeros((count, features), arrays["x"].dtype) if gradient else None
        dweight = xp.zeros((classes, features), dtype) if gradient else None
        dbias = xp.zeros((1, classes), dtype) if gradient and bias is not None else None
        height = max(1, min(count, BLOCK_BYTES // (classes * dtype.itemsize)))
        logits = xp.empty((height, classes), dtype)
        for start in range(0, count, height):
            block = slice(start, min(start + height, count))
            inputs, of, to = _as(xp, flat_x[block], dtype), flat_labels[block], logits[: block.stop - start]
            if is_index:  # ignored rows may hold anything, of which no product must hear
                inputs = xp.where((of.astype(np.int64, copy=False) == ignored)[:, None], dtype.type(0), inputs)
            xp.matmul(inputs, weights.T, out=to)
            if bias is not None:
                to += arrays["bias"].astype(dtype, copy=False)
            given |= {"upstream": scales[block], "out": to} if gradient else {"upstream": None, "out": None}
            values[block], dlogits = self.loss("cross_entropy", LOSSES["cross_entropy"], to, of, **given)[:2]
            if dx is None or dweight is None:
                continue
            if dx.dtype == dtype:
                xp.matmul(dlogits, weights, out=dx[block])
            else:
                dx[block] = xp.matmul(dlogits, weights)
            self.device.add_product(dlogits, inputs, dweight)
            if dbias is not None:
                self.device.add_product(xp.ones((len(inputs), 1), dtype), dlogits, dbias)

        if reduced == "none":
            loss = values.reshape(rows)
        else:
            loss = xp.empty((), dtype)
            loss[...] = math.nan if reduced == "mean" and denominator is None else 0
            if count:
                add_up(
                    self.device, values.astype(np.float64), dtype, loss=loss, divisor=divisor or 1.0, divisor_at=total
                )
        return (
            loss,
            None if dx is None else dx.reshape(arrays["x"].shape),
            None if dweight is None else dweight.astype(arrays["weight"].dtype, copy=False),
            None if dbias is None else dbias[0].astype(arrays["bias"].dtype, copy=False),
        )

    # Class indices, or floating numbers: a distribution for each row.
    def _labels(self, target: Any, rows: tuple[int, ...], classes: int) -> Any:
        array = self._array(target)
        if array.dtype.kind in "iu" or (array.size == 0 and isinstance(target, (list, tuple))):
            return self._target(target, rows)
        array = self._reals(array, "target", f"integers of shape {rows}, or probabilities")
        if tuple(array.shape) != (*rows, classes):
            raise ValueError(
                f"target: received {describe(array)}; accepted: integers of shape {rows}, or probabilities of shape "
                f"{(*rows, classes)}"
            )
        return array


def _check_shapes(x: Any, weight: Any, bias: Any = None) -> None:
    if x.ndim == 0:
        raise ValueError("x: received a scalar; accepted: an array of shape (..., D)")
    shape = tuple(weight.shape)
    if weight.ndim != 2 or shape[1] != x.shape[-1]:
        raise ValueError(
            f"weight: received shape {shape}; accepted: (C, {x.shape[-1]}), a row of x's length for each class"
        )
    check_classes(shape, (0,), "weight")
    if bias is not None and tuple(bias.shape) != shape[:1]:
        raise ValueError(f"bias: received shape {tuple(bias.shape)}; accepted: {shape[:1]}, one number for each class")


# Contiguous, of the dtype that is computed in.
def _as(xp: Any, array: Any, dtype: np.dtype[Any]) -> Any:
    return xp.ascontiguousarray(array.astype(dtype, copy=False))
