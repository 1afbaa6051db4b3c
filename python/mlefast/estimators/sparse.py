"""Products of sparse matrices by mlefast's threads, into memory that is there; their rows without copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from mlefast import _core
from mlefast._gemm import row_distance

FloatArray = npt.NDArray[np.floating[Any]]


def is_multipliable(a: Any, b: FloatArray, out: FloatArray) -> bool:
    """Whether :func:`multiply` computes ``a b``: the dtypes, and a matrix in CSR or the transpose of one, CSC."""
    return (
        _format(a) in ("csr", "csc")
        and a.dtype == b.dtype
        and a.dtype in (np.float32, np.float64)
        and out.dtype in (a.dtype, np.float64)
    )


def multiply(a: Any, b: FloatArray, out: FloatArray, *, add: bool = False) -> FloatArray:
    r"""``out = a b``, or added to it, with the same bits for any number of threads; returns `out`.

    A matrix in CSR reads the rows of `b` that its entries name, and one in CSC writes the rows of `out`. Where those
    are not contiguous, there is a copy in between.

    Parameters
    ----------
    a : CSR or CSC matrix or array of float32 or float64, shape (n, m)
        Indices of int32 or int64, in any order; entries of the same place are added up.
    b : ndarray of the same dtype, shape (m, k)
    out : ndarray, shape (n, k)
        Of the same dtype, or of float64, in which a CSC matrix of float32 then sums up.

    Raises
    ------
    IndexError
        If an index is out of range.
    ValueError
        If shapes do not fit, or ``indptr`` is not ascending or exceeds the entries.

    Notes
    -----
    With :math:`u` the unit roundoff, an entry of a CSR product has an error below
    :math:`(\min(e, 512) + 2)\,u \sum |a_j b_j|` for a row of e entries: longer ones are summed up in float64 across
    blocks. One of a CSC product has one below :math:`(e + 1)\,u \sum |a_j b_j|`, or with float64 sums
    :math:`2u \sum |a_j b_j|`.
    """
    if b.shape != (a.shape[1], b.shape[1]) or out.shape != (a.shape[0], b.shape[1]):
        raise ValueError(
            f"received {a.shape} times {b.shape} for {out.shape}; accepted: (n, m) times (m, k) for (n, k)"
        )
    indptr, indices = a.indptr, a.indices
    if indptr.dtype != indices.dtype:
        indptr, indices = indptr.astype(np.int64), indices.astype(np.int64)
    b = b if _has_contiguous_rows(b) else np.ascontiguousarray(b)
    dtype = a.dtype if a.format == "csr" else out.dtype
    target = out if _has_contiguous_rows(out) and out.dtype == dtype else np.empty(out.shape, dtype)
    kernel = _core.csr_product if a.format == "csr" else _core.csr_transposed_product
    kernel(indptr, indices, a.data, b, target, add and target is out)
    if target is not out:
        if add:
            out += target
        else:
            out[...] = target
    return out


def rows_of(X: Any, some: slice) -> Any:
    """Rows of a dense or sparse matrix as views: SciPy would copy the entries of a slice."""
    if _format(X) != "csr":
        return X[some]
    start, stop, step = some.indices(X.shape[0])
    if step != 1:
        return X[some]
    if (start, stop) == (0, X.shape[0]):
        return X
    stop = max(start, stop)
    first, last = X.indptr[start], X.indptr[stop]
    parts = X.data[first:last], X.indices[first:last], X.indptr[start : stop + 1] - first
    return _of_parts(type(X), (stop - start, X.shape[1]), *parts)


def transpose_of(X: Any) -> Any:
    """Return a dense matrix's transpose, or a CSR matrix's as CSC, as a view."""
    if _format(X) != "csr":
        return X.T
    return _of_parts(scipy.sparse.csc_array, X.shape[::-1], X.data, X.indices, X.indptr)


# What is given to SciPy's constructors is copied if it is less than half of its base.
def _of_parts(kind: Any, shape: tuple[int, int], data: FloatArray, indices: Any, indptr: Any) -> Any:
    matrix = kind(shape, dtype=data.dtype)
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    return matrix


def _format(a: Any) -> str:
    matrix: Any = a
    return str(matrix.format) if scipy.sparse.issparse(a) else ""


def _has_contiguous_rows(array: FloatArray) -> bool:
    return array.size == 0 or (array.flags.aligned and row_distance(array) is not None)
