"""Estimators fitted on a real GPU against the same fits on the host."""

from __future__ import annotations

import numpy as np
import pytest
from estimators import test_machines as fits
from mlefast.estimators import machines

try:
    import cupy
except ImportError:  # conftest.py skips all of them and says so
    cupy = None


@pytest.fixture
def same_dropout(monkeypatch):
    """The host draws the numbers of dropout as a device does."""
    monkeypatch.setattr(machines.Host, "uniform", lambda self, random, out: fits.DEVICE.uniform(random, out))


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", fits.LINEAR)
def test_linear_fits(name, n_classes, weighted):
    fits.test_linear_fits(cupy, name, n_classes, weighted)


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", fits.DEEP)
def test_deep_fits(name, weighted):
    fits.test_deep_fits(cupy, name, weighted)


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("model", fits.MODELS)
@pytest.mark.parametrize("test", [fits.test_partial_fit_and_pickle, fits.test_streams, fits.test_float32_stays_float32])
def test_other_ways_to_fit(test, model):
    test(cupy, model)


@pytest.mark.usefixtures("same_dropout")
@pytest.mark.parametrize("first_on_device", [True, False])
@pytest.mark.parametrize("name", ["sgd", "lbfgs", "newton-cg", "deep"])
def test_checkpoints(tmp_path, name, first_on_device):
    fits.test_checkpoints_resume_on_either_machine(cupy, tmp_path, name, first_on_device)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("model", fits.MODELS)
def test_answers(model, n_classes):
    fits.test_answers(cupy, model, n_classes)


@pytest.mark.parametrize("model", fits.MODELS)
def test_refused(model):
    fits.test_refused_arrays(cupy, model)
    fits.test_divergence_names_the_epoch(cupy, model)


def test_a_larger_fit():
    """As many products and pieces as a real one has: 784 features, logits in two pieces."""
    random = np.random.default_rng(0)
    X = random.standard_normal((500_000, 784), np.float32)
    y = np.argmax(X[:, :10] + random.gumbel(size=(len(X), 10)), axis=1)
    model = fits.linear({"solver": "lbfgs", "tol": 1e-3}).fit(cupy.asarray(X), cupy.asarray(y))
    want = fits.linear({"solver": "lbfgs", "tol": 1e-3}).fit(X, y)
    np.testing.assert_allclose(model.coef_, want.coef_, atol=1e-3)
    assert model.loss_curve_[-1] == pytest.approx(want.loss_curve_[-1], rel=1e-5)
