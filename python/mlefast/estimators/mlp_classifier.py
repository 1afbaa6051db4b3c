"""Deep softmax classifiers by maximum likelihood."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mlefast.estimators.activations import ACTIVATIONS
from mlefast.estimators.blas import blas_threads_for
from mlefast.estimators.network import FloatArray, IntArray, Network, network_logits
from mlefast.estimators.optimizers import SGD, AdamW, Optimizer
from mlefast.estimators.solvers import Descent, Fit, Samples
from mlefast.estimators.validation import check_parameter, class_codes, is_count, is_real, weight_of_samples
from mlefast.losses import cross_entropy
from mlefast.softmax import log_softmax, softmax

Callback = Callable[[int, float], None]


class MLPClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
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
    max_iter : int, default 200
        The largest number of epochs.
    shuffle : bool, default True
        Visit the samples in another order in each epoch.
    random_state : int, RandomState or None, default None
        Initial weights, order of the samples, dropout, and the samples that early stopping sets aside.
    tol : float, default 1e-4
        Fitting stops when the objective per sample (with `early_stopping` the validation accuracy) has not improved by
        it for `n_iter_no_change` epochs; 0 runs all epochs.
    verbose : int, default 0
        If positive, print the objective after every so many epochs.
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
    :meth:`mlefast.estimators.network.Network.initialize`. Ctrl-C during `fit` ends it with a warning and keeps the
    model as it is then, or the best one if there is early stopping.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from mlefast import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((64,), learning_rate_init=0.01, max_iter=30, tol=0, random_state=0)
    >>> model.fit(X[:1500] / 16, y[:1500]).score(X[1500:] / 16, y[1500:])
    0.9...
    """

    classes_: npt.NDArray[Any]

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
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.dropout = dropout
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Fit the model to samples.

        Parameters
        ----------
        X : array_like or CSR matrix of float32 or float64, shape (n_samples, n_features)
            Features; the model has their dtype, for others float64.
        y : array_like, shape (n_samples,)
            Labels: numbers or strings.
        sample_weight : array_like, shape (n_samples,), optional
            A factor for each sample.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        FloatingPointError
            If the loss is no longer finite; the message names the epoch, the step and what to try.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        before = (self.classes_, self.coefs_, self.intercepts_) if self.warm_start and hasattr(self, "coefs_") else None
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y: received only one class, {self.classes_.tolist()[0]!r}; accepted: labels of at least 2 classes"
            )
        data = self._samples(X, codes.astype(np.int64), sample_weight)
        random = self._generator()
        network = self._new_network(X.dtype)
        if before is None or not np.array_equal(before[0], self.classes_) or not network.take(*before[1:]):
            network.initialize(random)
        validation = None
        if self.early_stopping:
            data, validation = self._set_aside(data, random)
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] | None = None if validation is None else []
        descent = self._new_descent(network, random)
        with self._blas_threads(descent):
            fit = descent.run(
                data,
                max_iter=self.max_iter,
                tol=self.tol,
                n_iter_no_change=self.n_iter_no_change,
                watch=self._watch,
                score=None if validation is None else partial(self._validate, network, validation),
                interruptible=True,
            )
        self._warn(fit)
        self._keep(network, fit.n_iter)
        if hasattr(self, "_descent"):
            del self._descent
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MLPClassifier:
        """Continue with one epoch over these samples; the optimiser's memory lasts from call to call.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`.
        classes : array_like, optional
            All labels that will ever come; needed in the first call.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        FloatingPointError
            As for :meth:`fit`.
        """
        self._check_parameters()
        check_parameter(self, "early_stopping", not self.early_stopping, "False for partial_fit, which sets none aside")
        first = not hasattr(self, "coefs_")
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", reset=first)
        check_classification_targets(y)
        if first and classes is None:
            raise ValueError("classes: received None in the first call of partial_fit; accepted: all labels")
        known = np.unique(classes) if classes is not None else self.classes_
        if not first and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes: received {known}; accepted: those of the first call, {self.classes_}")
        if len(known) < 2:
            raise ValueError(f"classes: received {known}; accepted: at least 2 labels")
        codes = class_codes(y, known)
        self.classes_ = known
        if not hasattr(self, "_descent"):
            random = self._generator()
            network = self._new_network(X.dtype if first else self.coefs_[0].dtype)
            if first:
                network.initialize(random)
                self.loss_curve_ = []
                self.validation_scores_ = None
            elif not network.take(self.coefs_, self.intercepts_):
                raise ValueError(
                    f"hidden_layer_sizes: received {self.hidden_layer_sizes}; accepted: those that were fitted, "
                    f"{tuple(coef.shape[1] for coef in self.coefs_[:-1])}"
                )
            self._descent = self._new_descent(network, random)
        network = self._descent.model.network
        data = self._samples(X.astype(network.dtype, copy=False), codes, sample_weight)
        with self._blas_threads(self._descent):
            value = self._descent.epoch(data)
        self._watch(len(self.loss_curve_) + 1, value)
        self._keep(network, len(self.loss_curve_))
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Logits: shape (n_samples, n_classes), or (n_samples,) for two classes, the second against the first."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each sample, shape (n_samples,)."""
        winners = np.argmax(self._logits(X), axis=1)
        labels: npt.NDArray[Any] = self.classes_[winners]
        return labels

    def predict_proba(self, X: Any) -> FloatArray:
        """Probabilities of the classes, shape (n_samples, n_classes), in the order of `classes_`."""
        logits = self._logits(X)
        probabilities: FloatArray = softmax(logits, out=logits)
        return probabilities

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Logarithms of the probabilities, shape (n_samples, n_classes), exact where a probability rounds to 0 or 1."""
        logits = self._logits(X)
        logs: FloatArray = log_softmax(logits, out=logits)
        return logs

    def log_likelihood(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the log-likelihood of labelled samples, in nats: the (weighted) sum of log P(y | x)."""
        logits = self._logits(X)
        losses = cross_entropy(logits, class_codes(np.asarray(y), self.classes_), reduction="none")
        if sample_weight is not None:
            losses = losses * _check_sample_weight(sample_weight, X, dtype=np.float64)
        return -float(np.sum(losses, dtype=np.float64))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _logits(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return network_logits(X, self.coefs_, self.intercepts_, self._fitted_activation)

    def _samples(self, X: Any, codes: IntArray, sample_weight: Any) -> Samples:
        data = Samples(X, codes, weight_of_samples(X, codes, self.classes_, sample_weight, self.class_weight))
        if not data.total_weight > 0:
            raise ValueError(f"sample_weight: received weights that sum to {data.total_weight}; accepted: a sum > 0")
        return data

    def _set_aside(self, data: Samples, random: np.random.Generator) -> tuple[Samples, Samples]:
        try:
            parts = train_test_split(
                np.arange(len(data.y)),
                test_size=self.validation_fraction,
                stratify=data.y,
                random_state=int(random.integers(2**31)),
            )
        except ValueError as error:
            raise ValueError(
                f"validation_fraction: received {self.validation_fraction} with {len(data.y)} samples of "
                f"{len(self.classes_)} classes; accepted: a share that has samples of each class ({error})"
            ) from error
        train, test = (
            Samples(data.X[part], data.y[part], None if data.weight is None else data.weight[part])
            for part in map(np.sort, parts)
        )
        if not (train.total_weight > 0 and test.total_weight > 0):
            raise ValueError("sample_weight: received weights of which early stopping leaves none; accepted: more > 0")
        return train, test

    def _validate(self, network: Network, data: Samples) -> float:
        score = float(np.average(np.argmax(network.logits(data.X), axis=1) == data.y, weights=data.weight))
        if self.validation_scores_ is not None:
            self.validation_scores_.append(score)
        return score

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(check_random_state(self.random_state).randint(2**31, size=4))

    def _new_network(self, dtype: Any) -> Network:
        sizes = (self.n_features_in_, *map(int, self.hidden_layer_sizes), len(self.classes_))
        return Network(sizes, self.activation, dropout=float(self.dropout), dtype=dtype)

    def _new_descent(self, network: Network, random: np.random.Generator) -> Descent[_Objective]:
        rate = float(self.learning_rate_init)
        l2 = 0.0 if self.solver == "adamw" else float(self.alpha)
        optimizer: Optimizer
        if self.solver == "adamw":
            optimizer = AdamW(
                network.parameters,
                n_weights=network.n_weights,
                learning_rate=rate,
                beta_1=self.beta_1,
                beta_2=self.beta_2,
                epsilon=self.epsilon,
                weight_decay=self.alpha,
            )
        else:
            optimizer = SGD(
                network.parameters,
                n_weights=network.n_weights,
                learning_rate=rate,
                momentum=self.momentum,
                nesterov=self.nesterovs_momentum,
                l2=l2,
            )
        return Descent(
            _Objective(network, l2, random),
            optimizer,
            name=self.solver,
            batch_size=128 if self.batch_size == "auto" else int(self.batch_size),
            random=random if self.shuffle else None,
        )

    @staticmethod
    def _blas_threads(descent: Descent[_Objective]) -> Any:
        return blas_threads_for(descent.batch_size * descent.model.network.largest_layer)

    def _watch(self, epoch: int, value: float) -> None:
        self.loss_curve_.append(value)
        if self.verbose and epoch % self.verbose == 0:
            print(f"epoch {epoch}: objective {value:.8g}")
        if self.callback is not None:
            self.callback(epoch, value)

    def _warn(self, fit: Fit) -> None:
        if fit.converged:
            return
        if fit.message == "interrupted":
            kept = "the best model so far" if self.early_stopping else "the model as it is now"
            text = f"interrupted after {fit.n_iter} epochs; {kept} is kept"
        else:
            text = f"solver={self.solver!r} did not converge in {fit.n_iter} epochs: increase max_iter or set tol=0"
        warnings.warn(text, ConvergenceWarning, stacklevel=3)

    def _keep(self, network: Network, n_iter: int) -> None:
        self.coefs_ = [coef.copy() for coef in network.coefs]
        self.intercepts_ = [intercept.copy() for intercept in network.intercepts]
        self._fitted_activation = network.activation
        self.n_iter_ = n_iter
        self.n_layers_ = len(network.sizes)
        self.n_outputs_ = len(self.classes_)
        self.loss_ = self.loss_curve_[-1] if self.loss_curve_ else float("nan")
        self.best_loss_ = min(self.loss_curve_, default=float("nan"))
        self.best_validation_score_ = max(self.validation_scores_, default=None) if self.validation_scores_ else None

    def _check_parameters(self) -> None:
        check = partial(check_parameter, self)
        sizes: Any = self.hidden_layer_sizes
        is_sequence = isinstance(sizes, (Sequence, np.ndarray)) and not isinstance(sizes, str)
        check("hidden_layer_sizes", is_sequence and all(map(is_count, sizes)), "a sequence of integers >= 1")
        check("activation", self.activation in ACTIVATIONS, "one of " + ", ".join(map(repr, ACTIVATIONS)))
        check("solver", self.solver in ("adamw", "sgd"), "'adamw' or 'sgd'")
        check("alpha", is_real(self.alpha) and 0 <= self.alpha < np.inf, "a finite number >= 0")
        check("dropout", is_real(self.dropout) and 0 <= self.dropout < 1, "a number in [0, 1)")
        check("batch_size", self.batch_size == "auto" or is_count(self.batch_size), "'auto' or an integer >= 1")
        rate: Any = self.learning_rate_init
        check("learning_rate_init", is_real(rate) and 0 < rate < np.inf, "a finite number > 0")
        check("max_iter", is_count(self.max_iter), "an integer >= 1")
        check("tol", is_real(self.tol) and self.tol >= 0, "a number >= 0")
        check("momentum", is_real(self.momentum) and 0 <= self.momentum < 1, "a number in [0, 1)")
        share: Any = self.validation_fraction
        check("validation_fraction", is_real(share) and 0 < share < 1, "a number in (0, 1)")
        check("beta_1", is_real(self.beta_1) and 0 <= self.beta_1 < 1, "a number in [0, 1)")
        check("beta_2", is_real(self.beta_2) and 0 <= self.beta_2 < 1, "a number in [0, 1)")
        check("epsilon", is_real(self.epsilon) and self.epsilon > 0, "a number > 0")
        check("n_iter_no_change", is_count(self.n_iter_no_change), "an integer >= 1")
        check("callback", self.callback is None or callable(self.callback), "a callable or None")


class _Objective:
    """What descent minimises: the loss of the network, with dropout, and the prior of "sgd"."""

    def __init__(self, network: Network, l2: float, random: np.random.Generator) -> None:
        self.network = network
        self.l2 = l2
        self.random = random

    @property
    def parameters(self) -> FloatArray:
        return self.network.parameters

    @property
    def gradient(self) -> FloatArray:
        return self.network.gradient

    @property
    def weights(self) -> FloatArray:
        return self.network.weights

    def loss_and_gradient(self, X: Any, y: IntArray, sample_weight: FloatArray | None, total_weight: float) -> float:
        return self.network.loss_and_gradient(X, y, sample_weight, total_weight, self.random)

    def penalty(self) -> float:
        return self.network.penalty(self.l2)
