"""JAX with optax, and TensorFlow: both compile a call with XLA."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlefast.bench.arrays import Arrays
from mlefast.bench.cases import KERNELS, Case
from mlefast.bench.operands import as_dtype
from mlefast.bench.peers.base import Call, Functions, differentiated, objective_and_values, offered, value_function


def _quiet_xla() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its compiler's notes would be printed between our tables


def _alike(case: Case, array: Any) -> Any:
    """Floats in the dtype of the logits, because TensorFlow does not mix them."""
    return array.astype(as_dtype(case.dtype), copy=False) if array.dtype.kind == "f" else array


def by_jax(case: Case, sets: Sequence[Arrays]) -> Call:
    """Prepare JAX's calls."""
    _quiet_xla()
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")
    jax.config.update("jax_enable_x64", True)  # else float64 would be rounded to float32 in silence
    kernel = KERNELS[case.kernel]
    losses = _jax_losses(jax, optax)
    given = [
        each.arguments(
            kernel, lambda a: jax.numpy.array(a.astype(np.int32) if a.dtype.kind == "i" else _alike(case, a))
        )
        for each in sets
    ]

    if kernel.is_gradient:
        function = _jax_value_and_gradient(jax, offered(losses, kernel.value), differentiated(case))
    else:
        function = value_function(losses, _jax_others(jax, optax), case.kernel)
    run = jax.jit(function, static_argnames=tuple(kernel.options))

    def call(i: int) -> Any:
        arguments, named = given[i]
        return jax.block_until_ready(run(*arguments, **named))

    return call


def _jax_value_and_gradient(jax: Any, loss: Callable[..., Any], at: int) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        def objective(*arguments: Any) -> Any:
            return objective_and_values(loss(*arguments, **named), jax.numpy.sum)

        (_, values), gradient = jax.value_and_grad(objective, at, has_aux=True)(*arguments)
        return *values, gradient

    return function


def _jax_losses(jax: Any, optax: Any) -> Functions:
    np, nn = jax.numpy, jax.nn
    losses_of = optax.softmax_cross_entropy_with_integer_labels

    def weighted(x: Any, y: Any, weight: Any) -> Any:
        return (weight[y] * losses_of(x, y)).sum() / weight[y].sum()

    def smoothed(x: Any, y: Any, label_smoothing: float) -> Any:
        labels = optax.smooth_labels(nn.one_hot(y, x.shape[-1], dtype=x.dtype), label_smoothing)
        return optax.softmax_cross_entropy(x, labels).mean()

    def with_z_loss(x: Any, y: Any, z_loss: float) -> Any:
        return (losses_of(x, y) + z_loss * nn.logsumexp(x, -1) ** 2).mean()

    def focal_loss(x: Any, y: Any, gamma: float) -> Any:
        losses = losses_of(x, y)
        return ((1 - np.exp(-losses)) ** gamma * losses).mean()

    def js_div(t: Any, x: Any) -> Any:
        log_p = nn.log_softmax(x)
        middle = np.log((np.exp(log_p) + t) / 2)
        return (optax.kl_divergence(middle, t) + optax.kl_divergence(middle, np.exp(log_p))).mean() / 2

    def log_prob_and_entropy(x: Any, y: Any, entropy_upstream: float = 1.0) -> Any:
        log_p = nn.log_softmax(x)
        log_prob = np.take_along_axis(log_p, y[:, None], 1)[:, 0]
        entropy = -(np.exp(log_p) * log_p).sum(-1)
        return (log_prob + entropy_upstream * entropy).sum(), log_prob, entropy

    return {
        "cross_entropy": lambda x, y: losses_of(x, y).mean(),
        "cross_entropy:weight": weighted,
        "cross_entropy:label_smoothing": smoothed,
        "cross_entropy:z_loss": with_z_loss,
        "cross_entropy:softcap": lambda x, y, softcap: losses_of(softcap * np.tanh(x / softcap), y).mean(),
        "cross_entropy:probabilities": lambda x, t: optax.softmax_cross_entropy(x, t).mean(),
        "focal_loss": focal_loss,
        "kl_div": lambda t, x: optax.kl_divergence(nn.log_softmax(x), t).mean(),
        "js_div": js_div,
        "binary_cross_entropy": lambda x, t: optax.sigmoid_binary_cross_entropy(x, t).mean(),
        "log_prob": lambda x, y: -losses_of(x, y),
        "log_prob_and_entropy": log_prob_and_entropy,
        "entropy": lambda p: jax.scipy.special.entr(p).sum(-1),
    }


def _jax_others(jax: Any, optax: Any) -> Functions:
    np, nn = jax.numpy, jax.nn

    def cross_entropy_hvp(x: Any, y: Any, v: Any) -> Any:
        def loss(x: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

        return jax.jvp(jax.grad(loss), (x,), (v,))[1]

    def cross_entropy_grad_hess(x: Any, y: Any) -> Any:
        p = nn.softmax(x)
        return p - nn.one_hot(y, x.shape[-1], dtype=x.dtype), p * (1 - p)

    return {
        "logsumexp": lambda x: nn.logsumexp(x, axis=-1),
        "softmax": lambda x: nn.softmax(x, axis=-1),
        "log_softmax": lambda x: nn.log_softmax(x, axis=-1),
        "cross_entropy_hvp": cross_entropy_hvp,
        "cross_entropy_grad_hess": cross_entropy_grad_hess,
        "softmax_vjp": lambda y, u: y * (u - (y * u).sum(-1, keepdims=True)),
        "log_softmax_vjp": lambda y, u: u - np.exp(y) * u.sum(-1, keepdims=True),
    }


def by_tensorflow(case: Case, sets: Sequence[Arrays]) -> Call:
    """Prepare TensorFlow's calls."""
    _quiet_xla()
    tf: Any = importlib.import_module("tensorflow")
    tf.get_logger().setLevel("ERROR")  # it warns of functions that are traced again, as ours are for each case
    kernel = KERNELS[case.kernel]
    losses = _tensorflow_losses(tf)

    if kernel.is_gradient:
        function = _tensorflow_value_and_gradient(tf, offered(losses, kernel.value), differentiated(case))
    else:
        function = value_function(losses, _tensorflow_others(tf), case.kernel)
    run = tf.function(function, jit_compile=True)
    with tf.device("/CPU:0"):
        given = [each.arguments(kernel, lambda a: tf.constant(_alike(case, a))) for each in sets]

    def call(i: int) -> Any:
        arguments, named = given[i]
        with tf.device("/CPU:0"):
            return run(*arguments, **named)

    return call


def _tensorflow_value_and_gradient(tf: Any, loss: Callable[..., Any], at: int) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arguments[at])
            objective, values = objective_and_values(loss(*arguments, **named), tf.reduce_sum)
        return *values, tape.gradient(objective, arguments[at])

    return function


def _tensorflow_losses(tf: Any) -> Functions:
    nn, mean = tf.nn, tf.reduce_mean

    def losses_of(x: Any, y: Any) -> Any:
        return nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)

    def weighted(x: Any, y: Any, weight: Any) -> Any:
        of_rows = tf.gather(weight, y)
        return tf.reduce_sum(of_rows * losses_of(x, y)) / tf.reduce_sum(of_rows)

    def smoothed(x: Any, y: Any, label_smoothing: float) -> Any:
        labels = tf.one_hot(y, x.shape[-1], 1 - label_smoothing, 0.0, dtype=x.dtype) + label_smoothing / x.shape[-1]
        return of_probabilities(x, labels)

    def of_probabilities(x: Any, t: Any) -> Any:
        return mean(nn.softmax_cross_entropy_with_logits(labels=t, logits=x))

    def with_z_loss(x: Any, y: Any, z_loss: float) -> Any:
        return mean(losses_of(x, y) + z_loss * tf.square(tf.reduce_logsumexp(x, -1)))

    def focal_loss(x: Any, y: Any, gamma: float) -> Any:
        losses = losses_of(x, y)
        return mean((1 - tf.exp(-losses)) ** gamma * losses)

    def kl_div(t: Any, x: Any) -> Any:
        return mean(tf.reduce_sum(t * (tf.math.log(t) - nn.log_softmax(x)), -1))

    def log_prob_and_entropy(x: Any, y: Any, entropy_upstream: float = 1.0) -> Any:
        log_p, log_prob = nn.log_softmax(x), -losses_of(x, y)
        entropy = -tf.reduce_sum(tf.exp(log_p) * log_p, -1)
        return tf.reduce_sum(log_prob + entropy_upstream * entropy), log_prob, entropy

    return {
        "cross_entropy": lambda x, y: mean(losses_of(x, y)),
        "cross_entropy:weight": weighted,
        "cross_entropy:label_smoothing": smoothed,
        "cross_entropy:z_loss": with_z_loss,
        "cross_entropy:softcap": lambda x, y, softcap: mean(losses_of(softcap * tf.tanh(x / softcap), y)),
        "cross_entropy:probabilities": of_probabilities,
        "focal_loss": focal_loss,
        "kl_div": kl_div,
        "binary_cross_entropy": lambda x, t: mean(nn.sigmoid_cross_entropy_with_logits(labels=t, logits=x)),
        "log_prob": lambda x, y: -losses_of(x, y),
        "log_prob_and_entropy": log_prob_and_entropy,
        "entropy": lambda p: -tf.reduce_sum(p * tf.math.log(p), -1),
    }


def _tensorflow_others(tf: Any) -> Functions:
    def cross_entropy_grad_hess(x: Any, y: Any) -> Any:
        p = tf.nn.softmax(x)
        return p - tf.one_hot(y, x.shape[-1], dtype=x.dtype), p * (1 - p)

    return {
        "logsumexp": lambda x: tf.reduce_logsumexp(x, axis=-1),
        "softmax": tf.nn.softmax,
        "log_softmax": tf.nn.log_softmax,
        "cross_entropy_grad_hess": cross_entropy_grad_hess,
        "softmax_vjp": lambda y, u: y * (u - tf.reduce_sum(y * u, -1, keepdims=True)),
        "log_softmax_vjp": lambda y, u: u - tf.exp(y) * tf.reduce_sum(u, -1, keepdims=True),
    }
