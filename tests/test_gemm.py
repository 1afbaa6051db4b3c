"""The products of SciPy's BLAS: every layout that is read in place, what is added to, what is refused."""

from __future__ import annotations

import threading

import mlefast
import numpy as np
import pytest
from mlefast._gemm import gemm, is_readable, multiply

SIZES = [(3, 4, 5), (1, 1, 1), (7, 1, 2), (1, 6, 3), (1, 5, 1), (60, 50, 70), (4, 5, 0), (0, 3, 2), (3, 0, 2)]


def matrix(r, rows, columns, dtype, kind):
    """A matrix whose rows or columns lie further apart than they are long."""
    if kind == "columns":
        return r.standard_normal((columns, rows + 3)).astype(dtype)[:, :rows].T
    return r.standard_normal((rows, columns + 3)).astype(dtype)[:, :columns]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("a_kind", ["rows", "columns"])
@pytest.mark.parametrize("b_kind", ["rows", "columns"])
@pytest.mark.parametrize("size", SIZES)
def test_product(dtype, a_kind, b_kind, size):
    rows, columns, inner = size
    r = np.random.default_rng(0)
    a, b = matrix(r, rows, inner, dtype, a_kind), matrix(r, inner, columns, dtype, b_kind)
    if rows and columns and inner:
        assert is_readable(a, np.dtype(dtype))
        assert is_readable(b, np.dtype(dtype))
    whole = r.standard_normal((rows, columns + 2)).astype(dtype)
    want = whole.astype(np.float64)
    want[:, :columns] = 2 * (a.astype(np.float64) @ b.astype(np.float64)) + 0.5 * want[:, :columns]
    gemm(2.0, a, b, 0.5, whole[:, :columns])
    np.testing.assert_allclose(whole, want, rtol=0, atol=100 * np.finfo(dtype).eps * max(1, inner))
    np.testing.assert_array_equal(whole[:, columns:], want[:, columns:])  # beside it nothing was written
    whole[:] = np.nan
    gemm(1.0, a, b, 0.0, whole[:, :columns])
    want = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(whole[:, :columns], want, rtol=0, atol=100 * np.finfo(dtype).eps * max(1, inner))


TILED = [*SIZES, (300, 500, 200), (2000, 10, 300), (10, 2000, 300), (333, 1, 20000), (1, 333, 20000), (1000, 1100, 90)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("a_kind", ["rows", "columns"])
@pytest.mark.parametrize("b_kind", ["rows", "columns"])
@pytest.mark.parametrize("size", TILED)
def test_product_in_tiles(dtype, a_kind, b_kind, size):
    rows, columns, inner = size
    r = np.random.default_rng(0)
    a, b = matrix(r, rows, inner, dtype, a_kind), matrix(r, inner, columns, dtype, b_kind)
    whole = r.standard_normal((rows, columns + 2)).astype(dtype)
    begin = whole.copy()
    want = whole.astype(np.float64)
    want[:, :columns] = a.astype(np.float64) @ b.astype(np.float64) + 0.5 * want[:, :columns]
    results = []
    for threads in (1, 2, 3):
        mlefast.set_num_threads(threads)
        whole[:] = begin
        try:
            assert multiply(a, b, whole[:, :columns], beta=0.5).base is whole
        finally:
            mlefast.set_num_threads(None)
        results.append(whole.copy())
    np.testing.assert_allclose(whole, want, rtol=0, atol=50 * np.finfo(dtype).eps * max(1, inner) ** 0.75)
    np.testing.assert_array_equal(whole[:, columns:], begin[:, columns:])  # beside it nothing was written
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    whole[:] = np.nan
    multiply(a, b, whole[:, :columns])
    assert not np.isnan(whole[:, :columns]).any()


def test_what_does_not_fit_in_tiles_is_refused():
    x, y = np.zeros((2, 3), np.float32), np.zeros((3, 4), np.float32)
    c = np.zeros((2, 4), np.float32)
    frozen = c.copy()
    frozen.flags.writeable = False
    for a, b, out in (
        (x, y, c.astype(np.float64)),
        (x, y, c[:, :3]),
        (x, y[:2], c),
        (x[:, ::-1], y, c),
        (np.zeros((2, 6), np.float32)[:, ::2], y, c),
        (x, y, np.zeros((2, 8), np.float32)[:, ::2]),
        (x, y, frozen),
        (x.astype(np.float16), y, c),
    ):
        with pytest.raises(ValueError, match="a, b, c|matri"):
            multiply(a, b, out)


def test_what_cannot_be_read_in_place():
    x = np.zeros((6, 8), np.float32)
    float32 = np.dtype(np.float32)
    for array in (x, x.T, x[::2], x[:, 2:5], x[:, :1], x[:1, ::2].T):
        assert is_readable(array, float32)
    unaligned = np.frombuffer(bytearray(4 * 48 + 1), np.uint8)[1:].view(np.float32).reshape(6, 8)
    for array in (x[:, ::2], x[::-1], x[:, ::-1], np.broadcast_to(x[0], (6, 8)), x.astype(np.float64), unaligned):
        assert not is_readable(array, float32)


def test_what_does_not_fit_is_refused():
    x, y = np.zeros((2, 3), np.float32), np.zeros((4, 2), np.float32)
    for a, b, c in ((x, y, np.zeros((2, 2), np.float32)), (x, x.T, np.zeros((2, 3), np.float32)), (x, x.T, np.eye(2))):
        with pytest.raises(ValueError, match="gemm"):
            gemm(1.0, a, b, 0.0, c)
    with pytest.raises(ValueError, match="strides"):
        gemm(1.0, x[:, ::2], y[:2], 0.0, np.zeros((2, 2), np.float32))


def test_other_threads_run_meanwhile():
    """A product of a second must not stop a program's other threads for a second."""
    a = np.ones((1500, 1500))
    turns, done = 0, threading.Event()

    def count():
        nonlocal turns
        while not done.wait(0.001):
            turns += 1

    thread = threading.Thread(target=count)
    out = np.empty_like(a)
    gemm(1.0, a, a, 0.0, out)  # the library is loaded and its threads are started
    thread.start()
    for _ in range(3):
        gemm(1.0, a, a, 0.0, out)
    done.set()
    thread.join()
    assert turns > 3
