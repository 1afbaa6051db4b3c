"""Rules for one step of stochastic minimisation, given the gradient: momentum and AdamW.

A rule knows nothing of models: it moves an array of parameters in place and uses the gradient's memory for what it
computes on the way, so that a step allocates nothing. Large arrays are moved block by block, each through all of the
rule's operations while it is in cache.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

_BLOCK = 131072  # elements: the four arrays of a rule take 2 MB, calls cost little; measured best of 4096 to 2^30


class Optimizer(Protocol):
    """What a training loop asks of a rule."""

    learning_rate: float

    def step(self, parameters: FloatArray, gradient: FloatArray, weights: FloatArray | None = None) -> None:
        """Move the parameters; see the classes of this module."""


class SGD:
    r"""Gradient descent with momentum.

    With velocity :math:`v` and gradient :math:`g`: :math:`v \leftarrow \mu v - \eta g`; the step is :math:`v`, or
    :math:`\mu v - \eta g` with Nesterov's momentum (I. Sutskever et al., ICML 2013).
    """

    def __init__(
        self, like: FloatArray, *, n_weights=None, learning_rate: float, momentum: float, nesterov: bool, l2=0.0, l1=0.0
    ) -> None:
        self.n_weights = like.size if n_weights is None else n_weights
        self.l2, self.l1 = l2, l1
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self._velocity = np.zeros(like.size, like.dtype)

    def step(self, parameters: FloatArray, gradient: FloatArray, weights: FloatArray | None = None) -> None:
        """Move the parameters.

        Parameters
        ----------
        parameters : ndarray, C-contiguous, of the size and dtype of `like`
            Is changed in place.
        gradient : ndarray, C-contiguous, the same shape
            Is overwritten.
        weights : ndarray, optional
            The part of the parameters that decays, for rules that decouple it from the gradient; this one does not.
        """
        flat, slope = parameters.reshape(-1), gradient.reshape(-1)
        slope[: self.n_weights] += self.l2 * flat[: self.n_weights]
        for start in range(0, flat.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            p, g, v = flat[block], slope[block], self._velocity[block]
            v *= self.momentum
            g *= self.learning_rate
            v -= g
            if self.nesterov:
                p -= g
                np.multiply(v, self.momentum, out=g)
                p += g
            else:
                p += v

    def state(self):
        return {"learning_rate": self.learning_rate, "velocity": self._velocity}

    def restore(self, state):
        self.learning_rate = state["learning_rate"]
        self._velocity[:] = state["velocity"]


class AdamW:
    r"""Adam (D. P. Kingma, J. Ba, ICLR 2015) with decoupled weight decay (I. Loshchilov, F. Hutter, ICLR 2019).

    With the moments :math:`m \leftarrow \beta_1 m + (1-\beta_1) g` and
    :math:`v \leftarrow \beta_2 v + (1-\beta_2) g^2` the step number :math:`t` is

    .. math:: -\eta\,\frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon} - \eta \lambda w.

    The moments are kept without their factors :math:`1-\beta`, which saves two passes over the parameters.
    """

    def __init__(
        self,
        like: FloatArray,
        *,
        learning_rate: float,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        n_weights=None,
        l2=0.0,
        l1=0.0,
    ) -> None:
        self.n_weights = like.size if n_weights is None else n_weights
        self.l2, self.l1 = l2, l1
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.steps = 0
        self._mean = np.zeros(like.size, like.dtype)
        self._square = np.zeros(like.size, like.dtype)

    def step(self, parameters: FloatArray, gradient: FloatArray, weights: FloatArray | None = None) -> None:
        """Move the parameters.

        Parameters
        ----------
        parameters : ndarray, C-contiguous, of the size and dtype of `like`
            Is changed in place.
        gradient : ndarray, C-contiguous, the same shape
            Is overwritten.
        weights : ndarray, optional
            A view of the part of the parameters that decays; by default all of them.
        """
        self.steps += 1
        if self.weight_decay:
            decaying = parameters.reshape(-1)[: self.n_weights]
            decaying *= 1 - self.learning_rate * self.weight_decay
        # sqrt(v / (1 - beta_2^t)) is this times the root of the kept moment
        root = math.sqrt((1 - self.beta_2) / (1 - self.beta_2**self.steps))
        factor = self.learning_rate * (1 - self.beta_1) / ((1 - self.beta_1**self.steps) * root)
        flat, slope = parameters.reshape(-1), gradient.reshape(-1)
        slope[: self.n_weights] += self.l2 * flat[: self.n_weights]
        for start in range(0, flat.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            p, g, m, v = flat[block], slope[block], self._mean[block], self._square[block]
            m *= self.beta_1
            m += g
            g *= g
            v *= self.beta_2
            v += g
            np.sqrt(v, out=g)
            g += self.epsilon / root
            np.divide(m, g, out=g)
            g *= factor
            p -= g

    def state(self):
        return {"learning_rate": self.learning_rate, "steps": self.steps, "mean": self._mean, "square": self._square}

    def restore(self, state):
        self.learning_rate, self.steps = state["learning_rate"], state["steps"]
        self._mean[:], self._square[:] = state["mean"], state["square"]
