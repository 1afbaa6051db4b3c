"""Matrix products of a fit: by mlefast's threads, each with a BLAS of one thread or with kernels for sparse rows."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from mlefast._gemm import is_readable, multiply
from mlefast.estimators import sparse

_SMALL = 2**22  # multiply-adds

FloatArray = npt.NDArray[np.floating[Any]]


@functools.cache
def _controller() -> ThreadpoolController:
    import scipy.linalg.cython_blas  # noqa: F401  # a library that is loaded later would not be limited

    return ThreadpoolController()


def blas_on_one_thread() -> AbstractContextManager[Any]:
    """Limit the BLAS to one thread, as long as products are shared by mlefast's.

    Two pools of threads would wait for each other in busy loops: on a machine that does something else as well, that
    made a fit forty times slower. And a BLAS's results depend on its number of threads.
    """
    limited: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limited


def product(a: Any, b: FloatArray, out: FloatArray, *, add: bool = False) -> FloatArray:
    """``out = a b``, or added to it, with the same bits for any number of threads; ``a`` may be sparse."""
    if isinstance(a, np.ndarray):
        # NumPy's own BLAS is faster than SciPy's at small ones, where one thread works anyway.
        if not add and out.shape[0] * a.shape[1] * out.shape[1] < _SMALL and out.flags.c_contiguous:
            return np.matmul(a, b, out=out)
        if is_readable(a, out.dtype) and is_readable(b, out.dtype):
            return multiply(a, b, out, beta=1.0 if add else 0.0)
    elif sparse.is_multipliable(a, b, out):
        return sparse.multiply(a, b, out, add=add)
    if add:
        out += a @ b
    else:  # dtypes that differ
        out[...] = a @ b
    return out
