"""Products of CSR matrices and their transposes: every type and layout, any number of threads, and what is refused."""

from __future__ import annotations

from functools import partial

import mlefast
import numpy as np
import pytest
import scipy.sparse
from mlefast import MLPClassifier, SoftmaxClassifier, _core
from mlefast.estimators import objective as objective_module
from mlefast.estimators.blas import product
from mlefast.estimators.sparse import is_multipliable, multiply, rows_of, transpose_of

SHAPES = [(1, 1), (40, 30), (0, 5), (5, 0), (0, 0), (7, 200), (300, 3)]


def random_csr(rows, columns, dtype, index, *, density=0.2, seed=0):
    """Some rows and columns are empty, and numbers are of many magnitudes."""
    r = np.random.default_rng(seed)
    x = r.standard_normal((rows, columns)) * 10.0 ** r.integers(-3, 4, (rows, columns))
    x[r.random(x.shape) > density] = 0
    x[1::5] = 0
    x[:, 2::7] = 0
    csr = scipy.sparse.csr_array(x.astype(dtype))
    csr.indptr, csr.indices = csr.indptr.astype(index), csr.indices.astype(index)
    return csr


def check(got, x, b, before, entries):
    """Each number against the sum of its own terms' magnitudes: an absolute bound would pass lost small ones."""
    x, b = np.asarray(x, np.float64), np.asarray(b, np.float64)
    want, size = x @ b + before, np.abs(x) @ np.abs(b) + np.abs(before)
    u = np.finfo(got.dtype).eps / 2
    assert np.all(np.abs(got - want) <= (entries + 3) * max(u, 2e-16) * size)


def with_threads(count, work):
    mlefast.set_num_threads(count)
    try:
        return work()
    finally:
        mlefast.set_num_threads(None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_product(dtype, index, transposed, shape):
    x = random_csr(*shape, dtype, index)
    assert x.indices.dtype == x.indptr.dtype == index
    a = x.T if transposed else x
    dense = a.toarray()
    entries = max(np.count_nonzero(dense, axis=1), default=0)
    r = np.random.default_rng(1)
    for k in (1, 2, 3, 7, 8, 20, 63, 64, 65, 70, 130):
        b = r.standard_normal((a.shape[1], k)).astype(dtype)
        for add in (False, True):
            for out_dtype in {dtype, np.float64}:
                wide = r.standard_normal((a.shape[0], k + 3)).astype(out_dtype)
                begin = wide.copy()
                out = wide[:, 1 : k + 1]
                before = begin[:, 1 : k + 1] if add else np.zeros_like(out)
                if not add:
                    out[:] = np.nan
                assert is_multipliable(a, b, out)
                assert multiply(a, b, out, add=add) is out
                check(out.astype(dtype), dense, b, before, entries)
                np.testing.assert_array_equal(wide[:, [0, -2, -1]], begin[:, [0, -2, -1]])


@pytest.mark.parametrize("transposed", [False, True])
def test_every_layout_of_the_factors(transposed):
    a = random_csr(50, 40, np.float32, np.int32)
    a = a.T if transposed else a
    r = np.random.default_rng(0)
    b = r.standard_normal((a.shape[1], 6)).astype(np.float32)
    want = multiply(a, b, np.empty((a.shape[0], 6), np.float32))
    for same in (
        np.asfortranarray(b),
        np.repeat(b, 2, axis=1)[:, ::2],
        np.repeat(b, 2, axis=0)[::2],
        b[::-1].copy()[::-1],
    ):
        for out in (np.empty((6, len(want)), np.float32).T, np.empty((len(want), 12), np.float32)[:, ::2]):
            for add in (False, True):
                out[:] = 1
                np.testing.assert_allclose(
                    multiply(a, same, out, add=add), want + add, rtol=1e-5, atol=1e-6 * abs(want).max()
                )


@pytest.mark.parametrize("transposed", [False, True])
def test_unsorted_and_duplicate_indices(transposed):
    indptr = np.array([0, 4, 4, 7], np.int32)
    indices = np.array([3, 0, 3, 1, 2, 2, 2], np.int32)
    x = scipy.sparse.csr_array((np.arange(1.0, 8), indices, indptr), (3, 4))
    dense = np.array([[2, 4, 0, 4], [0, 0, 0, 0], [0, 0, 18, 0]], float)
    a, dense = (x.T, dense.T) if transposed else (x, dense)
    b = np.random.default_rng(0).standard_normal((dense.shape[1], 5))
    np.testing.assert_allclose(multiply(a, b, np.empty((len(dense), 5))), dense @ b, rtol=1e-14)


def test_long_sums_keep_their_digits():
    """A sum of 200,000 equal numbers in float32 alone would be off by a hundred times the bound."""
    n = 200_000
    row = scipy.sparse.csr_array(np.full((1, n), 0.1, np.float32))
    one = multiply(row, np.full((n, 3), 0.1, np.float32), np.empty((1, 3), np.float32))
    exact = n * float(np.float32(0.1)) ** 2
    np.testing.assert_allclose(one, exact, rtol=514 * 2.0**-24)
    column = scipy.sparse.csr_array(np.full((n, 1), 0.1, np.float32))
    sums = multiply(column.T, np.full((n, 3), 0.1, np.float32), np.empty((1, 3)))
    np.testing.assert_allclose(sums, exact, rtol=2 * 2.0**-24)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_same_bits_with_any_number_of_threads(transposed, uneven):
    r = np.random.default_rng(0)
    x = random_csr(900, 700, np.float32, np.int32, density=0.3)
    if uneven:  # nearly all entries in a few columns and rows
        heavy = r.random(x.shape) < 0.02
        heavy[:20, :] = heavy[:, 600:620] = True
        x = scipy.sparse.csr_array(np.where(heavy, r.standard_normal(x.shape), 0).astype(np.float32))
    a = x.T if transposed else x
    b = r.standard_normal((a.shape[1], 21)).astype(np.float32)
    results = [
        with_threads(n, lambda: multiply(a, b, np.full((a.shape[0], 21), np.nan, np.float32))) for n in (1, 2, 4)
    ]
    check(results[0], a.toarray(), b, 0 * results[0], a.shape[1])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("kernel", [_core.csr_product, _core.csr_transposed_product])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_out_of_range_is_refused(kernel, index, threads):
    n, m, k = 600, 500, 16
    x = random_csr(n, m, np.float64, index, density=0.5)
    transposed = kernel is _core.csr_transposed_product
    dense, out = (np.ones((n, k)), np.zeros((m, k))) if transposed else (np.ones((m, k)), np.zeros((n, k)))
    where = int(x.indptr[300])
    limits = np.iinfo(index)
    for wrong in (-1, m, m + 1, limits.max, limits.min):
        indices = x.indices.copy()
        indices[where] = wrong
        with pytest.raises(IndexError, match=f"indices: received {wrong} in row 300; accepted: 0 to {m - 1}"):
            with_threads(threads, partial(kernel, x.indptr, indices, x.data, dense, out, False))
    for at, wrong in ((300, -1), (300, limits.max), (n, len(x.data) + 1), (0, -5)):
        indptr = x.indptr.copy()
        indptr[at] = wrong
        with pytest.raises(ValueError, match="indptr: received .* accepted: ascending"):
            with_threads(threads, partial(kernel, indptr, x.indices, x.data, dense, out, False))


def test_what_does_not_fit_is_refused():
    x = random_csr(6, 5, np.float32, np.int32)
    parts, b = (x.indptr, x.indices, x.data), np.zeros((5, 3), np.float32)
    out = np.zeros((6, 3), np.float32)
    frozen = out.copy()
    frozen.flags.writeable = False
    for kernel, good in ((_core.csr_product, (b, out)), (_core.csr_transposed_product, (out.copy(), b.copy()))):
        dense, into = good
        kernel(*parts, dense, into, False)
        for bad in (
            (dense[:-1], into),
            (dense[:, :2], into),
            (dense.astype(np.float64), into),
            (np.zeros((len(dense), 6), np.float32)[:, ::2], into),
            (dense, np.zeros((len(into), 6), np.float32)[:, ::2]),
            (dense, into[::-1]),
            (dense, into.astype(np.float16)),
            (dense, np.frombuffer(into.tobytes(), np.float32).reshape(into.shape)),
        ):
            with pytest.raises((ValueError, IndexError), match="dense|out|indices"):
                kernel(*parts, *bad, False)
        for wrong in (
            (x.indptr.astype(np.int64), x.indices, x.data),
            (x.indptr.astype(np.int16), x.indices.astype(np.int16), x.data),
            (x.indptr, x.indices[:-1], x.data),
            (x.indptr, np.repeat(x.indices, 2)[::2], x.data),
            (x.indptr, x.indices, x.data.astype(np.float16)),
            (x.indptr[:0], x.indices, x.data),
        ):
            with pytest.raises(ValueError, match="indptr|indices|data"):
                kernel(*wrong, dense, into, False)
    with pytest.raises(ValueError, match="accepted"):
        multiply(x, b[:4], out)
    with pytest.raises(ValueError, match="accepted"):
        multiply(x, b, out[:5])


def test_other_types_are_scipys():
    """A model of float32 predicts samples of float64."""
    x = random_csr(8, 6, np.float64, np.int32)
    b = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    np.testing.assert_allclose(product(x, b, np.ones((8, 3), np.float32), add=True), x @ b + 1, rtol=1e-5)
    mixed = random_csr(8, 6, np.float64, np.int32)
    mixed.indptr = mixed.indptr.astype(np.int64)
    b = b.astype(np.float64)
    np.testing.assert_allclose(product(mixed, b, np.empty((8, 3))), x @ b, rtol=1e-12)


def test_rows_are_views():
    x = random_csr(20, 6, np.float32, np.int32)
    assert rows_of(x, slice(0, 20)) is x
    for some in (slice(3, 9), slice(0, 5), slice(15, 99), slice(4, 4), slice(9, 3), slice(None, None, 2)):
        part = rows_of(x, some)
        np.testing.assert_array_equal(part.toarray(), x.toarray()[some])
        if some.step is None and part.nnz:
            assert np.shares_memory(part.data, x.data)
            assert np.shares_memory(part.indices, x.indices)
            assert np.shares_memory(transpose_of(part).data, x.data)
        np.testing.assert_array_equal(transpose_of(part).toarray(), x.toarray()[some].T)


def text_like(index=np.int32):
    r = np.random.default_rng(0)
    X = scipy.sparse.random(800, 300, density=0.05, format="csr", random_state=0, dtype=np.float32)
    X.indptr, X.indices = X.indptr.astype(index), X.indices.astype(index)
    y = np.argmax(X @ r.standard_normal((300, 4)) + 0.1 * r.standard_normal((800, 4)), axis=1)
    return X, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        SoftmaxClassifier(max_iter=200, tol=1e-5),  # to the solution: only dense samples are preconditioned here
        SoftmaxClassifier(solver="newton-cg", max_iter=50, tol=1e-5),
        SoftmaxClassifier(solver="adamw", max_iter=2, tol=0, batch_size=300, random_state=0),
        MLPClassifier((70,), max_iter=2, tol=0, batch_size=300, random_state=0),
    ],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_fits(monkeypatch, estimator, in_pieces):
    """As of dense samples, to what float32 leaves, and to the same bits with any number of threads."""
    X, y = text_like()
    if in_pieces:
        monkeypatch.setattr(objective_module, "_LOGITS", 4 * 300)
    coefs = []
    for threads, samples in ((1, X), (2, X), (1, text_like(np.int64)[0]), (1, X.toarray())):
        model = with_threads(threads, lambda samples=samples: estimator.fit(samples, y))
        coefs.append(model.coefs_[0] if isinstance(model, MLPClassifier) else model.coef_)
        np.testing.assert_allclose(model.predict_proba(samples), model.predict_proba(X.toarray()), atol=1e-5)
    np.testing.assert_array_equal(coefs[0], coefs[1])
    np.testing.assert_array_equal(coefs[0], coefs[2])
    np.testing.assert_allclose(coefs[0], coefs[3], atol=2e-3 * np.abs(coefs[3]).max())


def test_newton_cg_goes_on_while_it_gains():
    """With rare features the mean gradient is below tol long before the solution; lbfgs happens to go further."""
    r, n = np.random.default_rng(0), 1000
    y = r.integers(0, 5, n)
    own, any_word = y[:, None] * 1000 + r.integers(0, 1000, (n, 20)), r.integers(0, 5000, (n, 20))
    words = np.where(r.random((n, 20)) < 0.5, own, any_word)
    X = scipy.sparse.csr_matrix((np.ones(words.size), words.ravel(), np.arange(0, words.size + 1, 20)), (n, 5000))
    newton = SoftmaxClassifier(solver="newton-cg", tol=4e-3).fit(X, y)
    best = SoftmaxClassifier(tol=1e-7, max_iter=1000).fit(X, y)
    assert newton.loss_curve_[-1] <= 1.02 * best.loss_curve_[-1]


def test_wrong_samples_are_refused():
    X, y = text_like()
    X.indices[5] = 300
    with pytest.raises((IndexError, ValueError), match="ind"):
        SoftmaxClassifier().fit(X, y)
