"""The arguments of functions for arrays on a device: checked as ``_arguments.py`` does it for NumPy's.

Written over an array module that speaks like NumPy, which in the tests it is. Nothing here reads an array's numbers,
which would wait for the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlefast._arguments import as_real
from mlefast._arguments import describe as describe_object
from mlefast._backends.cuda import INTEGERS, STORAGE, Device, value_dtype

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


class DeviceArguments:
    """Checks of what users give, for the arrays of one device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.xp = device.xp

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
    def _target(self, target: Any, shape: tuple[int, ...], name: str = "target") -> Any:
        array = self._array(target)
        if array.size == 0 and array.dtype == np.float64 and isinstance(target, (list, tuple)):
            array = array.astype(np.int64)
        if array.dtype.name not in INTEGERS:
            raise TypeError(f"{name}: received {describe(array)}; accepted: integer class indices")
        if tuple(array.shape) != shape:
            raise ValueError(
                f"{name}: received shape {tuple(array.shape)}; accepted: {shape}, the logits' without the class axis"
            )
        return self.xp.ascontiguousarray(array).reshape(shape)

    # Whether a target gives classes' indices rather than their probabilities; an empty list may be either.
    def _is_index_target(self, target: Any, logits: Any) -> bool:
        array = self._array(target)
        if array.size == 0 and isinstance(target, (list, tuple)):
            return bool(array.ndim < logits.ndim)
        if array.dtype.name in INTEGERS:
            return True
        if array.dtype.name not in STORAGE or array.ndim == logits.ndim - 1:
            raise TypeError(
                f"target: received {describe(array)}; accepted: integer class indices, or probabilities in the shape "
                f"of the logits, {tuple(logits.shape)}"
            )
        return False

    # An array of real numbers, of any shape.
    def _reals(self, value: Any, name: str, accepted: str = "real numbers") -> Any:
        array = self._array(value)
        if array.dtype.kind not in "iuf" and array.dtype.name not in STORAGE:
            raise TypeError(f"{name}: received {describe(array)}; accepted: {accepted}")
        return array

    # A number for each logit, of the dtype that is computed in.
    def _like(self, array: Any, like: Any, name: str, whose: str = "the logits'") -> Any:
        if array.shape != like.shape:
            raise ValueError(f"{name}: received shape {tuple(array.shape)}; accepted: {tuple(like.shape)}, {whose}")
        return array.astype(value_dtype(like.dtype), copy=False)

    # A number for each class.
    def _weight(self, weight: Any, classes: int, dtype: np.dtype[Any], name: str = "weight") -> Any:
        if weight is None:
            return None
        array = self._reals(weight, name, "real numbers, one for each class")
        if tuple(array.shape) != (classes,):
            raise ValueError(
                f"{name}: received shape {tuple(array.shape)}; accepted: ({classes},), one number for each class"
            )
        return self.xp.ascontiguousarray(array.astype(value_dtype(dtype), copy=False))

    # A factor of the gradient: a number of the host, or an array in the shape of the loss, or of no dimension.
    def _upstream(
        self, upstream: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "upstream"
    ) -> tuple[float, Any]:
        if upstream is None:
            return 1.0, None
        if not hasattr(upstream, "shape") and not isinstance(upstream, (list, tuple)):
            return as_real(upstream, name), None
        array = self._reals(upstream, name)
        if tuple(array.shape) not in ((), shape):
            raise ValueError(
                f"{name}: received shape {tuple(array.shape)}; accepted: a scalar or the loss's shape, {shape}"
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
