"""Checks of arguments, one block for each: every message names the argument, what was received and what is accepted."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

Reduction = Literal["none", "mean", "sum"]
Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
STORAGE = ("float16", "bfloat16", "float32", "float64")  # bfloat16 is ml_dtypes', and not needed to know its name


def describe(value: object) -> str:
    """A short description of a received value for an error message."""
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


# By a dtype's code, which is at hand: its name is put together anew each time, in as long as a small call takes.
def is_stored(dtype: np.dtype[Any]) -> bool:
    return dtype.char in "efd" or (dtype.kind == "V" and dtype.name == "bfloat16")


# What numbers stored in a dtype are computed in: the dtype of losses, weights and upstream gradients.
def compute_dtype(storage: np.dtype[Any]) -> np.dtype[Any]:
    return _FLOAT64 if storage.char == "d" else _FLOAT32


# Anything as a NumPy array, other libraries' CPU arrays without a copy. PyTorch cannot hand over its bfloat16, for
# which NumPy has no type of its own: it goes through its bits and ml_dtypes.
def as_numpy(x: Any, name: str) -> Array:
    if isinstance(x, np.ndarray):
        return np.asarray(x)  # what a matrix or a masked array answers to arithmetic is not what is computed here
    if not hasattr(x, "__array__"):
        if not hasattr(x, "__dlpack__"):
            return np.asarray(x)
        try:
            return np.from_dlpack(x)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            message = (
                f"{name}: received {describe(x)}, of which NumPy says: {error}; accepted: arrays in the host's memory"
            )
            raise TypeError(message) from error
    if getattr(x, "requires_grad", False):
        raise TypeError(f"{name}: received a tensor that requires grad; accepted: {name}.detach()")
    if str(getattr(x, "dtype", None)) != "torch.bfloat16" or x.device.type != "cpu":
        return np.asarray(x)
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        message = f"{name}: received a tensor of bfloat16; accepted: with the package ml_dtypes installed"
        raise TypeError(message) from None
    bits: Array = x.view(sys.modules["torch"].int16).numpy()
    return bits.view(bfloat16)


# An array of logits: floating numbers as they are; lists, scalars and integers as float64. Kernels read native byte
# order at natural alignment; anything else is copied.
def as_logits(x: object, name: str = "logits") -> FloatArray:
    array = as_numpy(x, name)
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    elif not is_stored(array.dtype):
        raise TypeError(
            f"{name}: received {describe(array)}; accepted: {', '.join(STORAGE)}, and integers, which are taken as "
            "float64"
        )
    if not array.dtype.isnative or not array.flags.aligned:
        array = array.astype(array.dtype.newbyteorder("="))
    return cast("FloatArray", array)


# One axis of an array, counted from the front.
def as_axis(axis: object, ndim: int, name: str = "logits") -> int:
    try:
        number = operator.index(cast("Any", axis))
    except TypeError:
        raise TypeError(f"axis: received {describe(axis)}; accepted: an integer") from None
    if ndim == 0:
        raise ValueError(f"{name}: received a scalar; accepted: an array with a class axis")
    if not -ndim <= number < ndim:
        raise ValueError(f"axis: received {number}; accepted: {-ndim} to {ndim - 1} for {ndim} dimensions")
    return number % ndim


# One axis, several or (None) all of them, counted from the front, each once.
def as_axes(axis: int | Sequence[int] | None, ndim: int, name: str = "x") -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    if not isinstance(axis, Sequence):
        return (as_axis(axis, ndim, name),)
    axes = tuple(as_axis(a, ndim, name) for a in axis)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis: received {tuple(axis)}; accepted: each axis once")
    return axes


# The class axis has at least one class: there is no distribution over nothing.
def check_classes(shape: tuple[int, ...], axes: tuple[int, ...], name: str = "logits") -> None:
    for axis in axes:
        if shape[axis] == 0:
            raise ValueError(f"{name}: received shape {shape}, empty along axis {axis}; accepted: at least one class")


# Class indices: integers of any width, shaped like the logits without the class axis.
def as_target(target: object, shape: tuple[int, ...], name: str = "target") -> IntArray:
    array = as_numpy(target, name)
    if array.size == 0 and array.dtype == np.float64 and not isinstance(target, np.ndarray):
        array = array.astype(np.int64)  # an empty list
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: received {describe(array)}; accepted: integer class indices")
    if array.shape != shape:
        raise ValueError(f"{name}: received shape {array.shape}; accepted: {shape}, the logits' without the class axis")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return cast("IntArray", np.ascontiguousarray(array).reshape(shape))


# Floating targets: a probability for each class, shaped like the logits; of the dtype that is computed in.
def as_probabilities(target: object, logits: FloatArray, name: str = "target") -> FloatArray:
    return as_like(as_reals(target, name, "real numbers, a probability for each class"), logits, name)


# Whether a target gives classes' indices rather than their probabilities; an empty list may be either.
def is_index_target(target: object, logits: FloatArray) -> bool:
    array = as_numpy(target, "target")
    if array.size == 0 and not isinstance(target, np.ndarray):
        return array.ndim < logits.ndim
    if array.dtype.kind in "iu":
        return True
    if not is_stored(array.dtype) or array.ndim == logits.ndim - 1:
        raise TypeError(
            f"target: received {describe(array)}; accepted: integer class indices, or probabilities in the shape of "
            f"the logits, {logits.shape}"
        )
    return False


# As an ignore_index: no target is left out but this very number.
NONE_IGNORED = -(2**63)


# A target that was found out of range, as the user wrote it.
def wrong_target(target: IntArray, position: int, classes: int, ignore_index: int, name: str = "target") -> IndexError:
    index = tuple(int(i) for i in np.unravel_index(position, target.shape))
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    ignored = "" if ignore_index == NONE_IGNORED else f", or the ignore_index {ignore_index}"
    return IndexError(f"{where}: received {int(target[index])}; accepted: 0 to {classes - 1}{ignored}")


def is_real_dtype(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf" or is_stored(dtype)


# An array of real numbers, of any shape.
def as_reals(value: object, name: str, accepted: str = "real numbers") -> Array:
    array = as_numpy(value, name)
    if not is_real_dtype(array.dtype):
        raise TypeError(f"{name}: received {describe(array)}; accepted: {accepted}")
    return array


# A number for each logit, of the dtype that is computed in.
def as_like(array: Array, like: FloatArray, name: str, whose: str = "the logits'") -> FloatArray:
    if array.shape != like.shape:
        raise ValueError(f"{name}: received shape {array.shape}; accepted: {like.shape}, {whose}")
    return np.asarray(array, compute_dtype(like.dtype))


# A number for each class.
def as_weight(weight: object, classes: int, dtype: np.dtype[Any], name: str = "weight") -> FloatArray | None:
    if weight is None:
        return None
    array = as_numpy(weight, name)
    if not is_real_dtype(array.dtype):
        raise TypeError(f"{name}: received {describe(array)}; accepted: real numbers, one for each class")
    if array.shape != (classes,):
        raise ValueError(f"{name}: received shape {array.shape}; accepted: ({classes},), one number for each class")
    return np.ascontiguousarray(array, dtype=compute_dtype(dtype))


# An integer that marks rows to leave out; it need not be negative.
def as_ignore_index(ignore_index: object) -> int:
    try:
        number = operator.index(cast("Any", ignore_index))
    except TypeError:
        raise TypeError(f"ignore_index: received {describe(ignore_index)}; accepted: an integer") from None
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"ignore_index: received {number}; accepted: an integer of 64 bits")
    return number


def as_reduction(reduction: object) -> Reduction:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: received {describe(reduction)}; accepted: 'none', 'mean', 'sum'")
    return reduction


# What the sum over the rows is divided by, in place of the number (or weight) of rows that "mean" would take.
def as_denominator(denominator: object, reduction: Reduction) -> float | None:
    if denominator is None:
        return None
    number = as_real(denominator, "denominator")
    if not number > 0:
        raise ValueError(f"denominator: received {number}; accepted: a number > 0")
    if reduction == "none":
        raise ValueError(
            "denominator: received with reduction='none'; accepted: with 'mean' or 'sum', which it divides"
        )
    return number


def as_real(value: object, name: str) -> float:
    if isinstance(value, (str, bytes, bool, complex)):
        raise TypeError(f"{name}: received {describe(value)}; accepted: a real number")
    try:
        return float(cast("Any", value))
    except (TypeError, ValueError):
        raise TypeError(f"{name}: received {describe(value)}; accepted: a real number") from None


# A real number within bounds: of an option that is off at one of them, or that must be more than 0.
def as_fraction(value: object, name: str) -> float:
    number = as_real(value, name)
    if not 0 <= number <= 1:
        raise ValueError(f"{name}: received {number}; accepted: a number from 0 to 1")
    return number


def as_not_negative(value: object, name: str) -> float:
    number = as_real(value, name)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}: received {number}; accepted: a number >= 0")
    return number


def as_positive(value: object, name: str) -> float:
    number = as_real(value, name)
    if not 0 < number < math.inf:
        raise ValueError(f"{name}: received {number}; accepted: a number > 0")
    return number


# A factor of the gradient: one number, or one for each loss where losses are not reduced.
def as_upstream(
    upstream: object, reduction: Reduction, rows: tuple[int, ...], dtype: np.dtype[Any], name: str = "upstream"
) -> tuple[float, FloatArray | None]:
    if upstream is None:
        return 1.0, None
    array = as_numpy(upstream, name)
    if not is_real_dtype(array.dtype):
        raise TypeError(f"{name}: received {describe(array)}; accepted: real numbers")
    if array.ndim == 0:
        return float(array), None
    shape = rows if reduction == "none" else ()
    if array.shape != shape:
        raise ValueError(f"{name}: received shape {array.shape}; accepted: a scalar or the loss's shape, {shape}")
    return 1.0, np.ascontiguousarray(array, dtype=compute_dtype(dtype))


# An array to write the result to: like the input, contiguous, and either the input itself or apart from it.
def as_out(out: object, like: FloatArray, name: str = "logits") -> FloatArray | None:
    if out is None:
        return None
    if not isinstance(out, np.ndarray):
        if not hasattr(out, "__dlpack__"):
            raise TypeError(f"out: received {describe(out)}; accepted: an array like {name}")
        out = as_numpy(out, "out")  # another library's array on the CPU: the same memory
    if out.dtype != like.dtype or out.shape != like.shape:
        raise ValueError(f"out: received {describe(out)}; accepted: dtype {like.dtype} and shape {like.shape}")
    if not out.flags.c_contiguous:
        raise ValueError(f"out: received strides {out.strides}; accepted: a C-contiguous array")
    if not out.flags.writeable:
        raise ValueError("out: received a read-only array; accepted: a writeable one")
    same = out.ctypes.data == like.ctypes.data and like.flags.c_contiguous
    if not same and np.may_share_memory(out, like):
        raise ValueError(
            f"out: received an array that overlaps {name} in part; accepted: {name} itself or other memory"
        )
    return out


def quotient(total: float, denominator: float) -> float:
    """``total / denominator`` as IEEE arithmetic defines it, division by zero included."""
    if denominator != 0:
        return total / denominator
    return math.copysign(math.inf, total) if total else math.nan
