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
from mlefast.cli.evaluation import check_labels, class_indices, class_scores, evaluate, identical_rows
from mlefast.data import DataError, Dataset, load, open_stream
from mlefast.model_file import LinearModel
from sklearn.metrics import precision_recall_fscore_support


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

    def broken(logits, target, **options):
        loss = real(logits, target, **options)
        loss[0] *= 1 + 1e-6
        return loss

    monkeypatch.setattr(evaluation.mf, "cross_entropy", broken)
    with pytest.raises(ArithmeticError, match="NLL"):
        evaluate(MODEL, dataset([[0, 1], [0, 1]], ["a", "a"]))


@given(
    arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.sampled_from([0, -0.0, 1, 2.5]))
)
def test_identical_rows(X):
    same = (X[:, None] == X).all(axis=2)
    for stored in (X, scipy.sparse.csr_matrix(X)):
        numbers = identical_rows(stored)
        np.testing.assert_array_equal(numbers[:, None] == numbers, same)
        assert set(numbers.tolist()) == set(range(len({tuple(row) for row in X.tolist()})))


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


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_streams_in_any_batches(tmp_path, batch_size):
    random = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", random.integers(-1, 2, (40, 2)).astype(np.float32))  # samples repeat
    np.save(tmp_path / "y.npy", random.choice(["a", "b", "c"], 40))
    whole = evaluate(MODEL, load(tmp_path / "X.npy"))
    parts = evaluate(MODEL, open_stream(tmp_path / "X.npy", batch_size=batch_size))
    assert whole.entropy > 0.1
    for name in ("samples", "accuracy"):
        assert getattr(parts, name) == getattr(whole, name)
    for name in ("nll", "kl", "entropy"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-14)
    np.testing.assert_array_equal(parts.confusion, whole.confusion)
    for name in ("edges", "weight", "confidence", "accuracy"):
        np.testing.assert_allclose(getattr(parts.reliability, name), getattr(whole.reliability, name), rtol=1e-14)


def test_scores_of_classes():
    random = np.random.default_rng(1)
    X, y = random.standard_normal((200, 2)), random.choice(["a", "b"], 200)  # c is predicted but never there
    data = dataset(X, y)
    scores = class_scores(evaluate(MODEL, data))
    expected = precision_recall_fscore_support(y, MODEL.predict(data.X), labels=["a", "b", "c"], zero_division=0)
    for ours, theirs in zip((scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    assert scores.support.tolist()[2] == scores.recall[2] == 0


def test_labels_are_checked_beforehand(tmp_path):
    check_labels(MODEL.classes, dataset(np.zeros((2, 2)), ["a", "c"]))
    np.save(tmp_path / "X.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match="no labels"):
        check_labels(MODEL.classes, open_stream(tmp_path / "X.npy"))
    np.save(tmp_path / "y.npy", np.array(["a", "d"]))
    for data in (load(tmp_path / "X.npy"), open_stream(tmp_path / "X.npy")):
        with pytest.raises(DataError, match="the label d"):
            check_labels(MODEL.classes, data)
