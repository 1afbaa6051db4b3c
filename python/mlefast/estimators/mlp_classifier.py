"""Deep softmax classifiers by maximum likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mlefast.estimators.activations import ACTIVATIONS
from mlefast.estimators.machines import Machine, to_host
from mlefast.estimators.network import FloatArray, IntArray, Network, network_logits
from mlefast.estimators.optimizers import SGD, AdamW, Optimizer
from mlefast.estimators.samples import Source
from mlefast.estimators.schedules import Schedule
from mlefast.estimators.softmax_estimator import BY_EPOCHS, Callback, SoftmaxEstimator
from mlefast.estimators.validation import check_parameter, features_of, is_count, is_real, one_of


class MLPClassifier(SoftmaxEstimator):
    r"""Feedforward network with a softmax output, fitted by maximum likelihood on mini-batches.

    The model is :math:`P(y=k \mid x) = \mathrm{softmax}(a_L W_L + b_L)_k` with the hidden units
    :math:`a_{l+1} = f(a_l W_l + b_l)`, :math:`a_0 = x`. Fitting minimises the mean negative log-likelihood, whose
    gradient with respect to the logits is computed by one fused kernel in their own memory. Parameters have the names
    of scikit-learn's ``MLPClassifier``.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default (100,)
        Units of each hidden layer; none make the model linear.
    activation : {"relu", "gelu", "tanh", "identity"}, default "relu"
        What hidden units do: :math:`\max(z, 0)`, :math:`z\Phi(z)`, :math:`\tanh z` or nothing.
    solver : {"adamw", "sgd"}, default "adamw"
        Adam with decoupled weight decay, or gradient descent with momentum.
    alpha : float, default 1e-4
        With "sgd" the strength of a Gaussian prior: :math:`\tfrac\alpha2 \|W\|^2` is added to the mean loss. With
        "adamw" the weight decay: weights lose the share :math:`\eta\alpha` of themselves in each step. Both are
        PyTorch's ``weight_decay`` (scikit-learn divides its `alpha` by the batch size). Intercepts are free.
    dropout : float, default 0.0
        The share of hidden units that is silenced in each step, in [0, 1).
    batch_size : int or "auto", default "auto"
        Samples in a step; "auto" is 128, or all if there are fewer.
    learning_rate_init : float, default 0.001
        The step size :math:`\eta`.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"} or callable, default "constant"
        The step size in epoch :math:`t` of `max_iter` :math:`T`, relative to `learning_rate_init`: 1,
        :math:`\tfrac12 (1 + \cos \pi \frac{t-1}{T})`, :math:`1/\sqrt t`, or divided by 5 (four times at most) each time
        that nothing has improved for `n_iter_no_change` epochs. A callable gets :math:`t`, from 1, and gives the
        factor.
    max_iter : int, default 200
        The largest number of epochs.
    shuffle : bool, default True
        Visit the samples in another order in each epoch.
    random_state : int, RandomState or None, default None
        Initial weights, order of the samples, dropout, and the samples that early stopping sets aside. The same number
        gives the same model, whatever the number of threads.
    tol : float, default 1e-4
        Fitting stops when the objective per sample (with `early_stopping` the validation accuracy) has not improved by
        it for `n_iter_no_change` epochs; 0 runs all epochs.
    verbose : int, default 0
        If positive, show the objective: a progress bar on a terminal (with rich), else a line after so many epochs.
    warm_start : bool, default False
        Start `fit` from the last solution.
    momentum : float, default 0.9
        :math:`\mu` of "sgd", in [0, 1).
    nesterovs_momentum : bool, default True
        Nesterov's momentum instead of the classical one.
    early_stopping : bool, default False
        Set `validation_fraction` of the samples aside, stop when their accuracy no longer improves, and keep the model
        that was best for them.
    validation_fraction : float, default 0.1
        See `early_stopping`; of each class, in (0, 1).
    beta_1, beta_2, epsilon : float, default 0.9, 0.999, 1e-8
        Of "adamw": the decay of its means of gradients and their squares, and what keeps their quotient finite.
    n_iter_no_change : int, default 10
        See `tol`.
    class_weight : dict, "balanced" or None, default None
        A factor for the samples of each class; "balanced" makes all classes weigh the same.
    callback : callable or None, default None
        Called as ``callback(epoch, objective)`` after every epoch; the objective is per sample.
    checkpoint : str, path or None, default None
        A directory in which the state of `fit` is saved after every epoch.
    resume : bool, default False
        Go on from the state in `checkpoint`, if there is one, to the same bits as a fit that was never interrupted.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The labels.
    coefs_ : list of ndarray
        :math:`W_l` of each layer, shape (inputs, outputs), in the dtype of the features in `fit`.
    intercepts_ : list of ndarray
        :math:`b_l` of each layer, shape (outputs,).
    n_iter_ : int
        Epochs that were run.
    loss_ : float
        The objective per sample in the last of them, as it was met on the way.
    best_loss_ : float
        The smallest one.
    loss_curve_ : list of float
        All of them; with "adamw" the loss alone, without the decay.
    validation_scores_ : list of float or None
        Accuracy on the samples that were set aside, after each epoch.
    best_validation_score_ : float or None
        The largest one, which is that of the model that was kept.
    n_layers_ : int
        Number of layers, those of features and classes included.
    n_outputs_ : int
        Number of classes.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, if `X` had any.

    Notes
    -----
    Initial weights are He's before "relu" and "gelu" and Glorot's elsewhere; see
    :meth:`mlefast.estimators.network.Network.initialize`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from mlefast import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((64,), learning_rate_init=0.01, max_iter=30, tol=0, random_state=0)
    >>> model.fit(X[:1500] / 16, y[:1500]).score(X[1500:] / 16, y[1500:])
    0.9...
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adamw",
        alpha: float = 1e-4,
        dropout: float = 0.0,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        learning_rate: str | Schedule = "constant",
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: int = 0,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        class_weight: dict[Any, float] | str | None = None,
        callback: Callback | None = None,
        checkpoint: Any = None,
        resume: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.dropout = dropout
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.callback = callback
        self.checkpoint = checkpoint
        self.resume = resume

    def _is_fitted(self) -> bool:
        return hasattr(self, "coefs_")

    def _has_shape_of_solution(self) -> bool:
        sizes = [self.n_features_in_, *self.hidden_layer_sizes, len(self.classes_)]
        return [coef.shape for coef in self.coefs_] == list(pairwise(sizes))

    def _logits(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        return network_logits(features_of(self, X, reset=False), self.coefs_, self.intercepts_, self._fitted_activation)

    def _new_model(self, dtype: Any, machine: Machine, random: np.random.Generator, *, go_on: bool) -> _DeepModel:
        sizes = (self.n_features_in_, *map(int, self.hidden_layer_sizes), len(self.classes_))
        network = Network(sizes, self.activation, dropout=float(self.dropout), dtype=dtype, machine=machine)
        network.initialize(random)
        if go_on and not network.take(self.coefs_, self.intercepts_):
            raise ValueError(
                f"hidden_layer_sizes: received {self.hidden_layer_sizes}; accepted: those that were fitted, "
                f"{tuple(coef.shape[1] for coef in self.coefs_[:-1])}"
            )
        return _DeepModel(network, 0.0 if self.solver == "adamw" else float(self.alpha), random)

    def _new_optimizer(self, model: _DeepModel, data: Source, n_samples: float | None) -> Optimizer:
        network, rate = model.network, float(self.learning_rate_init)
        if self.solver == "adamw":
            return AdamW(
                network.parameters,
                n_weights=network.n_weights,
                learning_rate=rate,
                beta_1=self.beta_1,
                beta_2=self.beta_2,
                epsilon=self.epsilon,
                weight_decay=self.alpha,
            )
        return SGD(
            network.parameters,
            n_weights=network.n_weights,
            learning_rate=rate,
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            l2=model.l2,
        )

    def _model_logits(self, model: _DeepModel, X: Any) -> FloatArray:
        return model.network.logits(X)

    def _keep(self, model: _DeepModel, n_iter: int) -> None:
        network = model.network
        self.coefs_ = [np.array(to_host(coef)) for coef in network.coefs]
        self.intercepts_ = [np.array(to_host(intercept)) for intercept in network.intercepts]
        self._fitted_activation = network.activation
        self.n_iter_ = n_iter
        self.n_layers_ = len(network.sizes)
        self.n_outputs_ = len(self.classes_)
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else float("nan")
        self.best_loss_ = min(self.loss_curve_, default=float("nan"))
        self.best_validation_score_ = max(self.validation_scores_, default=None) if self.validation_scores_ else None

    def _check_parameters(self) -> None:
        self._check_common_parameters()
        check = partial(check_parameter, self)
        sizes: Any = self.hidden_layer_sizes
        is_sequence = isinstance(sizes, (Sequence, np.ndarray)) and not isinstance(sizes, str)
        check("hidden_layer_sizes", is_sequence and all(map(is_count, sizes)), "a sequence of integers >= 1")
        check("activation", self.activation in ACTIVATIONS, "one of " + ", ".join(map(repr, ACTIVATIONS)))
        check("solver", self.solver in BY_EPOCHS, one_of(BY_EPOCHS))
        check("alpha", is_real(self.alpha) and 0 <= self.alpha < np.inf, "a finite number >= 0")
        check("dropout", is_real(self.dropout) and 0 <= self.dropout < 1, "a number in [0, 1)")
        rate: Any = self.learning_rate_init
        check("learning_rate_init", is_real(rate) and 0 < rate < np.inf, "a finite number > 0")
        check("momentum", is_real(self.momentum) and 0 <= self.momentum < 1, "a number in [0, 1)")
        check("beta_1", is_real(self.beta_1) and 0 <= self.beta_1 < 1, "a number in [0, 1)")
        check("beta_2", is_real(self.beta_2) and 0 <= self.beta_2 < 1, "a number in [0, 1)")
        check("epsilon", is_real(self.epsilon) and self.epsilon > 0, "a number > 0")


class _DeepModel:
    """What descent trains: a network, with dropout, and the prior of "sgd"."""

    def __init__(self, network: Network, l2: float, random: np.random.Generator) -> None:
        self.network = network
        self.l2 = l2
        self._random = random

    @property
    def parameters(self) -> FloatArray:
        return self.network.parameters

    @property
    def gradient(self) -> FloatArray:
        return self.network.gradient

    def loss_and_gradient(self, X: Any, y: IntArray, sample_weight: FloatArray | None, total_weight: float) -> Any:
        return self.network.loss_and_gradient(X, y, sample_weight, total_weight, self._random)

    def penalty(self) -> float:
        return self.network.penalty(self.l2)
