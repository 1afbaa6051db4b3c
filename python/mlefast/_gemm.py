"""Matrix products of SciPy's BLAS that add to what is there: NumPy's cannot, and ``scipy.linalg.blas`` holds the GIL.

:func:`gemm` is one call, whose threads are the BLAS's; :func:`multiply` many, which our threads share.

``scipy.linalg.blas`` would also copy what is not contiguous as a whole, such as a range of columns. The pointers that
SciPy gives to compiled code take rows at any distance.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from mlefast import _core
from mlefast._arguments import Array, FloatArray

_ROUTINES = {"f": "sgemm", "d": "dgemm"}


@functools.cache
def _address(char: str) -> int:
    from scipy.linalg import cython_blas  # a quarter of a second, for those who need it

    if char not in _ROUTINES:
        raise ValueError(f"gemm: received a matrix of type {char!r}; accepted: {', '.join(_ROUTINES)}")
    name = _ROUTINES[char]
    capsule = cython_blas.__pyx_capi__[name]  # type: ignore[literal-required]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    signature = api.PyCapsule_GetName(capsule)
    if signature is None or not signature.startswith(b"void (char *, char *, int *, int *, int *,"):
        raise RuntimeError(f"SciPy's {name}: received the signature {signature}; accepted: integers of C's type int")
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address: int = api.PyCapsule_GetPointer(capsule, signature)
    return address


def row_distance(array: Array) -> int | None:
    """Return the distance of rows whose entries are neighbours, in entries; None if they are none, or overlap."""
    rows, columns = int(array.shape[0]), int(array.shape[1])
    if columns > 1 and array.strides[1] != array.itemsize:
        return None
    if rows <= 1:
        return max(columns, 1)
    distance, rest = divmod(int(array.strides[0]), array.itemsize)
    return distance if rest == 0 and distance >= max(columns, 1) else None


def is_readable(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether :func:`gemm` can read a matrix where it lies: its dtype, and rows or columns whose entries touch."""
    if array.dtype != dtype or not array.flags.aligned:
        return False
    return row_distance(array) is not None or row_distance(array.T) is not None


def gemm(alpha: float, a: FloatArray, b: FloatArray, beta: float, c: FloatArray) -> None:
    """``c = alpha a b + beta c``, with ``c`` of touching rows' entries; ``beta`` 0 overwrites whatever ``c`` holds.

    The arrays are what :func:`is_readable` accepts, of one dtype. The GIL is released. The threads are the BLAS's.
    """
    _call(alpha, a, b, beta, c, in_tiles=False)


def multiply(a: FloatArray, b: FloatArray, c: FloatArray, *, beta: float = 0.0) -> FloatArray:
    """``c = a b + beta c``, shared by mlefast's threads, with the same bits for any number of them; returns ``c``.

    The arrays are as for :func:`gemm`. The BLAS should be limited to one thread (``blas_on_one_thread`` of the
    estimators): threads of two pools would wait for each other.
    """
    _call(1.0, a, b, beta, c, in_tiles=True)
    return c


def _call(alpha: float, a: FloatArray, b: FloatArray, beta: float, c: FloatArray, *, in_tiles: bool) -> None:
    if a.dtype != c.dtype or b.dtype != c.dtype or b.shape[0] != a.shape[1] or c.shape != (a.shape[0], b.shape[1]):
        raise ValueError(
            f"gemm: received {a.dtype}{a.shape} times {b.dtype}{b.shape} for {c.dtype}{c.shape}; accepted: matrices of "
            "one dtype whose shapes fit"
        )
    if 0 in a.shape or 0 in b.shape:  # NumPy gives empty arrays any strides
        np.multiply(c, beta, out=c) if beta else c.fill(0)
    else:
        _core.gemm(_address(c.dtype.char), alpha, a, b, beta, c, in_tiles)
