"""NLL = KL + H, by hand and on data in which samples repeat."""

from __future__ import annotations

import math

import mlefast as mf
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mlefast.cli import evaluation
from mlefast.cli.evaluation import class_indices, evaluate, identical_rows
from mlefast.data import DataError, Dataset
from mlefast.model_file import LinearModel


def dataset(X, y):
    X = X if scipy.sparse.issparse(X) else np.asarray(X, dtype=np.float32)
    return Dataset(X, None if y is None else np.asarray(y), None, None, "data")


MODEL = LinearModel(np.array([[1.0, 0], [0, 1], [-1, -1]]), np.array([0.1, 0, -0.2]), np.array(["a", "b", "c"]))


def test_by_hand():
    # At x = 0 the model says softmax(0.1, 0, -0.2); three samples there are a, a, b; a fourth one lies elsewhere.
    data = dataset([[0, 0], [0, 0], [3, 1], [0, 0]], ["a", "a", "c", "b"])
    z = math.exp(0.1) + 1 + math.exp(-0.2)
    log_p = [0.1 - math.log(z), -math.log(z), -0.2 - math.log(z)]
    elsewhere = -4.2 - math.log(math.exp(3.1) + math.exp(1) + math.exp(-4.2))
    result = evaluate(MODEL, data)
    entropy = -3 / 4 * (2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    kl = 3 / 4 * (2 / 3 * (math.log(2 / 3) - log_p[0]) + 1 / 3 * (math.log(1 / 3) - log_p[1])) - elsewhere / 4
    assert result.entropy == pytest.approx(entropy, rel=1e-13)
    assert result.kl == pytest.approx(kl, rel=1e-13)
    assert result.nll == pytest.approx(-(2 * log_p[0] + log_p[1] + elsewhere) / 4, rel=1e-13)
    assert result.accuracy == 0.5
    assert result.samples == 4
    np.testing.assert_array_equal(result.confusion, [[2, 0, 0], [1, 0, 0], [1, 0, 0]])


@given(
    X=arrays(np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=st.sampled_from([-1.0, -0.0, 0.0, 2.0])),
    seed=st.integers(0, 99),
    sparse=st.booleans(),
)
def test_identity_on_samples_that_repeat(X, seed, sparse):
    y = np.random.default_rng(seed).choice(["a", "b", "c"], len(X))
    result = evaluate(MODEL, dataset(scipy.sparse.csr_matrix(X) if sparse else X, y))
    assert result.nll == pytest.approx(result.kl + result.entropy, rel=1e-12)
    assert result.kl >= -1e-15
    assert 0 <= result.entropy <= math.log(3)
    distinct = len({tuple(row) for row in X.tolist()})
    if distinct == len(X):
        assert result.entropy == 0
        assert math.copysign(1, result.entropy) == 1  # it is printed: no "-0"


def test_broken_identity_is_not_printed(monkeypatch):
    real = mf.cross_entropy
    monkeypatch.setattr(evaluation.mf, "cross_entropy", lambda logits, target: real(logits, target) * (1 + 1e-6))
    with pytest.raises(ArithmeticError, match="NLL"):
        evaluate(MODEL, dataset([[0, 1]], ["a"]))


@given(
    arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.sampled_from([0, -0.0, 1, 2.5]))
)
def test_identical_rows(X):
    numbers = identical_rows(X)
    seen = {}
    assert numbers.tolist() == [seen.setdefault(tuple(row), len(seen)) for row in X.tolist()]
    np.testing.assert_array_equal(identical_rows(scipy.sparse.csr_matrix(X)), numbers)


def test_identical_sparse_rows_however_they_are_stored():
    X = scipy.sparse.csr_matrix(
        (np.array([1, 2, 2, 1, 1, 2, 0], np.float32), np.array([0, 1, 1, 0, 0, 1, 2]), np.array([0, 2, 4, 7])), (3, 3)
    )
    np.testing.assert_array_equal(identical_rows(X), [0, 0, 0])
    assert X.nnz == 7  # the data are left as they were


def test_labels_are_found_in_any_order_and_as_text():
    data = dataset(np.zeros((3, 2)), [10, 9, 10])
    np.testing.assert_array_equal(class_indices(np.array([9, 10]), data), [1, 0, 1])
    np.testing.assert_array_equal(class_indices(np.array(["x", "9", "10"]), data), [2, 1, 2])


@pytest.mark.parametrize(("y", "found"), [(None, "no labels"), (["a", "d"], "the label d"), ([1, 2], "the label 1")])
def test_labels_that_do_not_fit(y, found):
    with pytest.raises(DataError, match=found):
        evaluate(MODEL, dataset(np.zeros((2, 2)), y))
