"""The tables of docs/mappings.md: each function of another library gives what its row says, where that is installed."""

from __future__ import annotations

import mlefast as mf
import numpy as np
import pytest

R = np.random.default_rng(0)
X = R.standard_normal((6, 9)).astype(np.float32) * 3
Y = R.integers(0, 9, 6)
T = R.dirichlet(np.ones(9), 6).astype(np.float32)
B = R.integers(0, 2, (6, 9)).astype(np.float32)


def same(theirs, ours):
    np.testing.assert_allclose(np.asarray(theirs), ours, rtol=2e-6, atol=1e-7)


def test_tensorflow():
    nn = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: its table is tested in CI").nn
    same(nn.softmax(X), mf.softmax(X))
    same(nn.log_softmax(X), mf.log_softmax(X))
    same(nn.softmax_cross_entropy_with_logits(T, X), mf.cross_entropy(X, T, reduction="none"))
    same(nn.sparse_softmax_cross_entropy_with_logits(Y, X), mf.cross_entropy(X, Y, reduction="none"))
    same(nn.sigmoid_cross_entropy_with_logits(B, X), mf.binary_cross_entropy(X, B, reduction="none"))
    same(
        nn.weighted_cross_entropy_with_logits(B, X, 2.5),
        mf.binary_cross_entropy(X, B, pos_weight=2.5, reduction="none"),
    )


def test_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its table is tested in CI")
    functional = torch.nn.functional
    x, y, t, b = (torch.from_numpy(a) for a in (X, Y, T, B))
    same(torch.logsumexp(x, -1), mf.logsumexp(X))
    same(functional.softmax(x, -1), mf.softmax(X))
    same(functional.log_softmax(x, -1), mf.log_softmax(X))
    same(functional.cross_entropy(x, y), mf.cross_entropy(X, Y))
    same(functional.cross_entropy(x, t, label_smoothing=0.1), mf.cross_entropy(X, T, label_smoothing=0.1))
    same(functional.nll_loss(functional.log_softmax(x, -1), y), mf.cross_entropy(X, Y))
    same(functional.binary_cross_entropy_with_logits(x, b), mf.binary_cross_entropy(X, B))
    same(functional.kl_div(functional.log_softmax(x, -1), t, reduction="batchmean"), mf.kl_div(T, X))
    same(torch.special.entr(t).sum(-1), mf.entropy(T))
    policy = torch.distributions.Categorical(logits=x)
    same(policy.log_prob(y), mf.log_prob(X, Y))
    same(policy.entropy(), mf.log_prob_and_entropy(X, Y)[1])


def test_optax():
    optax = pytest.importorskip("optax", reason="optax is not installed: its table is tested in CI")
    same(optax.softmax_cross_entropy(X, T), mf.cross_entropy(X, T, reduction="none"))
    same(optax.softmax_cross_entropy_with_integer_labels(X, Y), mf.cross_entropy(X, Y, reduction="none"))
    same(optax.sigmoid_binary_cross_entropy(X, B), mf.binary_cross_entropy(X, B, reduction="none"))
    jax = pytest.importorskip("jax")
    same(optax.kl_divergence(jax.nn.log_softmax(X), T), mf.kl_div(T, X, reduction="none"))
    smooth = optax.smooth_labels(np.eye(9, dtype=np.float32)[Y], 0.1)
    same(optax.softmax_cross_entropy(X, smooth), mf.cross_entropy(X, Y, label_smoothing=0.1, reduction="none"))


def test_jax():
    jax = pytest.importorskip("jax", reason="JAX is not installed: its table is tested in CI")
    same(jax.nn.softmax(X), mf.softmax(X))
    same(jax.nn.log_softmax(X), mf.log_softmax(X))
    same(jax.scipy.special.logsumexp(X, -1), mf.logsumexp(X))

    def loss(x):
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(x), Y[:, None], 1).mean()

    same(jax.grad(loss)(X), mf.cross_entropy_and_grad(X, Y)[1])
    same(jax.jvp(jax.grad(loss), (X,), (T,))[1], mf.cross_entropy_hvp(X, Y, T))
    diagonal = jax.hessian(lambda x: -jax.nn.log_softmax(x)[Y[0]])(X[0])
    same(np.diag(diagonal), mf.cross_entropy_grad_hess(X[:1], Y[:1])[1][0])


def test_scipy():
    special, stats = (pytest.importorskip(f"scipy.{name}") for name in ("special", "stats"))
    same(special.logsumexp(X, axis=None), mf.logsumexp(X, axis=None))
    same(special.softmax(X, axis=0), mf.softmax(X, axis=0))
    same(special.log_softmax(X, axis=0), mf.log_softmax(X, axis=0))
    same(stats.entropy(T, axis=-1), mf.entropy(T))
    same(special.rel_entr(T, mf.softmax(X)).sum(-1), mf.kl_div(T, X, reduction="none"))
    distance = pytest.importorskip("scipy.spatial.distance")
    same(distance.jensenshannon(T, mf.softmax(X), axis=-1) ** 2, mf.js_div(T, X, reduction="none"))


def test_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    same(metrics.log_loss(Y, mf.softmax(X.astype(np.float64)), labels=range(9)), mf.cross_entropy(X, Y))
    branch = R.integers(0, 3, 100)
    label = R.integers(0, 4, 100)
    counts = np.histogram2d(branch, label, (3, 4))[0]
    same(metrics.mutual_info_score(branch, label), mf.information_gain(counts))
