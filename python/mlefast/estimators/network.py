"""A feedforward network that ends in logits: its parameters, and the loss and gradient of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mlefast.estimators.activations import ACTIVATIONS
from mlefast.losses import cross_entropy_and_grad

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]

_SCRATCH = 131072  # elements, as the optimisers' blocks
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
    """

    def __init__(self, sizes: Sequence[int], activation: str, *, dropout: float = 0.0, dtype: Any) -> None:
        self.sizes = tuple(sizes)
        self.activation = activation
        self.dropout = dropout
        self.parameters = np.zeros(sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes)), dtype)
        self._make_views()

    def __getstate__(self) -> dict[str, Any]:
        # Copied views would no longer be views, and buffers are quickly made again.
        return {name: getattr(self, name) for name in ("sizes", "activation", "dropout", "parameters")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_views()

    def _make_views(self) -> None:
        self.gradient = np.zeros_like(self.parameters)
        self.coefs, self.intercepts = self._split(self.parameters)
        self._coef_gradients, self._intercept_gradients = self._split(self.gradient)
        self.weights = self.parameters[: sum(coef.size for coef in self.coefs)]
        self._scratch = np.empty(min(self.weights.size, _SCRATCH), self.dtype)
        self._activate = ACTIVATIONS[self.activation]
        self._make_buffers(0)

    def _make_buffers(self, n_samples: int) -> None:
        hidden = self.sizes[1:-1]
        self._values, self._slopes, self._errors = (
            [np.empty((n_samples, size), self.dtype) for size in hidden] for _ in range(3)
        )
        self._logits = np.empty((n_samples, self.sizes[-1]), self.dtype)
        silent = max(hidden, default=0) if self.dropout else 0
        self._uniform = np.empty((n_samples, silent), self.dtype).reshape(-1)
        self._kept = np.empty(self._uniform.shape, bool)

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

    @property
    def n_weights(self) -> int:
        return self.weights.size

    @property
    def largest_layer(self) -> int:
        """The number of weights in the largest layer."""
        return max(coef.size for coef in self.coefs)

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
                coef[...] = random.normal(0.0, np.sqrt(2 / n_in), coef.shape)
            else:
                limit = np.sqrt(6 / (n_in + n_out))
                coef[...] = random.uniform(-limit, limit, coef.shape)

    def take(self, coefs: Sequence[FloatArray], intercepts: Sequence[FloatArray]) -> bool:
        """Copy parameters of another network, if its layers have the same sizes; return whether they have."""
        if [coef.shape for coef in coefs] != [coef.shape for coef in self.coefs]:
            return False
        for target, source in zip([*self.coefs, *self.intercepts], [*coefs, *intercepts], strict=True):
            target[...] = source
        return True

    def penalty(self, l2: float) -> float:
        r"""Return the logarithm of the prior on the weights: :math:`\lambda/2\,\|W\|^2`."""
        return 0.5 * l2 * float(np.vdot(self.weights, self.weights)) if l2 else 0.0

    def add_penalty_gradient(self, l2: float) -> None:
        """Add the gradient of :meth:`penalty` to `gradient`."""
        for start in range(0, self.weights.size, len(self._scratch)):
            weights = self.weights[start : start + len(self._scratch)]
            self.gradient[start : start + weights.size] += np.multiply(weights, l2, out=self._scratch[: weights.size])

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
    ) -> float:
        """Return the loss of a batch and write its gradient to `gradient`.

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
        for layer, (slope, error) in enumerate(zip(slopes, errors)):
            values = inputs[layer + 1]
            _matmul(inputs[layer], self.coefs[layer], values)
            values += self.intercepts[layer]
            self._activate(values, slope, error)
            if self.dropout and random is not None:
                self._drop(values, slope, random)
        _matmul(inputs[-1], self.coefs[-1], logits)
        logits += self.intercepts[-1]
        loss = _loss(logits, y, sample_weight, total_weight)

        error = logits  # the logits are the loss's gradient now
        for layer in reversed(range(len(self.coefs))):
            if isinstance(inputs[layer], np.ndarray):
                np.matmul(inputs[layer].T, error, out=self._coef_gradients[layer])
            else:
                self._coef_gradients[layer][...] = inputs[layer].T @ error
            np.sum(error, axis=0, out=self._intercept_gradients[layer])
            if layer > 0:
                np.matmul(error, self.coefs[layer].T, out=errors[layer - 1])
                error = errors[layer - 1]
                error *= slopes[layer - 1]
        return loss

    def _drop(self, values: FloatArray, slope: FloatArray, random: np.random.Generator) -> None:
        """Silence some units, and let no error flow back through them; the others are scaled up for it."""
        uniform, kept = self._uniform[: values.size], self._kept[: values.size]
        random.random(dtype=self.dtype.type, out=uniform)
        np.greater_equal(uniform, self.dropout, out=kept)
        np.copyto(uniform, kept)
        uniform *= 1 / (1 - self.dropout)
        factor = uniform.reshape(values.shape)
        values *= factor
        slope *= factor


def network_logits(
    X: Any, coefs: Sequence[FloatArray], intercepts: Sequence[FloatArray], activation: str
) -> FloatArray:
    """Logits (samples, classes) of features (samples, features), dense or CSR.

    They have the wider one of the dtypes of features and weights. Hidden units exist for some thousand samples at a
    time only.
    """
    logits = np.empty((X.shape[0], coefs[-1].shape[1]), np.result_type(X.dtype, coefs[-1].dtype))
    activate = ACTIVATIONS[activation]
    for start in range(0, X.shape[0], _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        values = X[some]
        for coef, intercept in zip(coefs[:-1], intercepts[:-1]):
            values = values @ coef
            values += intercept
            activate(values, None, None)
        _matmul(values, coefs[-1], logits[some])
    logits += intercepts[-1]
    return logits


def _matmul(X: Any, coef: FloatArray, out: FloatArray) -> None:
    if isinstance(X, np.ndarray):
        np.matmul(X, coef, out=out)
    else:  # SciPy's sparse products cannot be told where to go
        out[...] = X @ coef


def _loss(logits: FloatArray, y: IntArray, sample_weight: FloatArray | None, total_weight: float) -> float:
    """Overwrite logits with the gradient of the weighted loss, and return that."""
    if sample_weight is None:
        loss, _ = cross_entropy_and_grad(logits, y, reduction="sum", denominator=total_weight, out=logits)
        return float(loss)
    losses, _ = cross_entropy_and_grad(logits, y, reduction="none", upstream=sample_weight / total_weight, out=logits)
    return float(np.dot(losses.astype(np.float64), sample_weight) / total_weight)
