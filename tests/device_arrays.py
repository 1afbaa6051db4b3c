"""A stand-in for CuPy over NumPy, as strict: its arrays refuse the host's, and whoever looks at one waits for it.

What CuPy does not offer is not here either. The names are listed, so that code which asks for another fails.
"""

from __future__ import annotations

import types
from typing import Any

import mlefast as mf
import numpy as np
import scipy.special
from mlefast import _table

_ATTRIBUTES = {"shape", "dtype", "ndim", "size", "strides", "itemsize", "nbytes", "flags"}
_METHODS = {"astype", "reshape", "ravel", "copy", "sum", "any", "all", "argmax", "max", "min", "mean"}
_FUNCTIONS = (
    "empty", "zeros", "ones", "arange", "ascontiguousarray", "matmul", "take", "vdot", "array_split", "sum", "abs",
    "exp", "sqrt", "tanh", "maximum", "minimum", "clip", "isfinite",
)  # fmt: skip
_OPERATORS = (
    "add", "sub", "mul", "truediv", "radd", "rsub", "rmul", "rtruediv", "iadd", "isub", "imul", "itruediv", "matmul",
    "pow", "rshift", "xor", "irshift", "ixor", "lt", "le", "gt", "ge", "eq", "ne", "neg", "abs",
)  # fmt: skip

waits = 0  # how often something has waited for the device


class ndarray:  # noqa: N801  # its name in CuPy
    """An array that NumPy does not accept."""

    __array_ufunc__ = None

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    def __reduce__(self) -> Any:
        return asarray, (self.memory,)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __getattr__(self, name: str) -> Any:
        if name in _ATTRIBUTES:
            return getattr(self.memory, name)
        if name in _METHODS:
            return _on_device(getattr(self.memory, name))
        raise AttributeError(name)

    @property
    def T(self) -> ndarray:
        return ndarray(self.memory.T)

    def fill(self, value: Any) -> None:
        self.memory.fill(_inside(value))

    def __len__(self) -> int:
        return len(self.memory)

    def __getitem__(self, index: Any) -> ndarray:
        return _outside(self.memory[_inside(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.memory[_inside(index)] = _inside(value)

    def _look(self) -> Any:
        global waits
        waits += 1
        return self.memory.item()

    def __float__(self) -> float:
        return float(self._look())

    def __int__(self) -> int:
        return int(self._look())

    def __bool__(self) -> bool:
        return bool(self._look())


def _inside(value: Any) -> Any:
    """What a device can work on: its arrays, and numbers."""
    if isinstance(value, ndarray):
        return value.memory
    if isinstance(value, tuple):
        return tuple(map(_inside, value))
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _outside(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_outside, value))
    return value if value is None else ndarray(np.asarray(value))


def _on_device(function: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        inside = {name: _inside(value) for name, value in options.items()}
        return _outside(function(*map(_inside, arguments), **inside))

    return call


def _operator(name: str) -> Any:
    def operate(self: ndarray, *others: Any) -> Any:
        result = getattr(self.memory, name)(*map(_inside, others))
        if result is NotImplemented:
            return result
        return self if result is self.memory else _outside(result)

    return operate


for _name in _OPERATORS:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def asarray(array: Any, dtype: Any = None) -> ndarray:
    """Bring an array to the device: other memory."""
    if isinstance(array, ndarray):
        return array if dtype is None else ndarray(array.memory.astype(dtype, copy=False))
    return ndarray(np.array(array, dtype))


def asnumpy(array: Any) -> np.ndarray:
    """Wait for the device, and bring an array to the host: other memory."""
    global waits
    waits += 1
    return array.memory.copy() if isinstance(array, ndarray) else np.asarray(array)


class Losses:
    """The losses of its arrays, by the host's kernels, or by those of another device whose arrays are NumPy's."""

    def __init__(self, functions: Any = None) -> None:
        self._other = functions

    def loss(self, name: str, row: Any, logits: Any, target: Any, *, options: Any, **arguments: Any) -> Any:
        x, y = _inside(logits), _inside(target)
        given = {key: _inside(value) for key, value in arguments.items()}
        if self._other is not None:
            return _outside(self._other.loss(name, row, x, y, options=options, **given))
        return _outside(_table.evaluate(name, x, y, **given, **options))

    def softmax(self, task: str, x: Any, axis: Any, temperature: float, out: Any) -> Any:
        if self._other is not None:
            return _outside(self._other.softmax(task, _inside(x), axis, temperature, _inside(out)))
        return _outside(getattr(mf, task)(_inside(x), axis, temperature=temperature, out=_inside(out)))

    def product(self, name: str, y: Any, upstream: Any, axis: Any, out: Any) -> Any:
        arguments = _inside(y), _inside(upstream)
        if self._other is not None:
            return _outside(self._other.product(name, *arguments, axis, _inside(out)))
        return _outside(getattr(mf, name)(*arguments, axis=axis, out=_inside(out)))


def _make_modules() -> dict[str, types.ModuleType]:
    cupy, special = types.ModuleType("cupy"), types.ModuleType("cupyx.scipy.special")
    ndarray.__module__ = asarray.__module__ = "cupy"  # by which it is known, and pickled
    for function in _FUNCTIONS:
        setattr(cupy, function, _on_device(getattr(np, function)))
    for own in (ndarray, asarray, asnumpy):
        setattr(cupy, own.__name__, own)
    special.ndtr = _on_device(scipy.special.ndtr)  # type: ignore[attr-defined]
    return {"cupy": cupy, "cupyx.scipy.special": special}


MODULES = _make_modules()
