"""Rules for one step of stochastic minimisation, given the gradient: momentum and AdamW.

A rule knows nothing of models: it moves an array of parameters in place, of which the first entries are weights, and
adds the gradient of their penalties itself. A step is one pass over the parameters, by a compiled kernel.

The penalty of an absolute value has no gradient at 0. After each step the weights are therefore moved towards 0 by a
threshold, and no further (I. Daubechies, M. Defrise, C. De Mol, 2004): weights become exactly 0. The threshold of a
rule is as large as the way that a gradient of ``l1`` comes to move a weight, so that the rule rests where the penalised
objective has its minimum.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mlefast.estimators.machines import machine_of

FloatArray = npt.NDArray[np.floating[Any]]
State = dict[str, Any]


class Optimizer(Protocol):
    """What a training loop asks of a rule."""

    learning_rate: float

    def step(self, parameters: FloatArray, gradient: FloatArray) -> None:
        """Move the parameters; see the classes of this module."""

    def state(self) -> State:
        """Give a copy of all that the next step depends on, besides what the rule was made with."""

    def restore(self, state: State) -> None:
        """Take a state that :meth:`state` gave."""


class _Rule:
    """What the rules share: the parameters' number and type, and their state."""

    _arrays: ClassVar[tuple[str, ...]]
    _numbers: ClassVar[dict[str, type]]

    def __init__(self, like: FloatArray, n_weights: int | None) -> None:
        self.n_weights = like.size if n_weights is None else n_weights
        self.machine = machine_of(like)
        for name in self._arrays:
            setattr(self, name, self.machine.zeros(like.size, like.dtype))

    def state(self) -> State:
        """Give a copy of all that the next step depends on, besides what the rule was made with.

        Returns
        -------
        dict
            Arrays of the host, of the size and dtype of the parameters, and numbers; what :meth:`restore` takes.
        """
        arrays: State = {name: np.array(self.machine.to_host(getattr(self, name))) for name in self._arrays}
        return arrays | {name: getattr(self, name) for name in self._numbers}

    def restore(self, state: State) -> None:
        """Continue from where another rule of the same kind was.

        Parameters
        ----------
        state : dict
            What :meth:`state` gave, of as many parameters of the same dtype.

        Raises
        ------
        ValueError
            If the state is that of another rule, or of other parameters; nothing is changed then.
        """
        wanted = {*self._arrays, *self._numbers}
        if set(state) != wanted:
            raise ValueError(f"state: received {sorted(state)}; accepted: {sorted(wanted)}")
        for name in self._arrays:
            own, given = getattr(self, name), np.asarray(state[name])
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(
                    f"state[{name!r}]: received {given.dtype}{given.shape}; accepted: {own.dtype}{own.shape}"
                )
        for name in self._arrays:
            getattr(self, name)[...] = self.machine.asarray(np.asarray(state[name]))
        for name, kind in self._numbers.items():
            setattr(self, name, kind(state[name]))


class SGD(_Rule):
    r"""Gradient descent with momentum.

    With velocity :math:`v` and gradient :math:`g`: :math:`v \leftarrow \mu v - \eta g`; the step is :math:`v`, or
    :math:`\mu v - \eta g` with Nesterov's momentum (I. Sutskever et al., ICML 2013). A steady gradient comes to move
    the parameters by :math:`\eta g / (1 - \mu)` in each step, so that the threshold is
    :math:`\eta \lambda_1 / (1 - \mu)`.

    Parameters
    ----------
    like : ndarray of float32 or float64
        The parameters, or an array of their size and dtype.
    n_weights : int, optional
        How many of the parameters, from the first on, are penalised; None: all.
    learning_rate : float
        :math:`\eta`; may be changed between steps.
    momentum : float
        :math:`\mu`, in [0, 1).
    nesterov : bool
    l2, l1 : float
        The penalty :math:`\lambda_2/2\,\|w\|^2 + \lambda_1\,\|w\|_1`, whose gradient is added by the rule.
    """

    _arrays = ("velocity",)
    _numbers: ClassVar = {"learning_rate": float}
    velocity: FloatArray

    def __init__(
        self,
        like: FloatArray,
        *,
        n_weights: int | None = None,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        l2: float = 0.0,
        l1: float = 0.0,
    ) -> None:
        super().__init__(like, n_weights)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.l2 = l2
        self.l1 = l1

    def step(self, parameters: FloatArray, gradient: FloatArray) -> None:
        """Move the parameters.

        Parameters
        ----------
        parameters : ndarray, C-contiguous, of the size and dtype of `like`
            Is changed in place.
        gradient : ndarray, C-contiguous, of the same size and dtype
            That of the loss alone.
        """
        self.machine.sgd_step(
            parameters,
            gradient,
            self.velocity,
            self.n_weights,
            self.learning_rate,
            self.momentum,
            self.nesterov,
            self.l2,
            self.l1,
        )


class AdamW(_Rule):
    r"""Adam (D. P. Kingma, J. Ba, ICLR 2015) with decoupled weight decay (I. Loshchilov, F. Hutter, ICLR 2019).

    With the moments :math:`m \leftarrow \beta_1 m + (1-\beta_1) g` and
    :math:`v \leftarrow \beta_2 v + (1-\beta_2) g^2` the step number :math:`t` is

    .. math:: -\eta\,\frac{m / (1-\beta_1^t)}{\sqrt{v / (1-\beta_2^t)} + \epsilon} - \eta \lambda w.

    The threshold of a weight is :math:`\eta \lambda_1` over the same denominator.

    Parameters
    ----------
    like : ndarray of float32 or float64
        The parameters, or an array of their size and dtype.
    n_weights : int, optional
        How many of the parameters, from the first on, decay and are penalised; None: all.
    learning_rate : float
        :math:`\eta`; may be changed between steps.
    beta_1, beta_2 : float
        In [0, 1).
    epsilon : float
    weight_decay : float
        :math:`\lambda`.
    l2, l1 : float
        As for :class:`SGD`: a penalty whose gradient goes through the moments, other than the decay.
    """

    _arrays = ("mean", "square")
    _numbers: ClassVar = {"learning_rate": float, "steps": int}
    mean: FloatArray
    square: FloatArray

    def __init__(
        self,
        like: FloatArray,
        *,
        n_weights: int | None = None,
        learning_rate: float,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        l2: float = 0.0,
        l1: float = 0.0,
    ) -> None:
        super().__init__(like, n_weights)
        self.learning_rate = learning_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.weight_decay = weight_decay
        self.l2 = l2
        self.l1 = l1
        self.steps = 0

    def step(self, parameters: FloatArray, gradient: FloatArray) -> None:
        """Move the parameters.

        Parameters
        ----------
        parameters : ndarray, C-contiguous, of the size and dtype of `like`
            Is changed in place.
        gradient : ndarray, C-contiguous, of the same size and dtype
            That of the loss alone.
        """
        self.machine.adamw_step(
            parameters,
            gradient,
            self.mean,
            self.square,
            self.n_weights,
            self.learning_rate,
            self.beta_1,
            self.beta_2,
            self.epsilon,
            self.weight_decay,
            self.l2,
            self.l1,
            self.steps + 1,
        )
        self.steps += 1
