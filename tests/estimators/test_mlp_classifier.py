"""MLPClassifier: scikit-learn's checks, what each option does, what is refused, and how fits end."""

from __future__ import annotations

import pickle
import warnings

import mlefast as mf
import numpy as np
import pytest
import scipy.sparse
from mlefast import MLPClassifier
from sklearn.datasets import load_digits, make_moons
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier as Peer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [MLPClassifier(max_iter=100), MLPClassifier(solver="sgd", learning_rate_init=0.01, max_iter=100)]
)
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, random_state=0, stratify=y)


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("solver", [{"solver": "adamw"}, {"solver": "sgd", "learning_rate_init": 0.03}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_learns_digits(digits, activation, solver, dtype):
    X, X_test, y, y_test = digits
    model = MLPClassifier((64,), activation, max_iter=60, tol=0, random_state=0, **solver).fit(X.astype(dtype), y)
    assert model.score(X_test.astype(dtype), y_test) > 0.96
    assert all(part.dtype == dtype for part in (*model.coefs_, *model.intercepts_))
    assert [coef.shape for coef in model.coefs_] == [(64, 64), (64, 10)]
    assert (model.n_iter_, model.n_layers_, model.n_outputs_) == (60, 3, 10)
    assert model.loss_ == model.loss_curve_[-1] < model.loss_curve_[0] / 5
    assert model.best_loss_ == min(model.loss_curve_)
    assert model.validation_scores_ is model.best_validation_score_ is None


def test_as_good_as_scikit_learn(digits):
    X, X_test, y, y_test = digits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = Peer((64,), max_iter=60, random_state=0).fit(X, y)
    ours = MLPClassifier((64,), max_iter=60, tol=0, batch_size=200, random_state=0).fit(X, y)
    assert ours.score(X_test, y_test) >= peer.score(X_test, y_test) - 0.015
    assert -ours.log_likelihood(X, y) / len(y) == pytest.approx(peer.loss_, abs=0.02)


def test_hidden_layers_see_what_is_not_linear():
    X, y = make_moons(600, noise=0.1, random_state=0)
    options = {"learning_rate_init": 0.01, "max_iter": 150, "tol": 0, "random_state": 0}
    deep = MLPClassifier((32, 32, 16), "tanh", **options).fit(X, y)
    assert len(deep.coefs_) == 4
    assert deep.score(X, y) > 0.99
    for linear in (MLPClassifier((), **options), MLPClassifier((8,), "identity", **options)):
        assert linear.fit(X, y).score(X, y) < 0.92


def test_no_hidden_layer_is_the_linear_model(digits):
    X, _, y, _ = digits
    linear = mf.SoftmaxClassifier(penalty=None, solver="sgd", learning_rate_init=0.1, max_iter=200, tol=0).fit(X, y)
    network = MLPClassifier((), solver="sgd", alpha=0, learning_rate_init=0.1, max_iter=200, tol=0).fit(X, y)
    assert network.log_likelihood(X, y) == pytest.approx(linear.log_likelihood(X, y), rel=0.02)


def test_same_seed_same_model(digits):
    X, _, y, _ = digits
    first, again, other = (
        MLPClassifier((20,), dropout=0.2, max_iter=3, tol=0, random_state=seed).fit(X, y) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.coefs_[0], again.coefs_[0])
    assert not np.array_equal(first.coefs_[0], other.coefs_[0])


def test_two_classes():
    X, y = make_moons(200, noise=0.1, random_state=0)
    labels = np.array(["lower", "upper"])[y]
    model = MLPClassifier((16,), learning_rate_init=0.02, max_iter=100, tol=0, random_state=0).fit(X, labels)
    scores = model.decision_function(X)
    assert scores.shape == (200,)
    np.testing.assert_array_equal(model.predict(X) == "upper", scores > 0)
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-scores)), rtol=1e-12)
    assert model.coefs_[-1].shape == (16, 2)


def test_log_likelihood(digits):
    X, _, y, _ = digits
    model = MLPClassifier((16,), max_iter=2, tol=0, random_state=0).fit(X, y)
    logs = model.predict_log_proba(X)[np.arange(len(y)), y]
    assert model.log_likelihood(X, y) == pytest.approx(logs.sum(), rel=1e-12)
    weight = np.linspace(0, 2, len(y))
    assert model.log_likelihood(X, y, weight) == pytest.approx(weight @ logs, rel=1e-12)
    with pytest.raises(ValueError, match="y: received the label 11"):
        model.log_likelihood(X[:1], [11])


@pytest.mark.parametrize("options", [{"solver": "sgd", "alpha": 0.05, "learning_rate_init": 0.05}, {"alpha": 3.0}])
def test_alpha_shrinks_weights(digits, options):
    X, _, y, _ = digits
    fixed = {"max_iter": 40, "tol": 0, "random_state": 0}
    shrunk = MLPClassifier((20,), **fixed, **options).fit(X, y)
    free = MLPClassifier((20,), **fixed, **{**options, "alpha": 0.0}).fit(X, y)
    norm = [sum(np.sum(coef**2) for coef in model.coefs_) for model in (shrunk, free)]
    assert norm[0] < 0.7 * norm[1]
    loss = -free.log_likelihood(X, y) / len(y)
    assert free.loss_curve_[-1] == pytest.approx(loss, rel=0.2)
    penalty = 0.025 * norm[0] if "solver" in options else 0
    assert shrunk.loss_curve_[-1] == pytest.approx(-shrunk.log_likelihood(X, y) / len(y) + penalty, rel=0.1)


def test_dropout_makes_confidence_dearer(digits):
    X, X_test, y, y_test = digits
    loss = {}
    for dropout in (0.0, 0.5):
        model = MLPClassifier((200,), dropout=dropout, max_iter=150, tol=0, random_state=0).fit(X, y)
        loss[dropout] = -model.log_likelihood(X, y) / len(y)
        assert model.score(X_test, y_test) > 0.96
        np.testing.assert_array_equal(model.predict_proba(X_test), model.predict_proba(X_test))
    assert loss[0.5] > loss[0.0]


@pytest.mark.parametrize(
    ("class_weight", "least", "most"), [(None, 0.01, 0.1), ("balanced", 0.15, 0.5), ({0: 1, 1: 0.02}, 0, 0.001)]
)
def test_class_weight(class_weight, least, most):
    random = np.random.default_rng(0)
    y = (random.random(1000) < 0.1).astype(int)
    X = random.standard_normal((1000, 2)) + y[:, None]
    options = {"learning_rate_init": 0.01, "max_iter": 60, "tol": 0, "random_state": 0}
    model = MLPClassifier((8,), class_weight=class_weight, **options).fit(X, y)
    assert least <= np.mean(model.predict(X)) <= most


def test_sample_weight_of_zero_is_absence(digits):
    X, _, y, _ = digits
    wrong = np.where(np.arange(len(y)) < 400, (y + 1) % 10, y)
    weight = (np.arange(len(y)) >= 400).astype(float)
    options = {"max_iter": 40, "tol": 0, "random_state": 0}
    assert MLPClassifier((30,), **options).fit(X, wrong, weight).score(X[:400], y[:400]) > 0.9
    assert MLPClassifier((30,), **options).fit(X, wrong).score(X[:400], y[:400]) < 0.85
    scaled = MLPClassifier((30,), **options).fit(X, wrong, 7 * weight)
    np.testing.assert_allclose(
        scaled.coefs_[0], MLPClassifier((30,), **options).fit(X, wrong, weight).coefs_[0], rtol=1e-6, atol=1e-8
    )
    with pytest.raises(ValueError, match="(at least one non-zero|weights that sum to 0)"):
        MLPClassifier().fit(X, y, np.zeros(len(y)))


def test_sparse_features(digits):
    X, X_test, y, _ = digits
    options = {"max_iter": 10, "tol": 0, "random_state": 0}
    dense = MLPClassifier((20,), **options).fit(X, y)
    for convert in (scipy.sparse.csr_array, scipy.sparse.csc_matrix):
        sparse = MLPClassifier((20,), **options).fit(convert(X), y)
        np.testing.assert_allclose(sparse.predict_proba(convert(X_test)), dense.predict_proba(X_test), rtol=1e-6)


def test_early_stopping_keeps_the_best(digits):
    X, X_test, y, y_test = digits
    seen = []
    model = MLPClassifier(
        (64,), early_stopping=True, validation_fraction=0.2, n_iter_no_change=5, max_iter=500, random_state=0,
        learning_rate_init=0.003, callback=lambda epoch, value: seen.append(epoch),
    ).fit(X, y)  # fmt: skip
    scores = model.validation_scores_
    assert seen == list(range(1, model.n_iter_ + 1))
    assert len(scores) == model.n_iter_ < 500
    assert model.best_validation_score_ == max(scores)
    assert max(scores[-5:]) <= max(scores[:-5]) + 1e-4
    assert model.score(X_test, y_test) > 0.9
    # The model that was kept is the one of the best epoch, not that of the last.
    best = int(np.argmax(scores)) + 1
    again = MLPClassifier(
        (64,), early_stopping=True, validation_fraction=0.2, max_iter=best, tol=0, random_state=0,
        learning_rate_init=0.003,
    ).fit(X, y)  # fmt: skip
    np.testing.assert_array_equal(model.coefs_[0], again.coefs_[0])


def test_stops_when_nothing_improves(digits):
    X, _, y, _ = digits
    model = MLPClassifier((30,), tol=1e-2, n_iter_no_change=3, max_iter=2000, random_state=0).fit(X, y)
    assert 3 < model.n_iter_ < 500


def test_unfinished_fit_warns(digits):
    X, _, y, _ = digits
    with pytest.warns(ConvergenceWarning, match="did not converge in 2 epochs"):
        MLPClassifier(max_iter=2).fit(X, y)


def test_a_diverging_fit_says_where_and_what_to_try(digits):
    X, _, y, _ = digits
    message = r"'sgd' diverged in epoch \d+, step \d+ .* smaller learning_rate_init than 1e\+30, or scale"
    with pytest.raises(FloatingPointError, match=message):
        MLPClassifier(solver="sgd", learning_rate_init=1e30, random_state=0).fit(X.astype(np.float32), y)
    with pytest.raises(FloatingPointError, match=r"'adamw' diverged in epoch 1, step 1 \(the loss is (nan|inf)\)"):
        MLPClassifier(random_state=0).fit(X * 1.5e308, y)
    with pytest.raises(FloatingPointError, match="a parameter is not finite"):
        MLPClassifier(solver="sgd", learning_rate_init=1e306, batch_size=2000, random_state=0).fit(X * 1e5, y)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_interrupted_fit_keeps_the_model(digits, early_stopping):
    X, X_test, y, y_test = digits

    def interrupt(epoch, value):
        if epoch == 40:
            raise KeyboardInterrupt

    model = MLPClassifier((30,), early_stopping=early_stopping, tol=0, random_state=0, callback=interrupt)
    with pytest.warns(ConvergenceWarning, match="interrupted after 40 epochs; the (best )?model"):
        model.fit(X, y)
    assert model.n_iter_ == 40
    assert len(model.loss_curve_) == 40
    assert model.score(X_test, y_test) > 0.9


def test_interrupted_partial_fit_is_left_to_the_caller(digits):
    X, _, y, _ = digits

    def interrupt(epoch, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MLPClassifier(callback=interrupt).partial_fit(X, y, classes=np.arange(10))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_warm_start_goes_on(digits):
    X, _, y, _ = digits
    model = MLPClassifier((20,), max_iter=10, warm_start=True, random_state=0).fit(X, y)
    first = model.loss_curve_[-1]
    assert model.fit(X, y).loss_curve_[0] < first
    model.set_params(hidden_layer_sizes=(21,)).fit(X, y)  # other sizes start anew
    assert model.coefs_[0].shape == (64, 21)
    cold = MLPClassifier((20,), max_iter=10, random_state=0).fit(X, y)
    assert cold.fit(X, y).loss_curve_[0] > first


def test_partial_fit(digits):
    X, X_test, y, y_test = digits
    model = MLPClassifier((32,), learning_rate_init=0.003, random_state=0)
    for _ in range(20):
        for first in range(0, len(X), 300):
            model.partial_fit(X[first : first + 300], y[first : first + 300], classes=np.arange(10))
    assert model.score(X_test, y_test) > 0.94
    assert len(model.loss_curve_) == model.n_iter_ == 100
    with pytest.raises(ValueError, match="classes: received None in the first call"):
        MLPClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="y: received the label"):
        model.partial_fit(X[:3], [1, 2, 77])
    with pytest.raises(ValueError, match="those of the first call"):
        model.partial_fit(X[:3], [1, 2, 3], classes=[1, 2, 3])
    with pytest.raises(ValueError, match="early_stopping: received True"):
        model.set_params(early_stopping=True).partial_fit(X, y)


def test_partial_fit_after_fit_starts_from_it(digits):
    X, _, y, _ = digits
    model = MLPClassifier((32,), max_iter=80, tol=0, random_state=0).fit(X, y)
    before = model.log_likelihood(X, y)
    assert model.partial_fit(X, y).log_likelihood(X, y) > 1.5 * before
    again = MLPClassifier((32,), max_iter=1, tol=0).fit(X, y).set_params(hidden_layer_sizes=(31,))
    with pytest.raises(ValueError, match=r"hidden_layer_sizes: received \(31,\); accepted: those .* \(32,\)"):
        again.partial_fit(X, y)


def test_epochs_of_partial_fit_are_those_of_fit(digits):
    """The optimiser's memory, and that of the random numbers, last from call to call."""
    X, _, y, _ = digits
    whole = MLPClassifier((20,), max_iter=4, tol=0, random_state=0).fit(X, y)
    parts = MLPClassifier((20,), random_state=0)
    for epoch in range(4):
        parts.partial_fit(X, y, classes=np.arange(10))
        if epoch == 1:
            parts = pickle.loads(pickle.dumps(parts))
    np.testing.assert_array_equal(whole.coefs_[0], parts.coefs_[0])
    assert whole.loss_curve_ == parts.loss_curve_


def test_verbose_and_callback(digits, capsys):
    X, _, y, _ = digits
    seen = []
    model = MLPClassifier((4,), max_iter=6, tol=0, verbose=3, callback=lambda *args: seen.append(args)).fit(X, y)
    assert seen == list(zip(range(1, 7), model.loss_curve_, strict=True))
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 3", "epoch 6"]


def test_pipeline_and_grid_search(digits):
    X, X_test, y, y_test = digits
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((30,), max_iter=100, tol=0, random_state=0))
    search = GridSearchCV(pipeline, {"mlpclassifier__dropout": [0.0, 0.2]}, cv=2, n_jobs=2).fit(X[:400], y[:400])
    assert search.score(X_test, y_test) > 0.85


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes: received \(3, 0\)"),
        ({"hidden_layer_sizes": 5}, "hidden_layer_sizes: received 5"),
        ({"hidden_layer_sizes": "12"}, "hidden_layer_sizes: received '12'"),
        ({"activation": "sigmoid"}, "activation: received 'sigmoid'"),
        ({"solver": "lbfgs"}, "solver: received 'lbfgs'"),
        ({"alpha": -1}, "alpha: received -1"),
        ({"alpha": np.inf}, "alpha: received inf"),
        ({"dropout": 1.0}, "dropout: received 1.0"),
        ({"dropout": -0.1}, "dropout: received -0.1"),
        ({"batch_size": 0}, "batch_size: received 0"),
        ({"learning_rate_init": "auto"}, "learning_rate_init: received 'auto'"),
        ({"learning_rate_init": 0}, "learning_rate_init: received 0"),
        ({"max_iter": 0}, "max_iter: received 0"),
        ({"tol": -1}, "tol: received -1"),
        ({"momentum": 1}, "momentum: received 1"),
        ({"validation_fraction": 0.0}, "validation_fraction: received 0.0"),
        ({"beta_1": 1.0}, "beta_1: received 1.0"),
        ({"beta_2": 1.0}, "beta_2: received 1.0"),
        ({"epsilon": 0}, "epsilon: received 0"),
        ({"n_iter_no_change": 0}, "n_iter_no_change: received 0"),
        ({"callback": 3}, "callback: received 3"),
    ],
)
def test_refused_parameters(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        MLPClassifier(**options).fit([[0.0], [1.0]], [0, 1])


def test_refused_data():
    with pytest.raises(ValueError, match="only one class"):
        MLPClassifier().fit([[0.0], [1.0]], [1, 1])
    with pytest.raises(ValueError, match="NaN"):
        MLPClassifier().fit([[np.nan], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="validation_fraction: received 0.1 with 4 samples of 2 classes"):
        MLPClassifier(early_stopping=True).fit(np.eye(4), [0, 0, 1, 1])
    with pytest.raises(NotFittedError):
        MLPClassifier().predict([[0.0]])
