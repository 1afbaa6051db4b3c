"""NumPy, SciPy and CuPy's copy of it, scikit-learn: gradients are written down, as their users do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlefast.bench.arrays import Arrays
from mlefast.bench.cases import KERNELS, Case
from mlefast.bench.peers.base import Call, Functions, NotOffered, plain_call


def by_numpy(case: Case, sets: Sequence[Arrays]) -> Call:
    """Prepare NumPy's calls."""
    rows = np.arange(case.rows)

    def parts(x: Any) -> tuple[Any, Any, Any]:
        m = x.max(axis=1, keepdims=True)
        e = x - m
        np.exp(e, out=e)
        return m, e, e.sum(axis=1, keepdims=True)

    def logsumexp(x: Any) -> Any:
        m, _, s = parts(x)
        return (m + np.log(s))[:, 0]

    def softmax(x: Any) -> Any:
        _, e, s = parts(x)
        e /= s
        return e

    def log_softmax(x: Any) -> Any:
        shifted = x - x.max(axis=1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return shifted

    def cross_entropy(x: Any, y: Any) -> Any:
        return (logsumexp(x) - x[rows, y]).mean()

    def cross_entropy_and_grad(x: Any, y: Any) -> Any:
        m, e, s = parts(x)
        loss = ((m + np.log(s))[:, 0] - x[rows, y]).mean()
        e /= s
        e[rows, y] -= 1
        e /= len(x)
        return loss, e

    def of_probabilities(x: Any, t: Any) -> Any:
        return -(t * log_softmax(x)).sum() / len(x)

    def of_probabilities_and_grad(x: Any, t: Any) -> Any:
        log_p = log_softmax(x)
        loss = -(t * log_p).sum() / len(x)
        np.exp(log_p, out=log_p)
        log_p -= t
        log_p /= len(x)
        return loss, log_p

    def log_prob(x: Any, y: Any) -> Any:
        return x[rows, y] - logsumexp(x)

    def binary(x: Any, t: Any) -> Any:
        return (np.logaddexp(0, x) - t * x).mean()

    def binary_and_grad(x: Any, t: Any) -> Any:
        gradient = 1 / (1 + np.exp(-x))
        gradient -= t
        gradient /= x.size
        return binary(x, t), gradient

    def cross_entropy_hvp(x: Any, _: Any, v: Any) -> Any:
        return softmax_vjp(softmax(x), v) / len(x)

    def cross_entropy_grad_hess(x: Any, y: Any) -> Any:
        gradient = softmax(x)
        hessian = gradient * (1 - gradient)
        gradient[rows, y] -= 1
        return gradient, hessian

    def softmax_vjp(p: Any, u: Any) -> Any:
        return p * (u - (p * u).sum(axis=1, keepdims=True))

    functions: Functions = {
        "logsumexp": logsumexp,
        "softmax": softmax,
        "log_softmax": log_softmax,
        "cross_entropy": cross_entropy,
        "cross_entropy_and_grad": cross_entropy_and_grad,
        "cross_entropy:probabilities": of_probabilities,
        "cross_entropy_and_grad:probabilities": of_probabilities_and_grad,
        "binary_cross_entropy": binary,
        "binary_cross_entropy_and_grad": binary_and_grad,
        "log_prob": log_prob,
        "entropy": lambda p: -(p * np.log(p)).sum(axis=1),
        "cross_entropy_hvp": cross_entropy_hvp,
        "cross_entropy_grad_hess": cross_entropy_grad_hess,
        "softmax_vjp": softmax_vjp,
        "log_softmax_vjp": lambda y, u: u - np.exp(y) * u.sum(axis=1, keepdims=True),
    }
    return plain_call(functions, case, sets)


def by_scipy(case: Case, sets: Sequence[Arrays], library: str = "scipy.special") -> Call:
    """Prepare the calls of SciPy, or of a library with its functions."""
    special: Any = importlib.import_module(library)
    like = np if library == "scipy.special" else importlib.import_module("cupy")
    rows: Any = like.arange(case.rows)

    def cross_entropy(x: Any, y: Any) -> Any:
        return -special.log_softmax(x, axis=1)[rows, y].mean()

    def cross_entropy_and_grad(x: Any, y: Any) -> Any:
        loss = (special.logsumexp(x, axis=1) - x[rows, y]).mean()
        gradient = special.softmax(x, axis=1)
        gradient[rows, y] -= 1
        gradient /= len(x)
        return loss, gradient

    def kl_div(t: Any, x: Any) -> Any:
        return special.rel_entr(t, special.softmax(x, axis=1)).sum() / len(x)

    def kl_div_and_grad(t: Any, x: Any) -> Any:
        gradient = special.softmax(x, axis=1)
        loss = special.rel_entr(t, gradient).sum() / len(x)
        gradient -= t
        gradient /= len(x)
        return loss, gradient

    def js_div(t: Any, x: Any) -> Any:
        p = special.softmax(x, axis=1)
        middle = (p + t) / 2
        return (special.rel_entr(t, middle) + special.rel_entr(p, middle)).sum() / (2 * len(x))

    def log_prob_and_entropy(x: Any, y: Any) -> Any:
        log_p = special.log_softmax(x, axis=1)
        return log_p[rows, y], special.entr(special.softmax(x, axis=1)).sum(axis=1)

    def binary(x: Any, t: Any) -> Any:
        return -(t * special.log_expit(x) + (1 - t) * special.log_expit(-x)).mean()

    def binary_and_grad(x: Any, t: Any) -> Any:
        gradient = special.expit(x)
        gradient -= t
        gradient /= x.size
        return binary(x, t), gradient

    functions: Functions = {
        "logsumexp": lambda x: special.logsumexp(x, axis=1),
        "softmax": lambda x: special.softmax(x, axis=1),
        "log_softmax": lambda x: special.log_softmax(x, axis=1),
        "cross_entropy": cross_entropy,
        "cross_entropy_and_grad": cross_entropy_and_grad,
        "cross_entropy:probabilities": lambda x, t: -(t * special.log_softmax(x, axis=1)).sum() / len(x),
        "kl_div": kl_div,
        "kl_div_and_grad": kl_div_and_grad,
        "js_div": js_div,
        "binary_cross_entropy": binary,
        "binary_cross_entropy_and_grad": binary_and_grad,
        "log_prob": lambda x, y: special.log_softmax(x, axis=1)[rows, y],
        "log_prob_and_entropy": log_prob_and_entropy,
        "entropy": lambda p: special.entr(p).sum(axis=1),
    }
    return plain_call(functions, case, sets)


def by_cupyx(case: Case, sets: Sequence[Arrays]) -> Call:
    """Prepare CuPy's calls."""
    return by_scipy(case, sets, "cupyx.scipy.special")


def by_sklearn(case: Case, sets: Sequence[Arrays]) -> Call:
    """Prepare the calls of scikit-learn's loss module, as its estimators make them."""
    calls: dict[str, Callable[[Case, Sequence[Arrays]], Call]] = {
        "cross_entropy": _multinomial,
        "cross_entropy_and_grad": _multinomial,
        "cross_entropy_grad_hess": _multinomial,
        "binary_cross_entropy": _binomial,
        "binary_cross_entropy_and_grad": _binomial,
    }
    if case.kernel not in calls:
        raise NotOffered(f"has no {case.kernel}")
    if case.dtype not in ("float32", "float64"):
        raise NotOffered(f"takes no {case.dtype}")
    return calls[case.kernel](case, sets)


def _multinomial(case: Case, sets: Sequence[Arrays]) -> Call:
    from sklearn._loss import HalfMultinomialLoss

    loss = HalfMultinomialLoss(n_classes=case.classes)
    targets = [each.target.astype(case.dtype) for each in sets]
    logits = [each.logits for each in sets]
    if case.kernel == "cross_entropy_grad_hess":
        hessian = np.ones((case.rows, case.classes), case.dtype)
        return lambda i: loss.gradient_hessian(
            targets[i], logits[i], None, sets[i].out, hessian, n_threads=case.threads
        )
    return _mean_loss(loss, case, targets, logits, [each.out for each in sets])


def _binomial(case: Case, sets: Sequence[Arrays]) -> Call:
    from sklearn._loss import HalfBinomialLoss

    flat = [(each.binary.reshape(-1), each.logits.reshape(-1)) for each in sets]
    outs = [None if each.out is None else each.out.reshape(-1) for each in sets]
    call = _mean_loss(HalfBinomialLoss(), case, [t for t, _ in flat], [x for _, x in flat], outs)
    if not KERNELS[case.kernel].is_gradient:
        return call
    shape = case.rows, case.classes

    def in_shape(i: int) -> Any:
        value, gradient = call(i)
        return value, gradient.reshape(shape)

    return in_shape


def _mean_loss(loss: Any, case: Case, targets: Sequence[Any], logits: Sequence[Any], outs: Sequence[Any]) -> Call:
    count = len(targets[0])
    weight = np.full(count, 1 / count, case.dtype)  # the mean, as LogisticRegression asks for it
    losses = np.empty(count, case.dtype)
    if not KERNELS[case.kernel].is_gradient:
        return lambda i: loss.loss(targets[i], logits[i], weight, losses, case.threads).sum()

    def loss_gradient(i: int) -> Any:
        value, gradient = loss.loss_gradient(targets[i], logits[i], weight, losses, outs[i], n_threads=case.threads)
        return value.sum(), gradient

    return loss_gradient
