"""Who else does the job, each with the call that its own users would make: one row for each in ``PEERS``.

All give the same numbers (tests/bench/test_peers.py): logits (N, C) and class indices in; the mean loss, and its
gradient, out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefast.bench.arrays import Arrays
from mlefast.bench.cases import Case
from mlefast.bench.machine import installed_version

Call = Callable[[int], Any]


class NotOffered(Exception):  # noqa: N818 - the report's word for it
    """A peer has no such function, or not for this dtype."""


@dataclass(frozen=True)
class Peer:
    """A library, where it can compute, and a function that prepares its calls for a case."""

    name: str
    distributions: tuple[str, ...]  # the first is the one whose version is shown
    modules: tuple[str, ...]
    backends: tuple[str, ...]
    prepare: Callable[[Case, Sequence[Arrays]], Call]

    def absence(self, backend: str) -> str | None:
        """Return why it cannot take part, or None if it can."""
        if backend not in self.backends:
            return f"not for the backend {backend}"
        missing = [module for module in self.modules if importlib.util.find_spec(module) is None]
        return f"{', '.join(missing)} not installed" if missing else None

    @property
    def version(self) -> str | None:
        """The version that is installed."""
        return next((version for each in self.distributions if (version := installed_version(each))), None)


def _on_numpy(functions: Mapping[str, Callable[[Any, Any], Any]], case: Case, sets: Sequence[Arrays]) -> Call:
    function = _offered(functions, case)
    return lambda i: function(sets[i].logits, sets[i].target)


def _offered(functions: Mapping[str, Any], case: Case) -> Any:
    if case.kernel not in functions:
        raise NotOffered(f"has no {case.kernel}")
    return functions[case.kernel]


def _numpy(case: Case, sets: Sequence[Arrays]) -> Call:
    rows = np.arange(case.rows)

    def parts(x: Any) -> tuple[Any, Any, Any]:
        m = x.max(axis=1, keepdims=True)
        e = x - m
        np.exp(e, out=e)
        return m, e, e.sum(axis=1, keepdims=True)

    def logsumexp(x: Any, _: Any) -> Any:
        m, _, s = parts(x)
        return (m + np.log(s))[:, 0]

    def softmax(x: Any, _: Any) -> Any:
        _, e, s = parts(x)
        e /= s
        return e

    def log_softmax(x: Any, _: Any) -> Any:
        shifted = x - x.max(axis=1, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return shifted

    def cross_entropy(x: Any, y: Any) -> Any:
        return (logsumexp(x, y) - x[rows, y]).mean()

    def cross_entropy_and_grad(x: Any, y: Any) -> Any:
        m, e, s = parts(x)
        loss = ((m + np.log(s))[:, 0] - x[rows, y]).mean()
        e /= s
        e[rows, y] -= 1
        e /= len(x)
        return loss, e

    functions = (logsumexp, softmax, log_softmax, cross_entropy, cross_entropy_and_grad)
    return _on_numpy({function.__name__: function for function in functions}, case, sets)


def _scipy(case: Case, sets: Sequence[Arrays], library: str = "scipy.special") -> Call:
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

    functions = {
        "logsumexp": lambda x, _: special.logsumexp(x, axis=1),
        "softmax": lambda x, _: special.softmax(x, axis=1),
        "log_softmax": lambda x, _: special.log_softmax(x, axis=1),
        "cross_entropy": cross_entropy,
        "cross_entropy_and_grad": cross_entropy_and_grad,
    }
    return _on_numpy(functions, case, sets)


def _cupyx(case: Case, sets: Sequence[Arrays]) -> Call:
    return _scipy(case, sets, "cupyx.scipy.special")


def _torch(case: Case, sets: Sequence[Arrays], *, compiled: bool = False) -> Call:
    torch: Any = importlib.import_module("torch")
    cross_entropy = torch.nn.functional.cross_entropy
    functions: dict[str, Callable[[Any, Any], Any]] = {
        "logsumexp": lambda x, _: torch.logsumexp(x, -1),
        "softmax": lambda x, _: torch.softmax(x, -1),
        "log_softmax": lambda x, _: torch.log_softmax(x, -1),
        "cross_entropy": lambda x, y: cross_entropy(x, y),
        "cross_entropy_and_grad": lambda x, y: cross_entropy(x, y),
    }
    function = _offered(functions, case)
    if case.backend == "numpy":
        torch.set_num_threads(case.threads)
    if compiled:
        torch.compiler.reset()  # else the ninth shape would no longer be compiled
        function = torch.compile(function, dynamic=False)
    tensors = [(_tensor(torch, each.logits), _tensor(torch, each.target)) for each in sets]
    if case.kernel != "cross_entropy_and_grad":

        def forward(i: int) -> Any:
            with torch.no_grad():
                return function(*tensors[i])

        return forward

    def forward_and_backward(i: int) -> Any:
        x, y = tensors[i]
        loss = function(x, y)
        loss.backward()
        gradient, x.grad = x.grad, None
        return loss.detach(), gradient

    for x, _ in tensors:
        x.requires_grad_()
    return forward_and_backward


def _tensor(torch: Any, array: Any) -> Any:
    if array.dtype.name == "bfloat16" and isinstance(array, np.ndarray):  # a dtype that NumPy cannot pass on
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


def _torch_compiled(case: Case, sets: Sequence[Arrays]) -> Call:
    return _torch(case, sets, compiled=True)


def _sklearn(case: Case, sets: Sequence[Arrays]) -> Call:
    if case.kernel not in ("cross_entropy", "cross_entropy_and_grad"):
        raise NotOffered(f"has no {case.kernel}")
    if case.dtype not in ("float32", "float64"):
        raise NotOffered(f"takes no {case.dtype}")
    from sklearn._loss import HalfMultinomialLoss

    loss = HalfMultinomialLoss(n_classes=case.classes)
    weight = np.full(case.rows, 1 / case.rows, case.dtype)  # the mean, as LogisticRegression asks for it
    losses = np.empty(case.rows, case.dtype)
    targets = [each.target.astype(case.dtype) for each in sets]
    if case.kernel == "cross_entropy":
        return lambda i: loss.loss(targets[i], sets[i].logits, weight, losses, case.threads).sum()

    def loss_gradient(i: int) -> Any:
        value, gradient = loss.loss_gradient(
            targets[i], sets[i].logits, weight, losses, sets[i].out, n_threads=case.threads
        )
        return value.sum(), gradient

    return loss_gradient


def _quiet_xla() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its compiler's notes would be printed between our tables


def _jax(case: Case, sets: Sequence[Arrays]) -> Call:
    _quiet_xla()
    jax: Any = importlib.import_module("jax")
    optax: Any = importlib.import_module("optax")
    jax.config.update("jax_enable_x64", True)  # else float64 would be rounded to float32 in silence

    def cross_entropy(x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    functions = {
        "logsumexp": lambda x, _: jax.nn.logsumexp(x, axis=-1),
        "softmax": lambda x, _: jax.nn.softmax(x, axis=-1),
        "log_softmax": lambda x, _: jax.nn.log_softmax(x, axis=-1),
        "cross_entropy": cross_entropy,
        "cross_entropy_and_grad": jax.value_and_grad(cross_entropy),
    }
    function = jax.jit(_offered(functions, case))
    arrays = [(jax.numpy.array(each.logits), jax.numpy.array(each.target.astype(np.int32))) for each in sets]
    return lambda i: jax.block_until_ready(function(*arrays[i]))


def _tensorflow(case: Case, sets: Sequence[Arrays]) -> Call:
    _quiet_xla()
    tf: Any = importlib.import_module("tensorflow")

    def cross_entropy(x: Any, y: Any) -> Any:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x))

    def cross_entropy_and_grad(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = cross_entropy(x, y)
        return loss, tape.gradient(loss, x)

    functions = {
        "logsumexp": lambda x, _: tf.reduce_logsumexp(x, axis=-1),
        "softmax": lambda x, _: tf.nn.softmax(x),
        "log_softmax": lambda x, _: tf.nn.log_softmax(x),
        "cross_entropy": cross_entropy,
        "cross_entropy_and_grad": cross_entropy_and_grad,
    }
    function = tf.function(_offered(functions, case), jit_compile=True)
    with tf.device("/CPU:0"):
        tensors = [(tf.constant(each.logits), tf.constant(each.target)) for each in sets]

    def call(i: int) -> Any:
        with tf.device("/CPU:0"):
            return function(*tensors[i])

    return call


PEERS = {
    peer.name: peer
    for peer in (
        Peer("numpy", ("numpy",), ("numpy",), ("numpy",), _numpy),
        Peer("scipy", ("scipy",), ("scipy",), ("numpy",), _scipy),
        Peer("scikit-learn", ("scikit-learn",), ("sklearn",), ("numpy",), _sklearn),
        Peer("torch", ("torch",), ("torch",), ("numpy", "cupy"), _torch),
        Peer("torch.compile", ("torch",), ("torch",), ("numpy", "cupy"), _torch_compiled),
        Peer("jax", ("jax", "optax"), ("jax", "optax"), ("numpy",), _jax),
        Peer("tensorflow", ("tensorflow", "tensorflow-cpu"), ("tensorflow",), ("numpy",), _tensorflow),
        Peer("cupyx", ("cupy-cuda12x", "cupy-cuda13x", "cupy"), ("cupy", "cupyx"), ("cupy",), _cupyx),
    )
}


def contestants_or_reasons(
    names: Sequence[str], case: Case, sets: Sequence[Arrays]
) -> list[tuple[str, Call | None, str | None]]:
    """Prepare peers for a case: (name, its call, None), or (name, None, why there is none)."""
    prepared: list[tuple[str, Call | None, str | None]] = []
    for name in names:
        try:
            prepared.append((name, PEERS[name].prepare(case, sets), None))
        except NotOffered as reason:
            prepared.append((name, None, str(reason)))
        except Exception as error:  # whatever a library raises must not end the run: the report says why
            prepared.append((name, None, " ".join(f"{type(error).__name__}: {error}".split())[:300]))
    return prepared
