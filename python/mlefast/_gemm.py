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

_ROUTINES = {"f": ("sgemm", ctypes.c_float), "d": ("dgemm", ctypes.c_double)}
_LARGEST = 2**31 - 1  # of a BLAS whose integers are C's int


@functools.cache
def _address(char: str) -> int:
    from scipy.linalg import cython_blas  # a quarter of a second, for those who need it

    name, _ = _ROUTINES[char]
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


@functools.cache
def _routine(char: str) -> tuple[Any, Any]:
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(_address(char)), _ROUTINES[char][1]


# The distance of rows whose entries are neighbours, in entries; None if the BLAS cannot read the array so.
def _row_distance(array: Array) -> int | None:
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
    return _row_distance(array) is not None or _row_distance(array.T) is not None


def gemm(alpha: float, a: FloatArray, b: FloatArray, beta: float, c: FloatArray) -> None:
    """``c = alpha a b + beta c``, with ``c`` of touching rows' entries; ``beta`` 0 overwrites whatever ``c`` holds.

    The arrays are what :func:`is_readable` accepts, of one dtype. The GIL is released.
    """
    call, real = _routine(c.dtype.char)
    (rows, inner), columns = a.shape, b.shape[1]
    if not (rows and columns and inner):  # NumPy gives empty arrays any strides
        np.multiply(c, beta, out=c) if beta else c.fill(0)
        return
    # To a BLAS, which stores columns, each matrix is its transpose: c' = b' a'.
    distances = [_row_distance(b), _row_distance(a), _row_distance(c)]
    transposed = [b"N" if distance is not None else b"T" for distance in distances[:2]]
    distances[:2] = [d if d is not None else _row_distance(m.T) for d, m in zip(distances, (b, a))]
    integers = [columns, rows, inner, *distances]
    if a.dtype != c.dtype or b.dtype != c.dtype or b.shape[0] != inner or c.shape != (rows, columns):
        raise ValueError(f"gemm: {a.dtype}{a.shape} times {b.dtype}{b.shape} is not {c.dtype}{c.shape}")
    if any(i is None or i > _LARGEST for i in integers):
        raise ValueError(f"gemm: sizes and strides {integers} of which one is None or above {_LARGEST}")
    n, m, k, ldb, lda, ldc = (ctypes.byref(ctypes.c_int(i)) for i in integers)
    factor, keep = ctypes.byref(real(alpha)), ctypes.byref(real(beta))
    flags = [ctypes.c_char_p(flag) for flag in transposed]
    call(*flags, n, m, k, factor, b.ctypes.data, ldb, a.ctypes.data, lda, keep, c.ctypes.data, ldc)


def multiply(a: FloatArray, b: FloatArray, c: FloatArray, *, beta: float = 0.0) -> FloatArray:
    """``c = a b + beta c``, shared by mlefast's threads, with the same bits for any number of them; returns ``c``.

    The arrays are as for :func:`gemm`. The BLAS should be limited to one thread (``blas_on_one_thread`` of the
    estimators): threads of two pools would wait for each other.
    """
    if 0 in a.shape or 0 in b.shape:
        np.multiply(c, beta, out=c) if beta else c.fill(0)
    else:
        _core.multiply(_address(c.dtype.char), a, b, beta, c)
    return c
