"""A feedforward network that ends in logits: its parameters, and the loss and gradient of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mlefast.estimators.activations import ACTIVATIONS
from mlefast.estimators.machines import HOST, Machine, machine_of, moved
from mlefast.estimators.sparse import rows_of, transpose_of
from mlefast.losses import cross_entropy_and_grad

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]

_IDENTITY = ACTIVATIONS["identity"]
_ROWS_AT_ONCE = 4096  # samples whose hidden units are kept at a time when nothing has to flow back


class Network:
    r"""Layers :math:`a_l = f(a_{l-1} W_l + b_l)` of a softmax model; the last one has no :math:`f` and gives logits.

    All parameters lie in one array, the weights of all layers before the intercepts of all layers, so that an optimiser
    moves them in one go and the weights, which alone decay, are one piece of it. Buffers are made once for the largest
    batch and used again: a step allocates nothing that grows with the batch or the network.

    Parameters
    ----------
    sizes : sequence of int
        Features, units of each hidden layer, classes.
    activation : {"identity", "relu", "tanh", "gelu"}
    dropout : float
        The share of hidden units that is silenced in each step, in [0, 1); the others are scaled up for it.
    dtype : dtype
        float32 or float64.
    machine : Machine, optional
        Where all of it lives.
    """

    def __init__(
        self, sizes: Sequence[int], activation: str, *, dropout: float = 0.0, dtype: Any, machine: Machine = HOST
    ) -> None:
        self.sizes = tuple(sizes)
        self.activation = activation
        self.dropout = dropout
        self.machine = machine
        self.parameters: FloatArray = machine.zeros(
            sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes)), dtype
        )
        self._make_views()

    def __getstate__(self) -> dict[str, Any]:
        # Copied views would no longer be views, and buffers are quickly made again.
        return {name: getattr(self, name) for name in ("sizes", "activation", "dropout", "machine", "parameters")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_views()

    def _make_views(self) -> None:
        self.gradient: FloatArray = self.machine.zeros(self.parameters.shape, self.dtype)
        self.coefs, self.intercepts = self._split(self.parameters)
        self._coef_gradients, self._intercept_gradients = self._split(self.gradient)
        self.n_weights = sum(coef.size for coef in self.coefs)
        self.weights = self.parameters[: self.n_weights]
        self._make_buffers(0)

    def _make_buffers(self, n_samples: int) -> None:
        hidden, empty = self.sizes[1:-1], self.machine.empty
        self._values, self._slopes, self._errors = (
            [empty((n_samples, size), self.dtype) for size in hidden] for _ in range(3)
        )
        self._logits = empty((n_samples, self.sizes[-1]), self.dtype)
        silent = max(hidden, default=0) if self.dropout else 0
        self._uniform = empty((n_samples, silent), self.dtype).reshape(-1)

    def _split(self, flat: FloatArray) -> tuple[list[FloatArray], list[FloatArray]]:
        """Give the views of each layer's weights (inputs, outputs) and intercepts (outputs,)."""
        coefs, intercepts, start = [], [], 0
        for n_in, n_out in pairwise(self.sizes):
            coefs.append(flat[start : start + n_in * n_out].reshape(n_in, n_out))
            start += n_in * n_out
        for n_out in self.sizes[1:]:
            intercepts.append(flat[start : start + n_out])
            start += n_out
        return coefs, intercepts

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of parameters, logits and gradient."""
        dtype: np.dtype[Any] = self.parameters.dtype
        return dtype

    def initialize(self, random: np.random.Generator) -> None:
        r"""Draw weights; intercepts are 0.

        Before relu and gelu normal with variance 2 / inputs (K. He et al., ICCV 2015), else uniform in
        :math:`\pm\sqrt{6 / (\mathrm{inputs} + \mathrm{outputs})}` (X. Glorot, Y. Bengio, AISTATS 2010).
        """
        self.parameters.fill(0)
        rectified = self.activation in ("relu", "gelu")
        for layer, coef in enumerate(self.coefs):
            n_in, n_out = coef.shape
            if rectified and layer < len(self.coefs) - 1:
                coef[...] = self.machine.asarray(random.normal(0.0, np.sqrt(2 / n_in), coef.shape))
            else:
                limit = np.sqrt(6 / (n_in + n_out))
                coef[...] = self.machine.asarray(random.uniform(-limit, limit, coef.shape))

    def take(self, coefs: Sequence[FloatArray], intercepts: Sequence[FloatArray]) -> bool:
        """Copy parameters of another network, if its layers have the same sizes; return whether they have."""
        if [coef.shape for coef in coefs] != [coef.shape for coef in self.coefs]:
            return False
        for target, source in zip([*self.coefs, *self.intercepts], [*coefs, *intercepts], strict=True):
            target[...] = moved(source, self.machine)
        return True

    def penalty(self, l2: float) -> float:
        r"""Return the logarithm of the prior on the weights: :math:`\lambda/2\,\|W\|^2`."""
        return 0.5 * l2 * float(self.machine.xp.vdot(self.weights, self.weights)) if l2 else 0.0

    def logits(self, X: Any) -> FloatArray:
        """Logits (samples, classes) of features (samples, features), dense or CSR; without dropout."""
        return network_logits(X, self.coefs, self.intercepts, self.activation)

    def loss_and_gradient(
        self,
        X: Any,
        y: IntArray,
        sample_weight: FloatArray | None,
        total_weight: float,
        random: np.random.Generator | None = None,
    ) -> Any:
        """Return the loss of a batch, a number of the network's machine, and write its gradient to `gradient`.

        Parameters
        ----------
        X : ndarray or CSR array of the network's dtype, shape (samples, features)
        y : ndarray of int64, shape (samples,)
            Class indices.
        sample_weight : ndarray, shape (samples,), or None
        total_weight : float
            What the sum over the samples is divided by.
        random : Generator, optional
            Where dropout takes its numbers from; None: no dropout.
        """
        n_samples = X.shape[0]
        if n_samples > len(self._logits):
            self._make_buffers(n_samples)
        inputs = [X, *(values[:n_samples] for values in self._values)]
        slopes = [slope[:n_samples] for slope in self._slopes]
        errors = [error[:n_samples] for error in self._errors]
        logits = self._logits[:n_samples]
        activation, machine = ACTIVATIONS[self.activation], self.machine
        for layer, slope in enumerate(slopes):
            values = inputs[layer + 1]
            machine.product(inputs[layer], self.coefs[layer], values)
            uniform = None
            if self.dropout and random is not None:
                uniform = self._uniform[: values.size]
                machine.uniform(random, uniform)
            machine.activate(activation, values, self.intercepts[layer], slope, uniform, self.dropout)
        machine.product(inputs[-1], self.coefs[-1], logits)
        machine.activate(_IDENTITY, logits, self.intercepts[-1], None, None, 0.0)
        loss = _loss(machine, logits, y, sample_weight, total_weight)

        error: FloatArray = logits  # the logits are the loss's gradient now
        for layer in reversed(range(len(self.coefs))):
            passed = slopes[layer] if layer < len(slopes) else None
            machine.backpropagate(error, passed, self._intercept_gradients[layer])
            machine.product(transpose_of(inputs[layer]), error, self._coef_gradients[layer])
            if layer > 0:
                machine.product(error, self.coefs[layer].T, errors[layer - 1])
                error = errors[layer - 1]
        return loss


def network_logits(
    X: Any, coefs: Sequence[FloatArray], intercepts: Sequence[FloatArray], activation: str
) -> FloatArray:
    """Logits (samples, classes) of features (samples, features), dense or CSR.

    They have the wider one of the dtypes of features and weights. Hidden units exist for some thousand samples at a
    time only.
    """
    machine = machine_of(X)
    coefs, intercepts = ([moved(part, machine) for part in parts] for parts in (coefs, intercepts))
    logits: FloatArray = machine.empty((X.shape[0], coefs[-1].shape[1]), np.result_type(X.dtype, coefs[-1].dtype))
    for start in range(0, X.shape[0], _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        values = rows_of(X, some)
        for coef, intercept in zip(coefs[:-1], intercepts[:-1]):
            values = _times(machine, values, coef)
            _add_and_activate(machine, activation, values, intercept)
        machine.product(values, coefs[-1], logits[some])
        _add_and_activate(machine, "identity", logits[some], intercepts[-1])
    return logits


def _times(machine: Machine, values: Any, coef: FloatArray) -> FloatArray:
    if isinstance(values, machine.xp.ndarray):
        product: FloatArray = values @ coef
        return product
    dtype = np.result_type(values.dtype, coef.dtype)
    return machine.product(values, coef, machine.empty((values.shape[0], coef.shape[1]), dtype))  # type: ignore[no-any-return]


def _add_and_activate(machine: Machine, activation: str, values: FloatArray, intercept: FloatArray) -> None:
    bias = machine.xp.ascontiguousarray(intercept, values.dtype)
    machine.activate(ACTIVATIONS[activation], values, bias, None, None, 0.0)


def _loss(
    machine: Machine, logits: FloatArray, y: IntArray, sample_weight: FloatArray | None, total_weight: float
) -> Any:
    """Overwrite logits with the gradient of the weighted loss, and return that."""
    if sample_weight is None:
        loss, _ = cross_entropy_and_grad(logits, y, reduction="sum", denominator=total_weight, out=logits)
        return machine.number(loss)
    losses, _ = cross_entropy_and_grad(logits, y, reduction="none", upstream=sample_weight / total_weight, out=logits)
    return machine.total(losses, sample_weight) / total_weight
