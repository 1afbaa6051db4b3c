"""The functions of mlefast for arrays on a device: arguments checked, axes put in order, jobs launched.

Written over an array module that speaks like NumPy, which in the tests it is. Nothing here reads an array's numbers,
which would wait for the device.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefast._arguments import (
    as_axes,
    as_axis,
    as_denominator,
    as_ignore_index,
    as_real,
    as_reduction,
    check_classes,
    wrong_target,
)
from mlefast._arguments import describe as describe_object
from mlefast._backends.cuda import (
    INTEGERS,
    STORAGE,
    Device,
    Job,
    Rows,
    reduced_cross_entropy,
    rows_of,
    value_dtype,
    weigh,
)
from mlefast._table import Loss, kernel_options

ACCEPTED = "float16, bfloat16, float32, float64, and integers, which are taken as float64"


def describe(value: Any) -> str:
    """A short description of a received value for an error message; of an array, its dtype and shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of dtype {value.dtype} and shape {tuple(value.shape)}"
    return describe_object(value)


def span(array: Any, address: int) -> tuple[int, int]:
    """Where an array's memory begins and ends."""
    reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides)]
    if array.size == 0:
        return address, address
    return address + sum(r for r in reach if r < 0), address + sum(r for r in reach if r > 0) + array.dtype.itemsize


@dataclass
class ClassesLast:
    """An array with its class axes joined at the end, and the way back for results."""

    array: Any
    back: Callable[[Any], Any]

    @classmethod
    def of(cls, array: Any, axes: tuple[int, ...]) -> ClassesLast:
        """Move the axes to the end; copies only if several that are no neighbours are joined."""
        order = [*(d for d in range(array.ndim) if d not in axes), *axes]
        moved = array.transpose(order)
        inverse = sorted(range(array.ndim), key=order.__getitem__)
        joined = moved.reshape((*moved.shape[: array.ndim - len(axes)], math.prod(array.shape[d] for d in axes)))
        return cls(joined, lambda result: result.reshape(moved.shape).transpose(inverse))


class DeviceFunctions:
    """What the API offers, for the arrays of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.xp = device.xp

    # ---- functions

    def softmax(self, task: str, x: Any, axis: int | Sequence[int] | None, out: Any) -> Any:
        """Run ``"softmax"`` or ``"log_softmax"``."""
        array = self._logits(x, "x")
        axes = as_axes(axis, array.ndim)
        check_classes(tuple(array.shape), axes, "x")
        into = self._out(out, array, "x")
        if not axes:  # every entry a distribution of its own
            array, axes = array[..., None], (array.ndim,)
            result = self._with_output(array, axes, None, lambda x, to: Job(self.device, task, x, to).run())
            result = result[..., 0]
            return result if into is None else _copy(result, into)
        return self._with_output(array, axes, into, lambda x, to: Job(self.device, task, x, to).run())

    def logsumexp(self, x: Any, axis: int | Sequence[int] | None, keepdims: bool) -> Any:
        """Return the log of the sum of exponentials, of the dtype of losses."""
        array = self._logits(x, "x")
        axes = as_axes(axis, array.ndim)
        check_classes(tuple(array.shape), axes, "x")
        if not axes:
            return array.astype(value_dtype(array.dtype))
        rows = self._rows(ClassesLast.of(array, axes).array)
        value = self.xp.empty(rows.array.shape[:-1], value_dtype(array.dtype))
        if rows.count:
            Job(self.device, "logsumexp", rows, value=value).run()
        return value.reshape([1 if d in axes else n for d, n in enumerate(array.shape)]) if keepdims else value

    def loss(
        self,
        name: str,
        row: Loss,
        logits: Any,
        target: Any,
        *,
        axis: Any,
        weight: Any,
        ignore_index: Any,
        reduction: Any,
        denominator: Any,
        gradient: bool,
        upstream: Any,
        out: Any,
        byproducts: tuple[str, ...],
        options: dict[str, Any],
    ) -> tuple[Any, ...]:
        """Return the loss and, if asked for, its gradient."""
        if name != "cross_entropy" or byproducts or kernel_options(row, options, 1):
            raise TypeError(
                f"{name}: received logits on a CUDA device; accepted there: cross_entropy of class indices, without "
                "label_smoothing, z_loss, softcap, temperature or by-products"
            )
        array = self._logits(logits, "logits")
        class_axis = as_axis(axis, array.ndim)
        check_classes(tuple(array.shape), (class_axis,))
        shape, classes = tuple(array.shape), int(array.shape[class_axis])
        labels = self._target(target, shape[:class_axis] + shape[class_axis + 1 :])
        reduced = as_reduction(reduction)
        divisor = as_denominator(denominator, reduced)
        factor, factors = self._upstream(upstream, labels.shape if reduced == "none" else (), array.dtype)
        ignored = as_ignore_index(ignore_index)
        weights = self._weight(weight, classes, array.dtype)
        into = self._out(out, array, "logits")
        task = "cross_entropy_and_grad" if gradient else "cross_entropy"
        loss = self.xp.empty(labels.shape if reduced == "none" else (), value_dtype(array.dtype))

        def run(x: Rows, to: Rows | None) -> None:
            job = Job(self.device, task, x, to, labels, ignored, weights, factors, factor)
            if os.environ.get("MLEFAST_CUDA_CHECK") == "1":
                self._raise_wrong_target(job)
            if reduced == "none":
                job.value = loss
                job.run()
            else:
                reduced_cross_entropy(job, reduced, divisor, loss)

        if labels.size == 0:
            loss[...] = math.nan if reduced == "mean" and divisor is None else 0
            return loss, (into if into is not None else self.xp.empty_like(array)) if gradient else None
        if gradient:
            return loss, self._with_output(array, (class_axis,), into, run)
        run(self._rows(ClassesLast.of(array, (class_axis,)).array), None)
        return loss, None

    # ---- rows

    def _rows(self, array: Any) -> Rows:
        rows = rows_of(array)
        return rows if rows is not None else Rows(self.xp.ascontiguousarray(array), int(array.shape[-1]))

    def _with_output(
        self, array: Any, axes: tuple[int, ...], into: Any, run: Callable[[Rows, Rows | None], Any]
    ) -> Any:
        """Run with an output array like the input: `into` itself where its classes lie as the kernels need them."""
        last = ClassesLast.of(array, axes)
        rows = self._rows(last.array)
        direct = None
        if into is not None:
            moved = ClassesLast.of(into, axes).array
            direct = rows_of(moved) if self.device.address(moved) == self.device.address(into) else None
            # A copy of the input is read while the input itself is written: nothing overlaps.
        to = direct or Rows(self.xp.empty(rows.array.shape, array.dtype), rows.classes)
        if rows.count:
            run(rows, to)
        if direct is not None:
            return into
        result = last.back(to.array)
        return result if into is None else _copy(result, into)

    def _raise_wrong_target(self, job: Job) -> None:
        _, wrong = weigh(job)
        first = int(self.device.to_host(wrong).min())
        if first < job.x.count:
            raise wrong_target(self.device.to_host(job.target), first, job.x.classes, job.ignore_index)

    # ---- arguments

    def _array(self, value: Any) -> Any:
        """An array of this module: the same memory if it lies on the device, else a copy there."""
        if isinstance(value, self.xp.ndarray):
            return value
        if hasattr(value, "__dlpack_device__") and not isinstance(value, (np.ndarray, np.generic)):
            on_device = int(value.__dlpack_device__()[0]) in (2, 13)  # CUDA, CUDA managed
            return self.xp.from_dlpack(value) if on_device else self.xp.asarray(np.from_dlpack(value))
        host = np.asarray(value)
        return self.xp.asarray(host) if host.dtype.kind in "biufc" or host.dtype.name in STORAGE else host

    # float16, bfloat16, float32 or float64 as it is; integers as float64.
    def _logits(self, x: Any, name: str) -> Any:
        array = self._array(x)
        if array.dtype.kind in "iu":
            return array.astype(np.float64)
        if array.dtype.name not in STORAGE:
            raise TypeError(f"{name}: received {describe(array)}; accepted: {ACCEPTED}")
        return array

    # Class indices: integers of any width, shaped like the logits without the class axis.
    def _target(self, target: Any, shape: tuple[int, ...]) -> Any:
        array = self._array(target)
        if array.size == 0 and array.dtype == np.float64 and isinstance(target, (list, tuple)):
            array = array.astype(np.int64)
        if array.dtype.name not in INTEGERS:
            raise TypeError(f"target: received {describe(array)}; accepted on a CUDA device: integer class indices")
        if tuple(array.shape) != shape:
            raise ValueError(
                f"target: received shape {tuple(array.shape)}; accepted: {shape}, the logits' without the class axis"
            )
        return self.xp.ascontiguousarray(array).reshape(shape)

    # A number for each class.
    def _weight(self, weight: Any, classes: int, dtype: np.dtype[Any]) -> Any:
        if weight is None:
            return None
        array = self._array(weight)
        if array.dtype.kind not in "iuf" and array.dtype.name not in STORAGE:
            raise TypeError(f"weight: received {describe(array)}; accepted: real numbers, one for each class")
        if tuple(array.shape) != (classes,):
            raise ValueError(
                f"weight: received shape {tuple(array.shape)}; accepted: ({classes},), one number for each class"
            )
        return self.xp.ascontiguousarray(array.astype(value_dtype(dtype)))

    # A factor of the gradient: a number of the host, or an array in the shape of the loss, or of no dimension.
    def _upstream(self, upstream: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[float, Any]:
        if upstream is None:
            return 1.0, None
        if not hasattr(upstream, "shape") and not isinstance(upstream, (list, tuple)):
            return as_real(upstream, "upstream"), None
        array = self._array(upstream)
        if array.dtype.kind not in "iuf" and array.dtype.name not in STORAGE:
            raise TypeError(f"upstream: received {describe(array)}; accepted: real numbers")
        if tuple(array.shape) not in ((), shape):
            raise ValueError(
                f"upstream: received shape {tuple(array.shape)}; accepted: a scalar or the loss's shape, {shape}"
            )
        return 1.0, self.xp.ascontiguousarray(array.astype(value_dtype(dtype))).reshape(array.shape)

    # An array to write the result to: like the input, contiguous, and either the input itself or apart from it.
    def _out(self, out: Any, like: Any, name: str) -> Any:
        if out is None:
            return None
        if not hasattr(out, "__dlpack_device__"):
            raise TypeError(f"out: received {describe(out)}; accepted: an array like {name}, on its device")
        array = self._array(out) if isinstance(out, self.xp.ndarray) or _is_on_device(out) else None
        if array is None:
            raise TypeError(f"out: received {describe(out)}; accepted: an array like {name}, on its device")
        if array.dtype != like.dtype or array.shape != like.shape:
            raise ValueError(
                f"out: received {describe(array)}; accepted: dtype {like.dtype} and shape {tuple(like.shape)}"
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"out: received strides {array.strides}; accepted: a C-contiguous array")
        ours, theirs = (span(a, self.device.address(a)) for a in (array, like))
        same = ours == theirs and like.flags.c_contiguous
        if not same and ours[0] < theirs[1] and theirs[0] < ours[1]:
            raise ValueError(
                f"out: received an array that overlaps {name} in part; accepted: {name} itself or other memory"
            )
        return array


def _is_on_device(array: Any) -> bool:
    return int(array.__dlpack_device__()[0]) in (2, 13)


def _copy(result: Any, into: Any) -> Any:
    into[...] = result
    return into
