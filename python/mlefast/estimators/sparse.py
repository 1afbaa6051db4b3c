"""Products of sparse matrices by mlefast's threads, into memory that is there; rows of sparse matrices without copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from mlefast import _core

FloatArray = npt.NDArray[np.floating[Any]]


def is_multipliable(a: Any, b: FloatArray, out: FloatArray) -> bool:
    """Whether :func:`multiply` computes ``a b``: the dtypes, and a matrix in CSR or the transpose of one, CSC."""
    return (
        scipy.sparse.issparse(a)
        and a.format in ("csr", "csc")
        and a.dtype == b.dtype
        and a.dtype in (np.float32, np.float64)
        and out.dtype in ((a.dtype, np.float64) if a.format == "csc" else (a.dtype,))
    )


def multiply(a: Any, b: FloatArray, out: FloatArray, *, add: bool = False) -> FloatArray:
    r"""``out = a b``, or added to it, with the same bits for any number of threads; returns `out`.

    A matrix in CSR reads the rows of `b` that its entries name, and one in CSC writes the rows of `out`. Where those
    are not contiguous, a copy of their transpose is made in between: it is the smaller side of a classifier's products.

    Parameters
    ----------
    a : CSR or CSC matrix or array of float32 or float64, shape (n, m)
        Indices of int32 or int64, in any order; entries of the same place are added up.
    b : ndarray of the same dtype, shape (m, k)
    out : ndarray, shape (n, k)
        Of the same dtype; of float64 for a CSC matrix of float32 too, which then sums up in float64.

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
    target = out if _has_contiguous_rows(out) else np.empty(out.shape, out.dtype)
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
    if not scipy.sparse.issparse(X) or X.format != "csr":
        return X[some]
    start, stop, step = some.indices(X.shape[0])
    if step != 1:
        return X[some]
    if (start, stop) == (0, X.shape[0]):
        return X
    first, last = X.indptr[start], X.indptr[max(start, stop)]
    parts = X.data[first:last], X.indices[first:last], X.indptr[start : max(start, stop) + 1] - first
    return type(X)(parts, shape=(max(0, stop - start), X.shape[1]), copy=False)


def _has_contiguous_rows(array: FloatArray) -> bool:
    n_rows, n_columns = array.shape
    if array.size == 0:
        return True
    distance, rest = divmod(array.strides[0], array.itemsize)
    fits = n_rows == 1 or (rest == 0 and distance >= n_columns)
    return array.flags.aligned and fits and (n_columns == 1 or array.strides[1] == array.itemsize)
