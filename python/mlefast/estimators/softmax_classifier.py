"""Multinomial logistic regression by maximum likelihood."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mlefast.estimators.blas import blas_threads_for
from mlefast.estimators.inference import MaximumLikelihoodResult, maximum_likelihood_statistics
from mlefast.estimators.objective import FloatArray, LinearObjective, linear_logits
from mlefast.estimators.optimizers import SGD, AdamW, Optimizer
from mlefast.estimators.solvers import Descent, Fit, LinearDescent, Samples, lbfgs, steady_learning_rate
from mlefast.estimators.validation import check_parameter, class_codes, is_count, is_real, weight_of_samples
from mlefast.losses import cross_entropy
from mlefast.softmax import log_softmax, softmax

Callback = Callable[[int, float], None]


class SoftmaxClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    r"""Linear softmax classifier fitted by maximum likelihood, or with a Gaussian prior on its weights (MAP).

    The model is :math:`P(y=k \mid x) = \mathrm{softmax}(Wx + b)_k`. Fitting minimises
    :math:`C \sum_i -\log P(y_i \mid x_i) + \tfrac12 \|W\|^2`, the objective of scikit-learn's ``LogisticRegression``;
    without a penalty it is the negative log-likelihood alone. Two classes have one row of weights, the second class's
    against the first's.

    Parameters
    ----------
    penalty : {"l2", None}, default "l2"
        "l2" is a Gaussian prior on the weights, of variance `C`; None is none. Intercepts have no prior.
    C : float, default 1.0
        Inverse strength of the prior, > 0; infinity is the same as ``penalty=None``.
    fit_intercept : bool, default True
        Whether there is an intercept :math:`b`.
    class_weight : dict, "balanced" or None, default None
        A factor for the samples of each class; "balanced" makes all classes weigh the same.
    solver : {"lbfgs", "sgd", "adamw"}, default "lbfgs"
        "lbfgs" sees all samples in every iteration. "sgd" takes steps on shuffled mini-batches, with momentum; "adamw"
        takes adaptive ones. All seek the same solution: the prior is part of the objective, not a decay of its own.
    max_iter : int, default 100
        The largest number of iterations; of epochs with "sgd" and "adamw".
    tol : float, default 1e-4
        "lbfgs" stops when no entry of the mean gradient exceeds it; the others when the objective per sample has not
        fallen by it for `n_iter_no_change` epochs, 0 runs all epochs.
    warm_start : bool, default False
        Start `fit` from the last solution.
    random_state : int, RandomState or None, default None
        The order in which "sgd" and "adamw" visit the samples.
    verbose : int, default 0
        If positive, print the objective after every so many iterations.
    batch_size : int or "auto", default "auto"
        Samples in a step of "sgd" or "adamw"; "auto" is the smaller of 128 and their number.
    learning_rate_init : float or "auto", default "auto"
        Step size. "auto" is :math:`(1-\mu) / (\tfrac12 \overline{\|x\|^2} + \tfrac12 + \lambda)` for "sgd", with which
        descent on all samples could not overshoot, and 0.001 for "adamw".
    momentum : float, default 0.9
        :math:`\mu` of "sgd", in [0, 1).
    nesterovs_momentum : bool, default True
        Nesterov's momentum instead of the classical one.
    n_iter_no_change : int, default 10
        See `tol`.
    callback : callable or None, default None
        Called as ``callback(iteration, objective)`` after every iteration or epoch; the objective is per sample.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        The labels.
    coef_ : ndarray, shape (1, n_features) or (n_classes, n_features)
        :math:`W`.
    intercept_ : ndarray, shape (1,) or (n_classes,)
        :math:`b`.
    n_iter_ : int
        Iterations or epochs that were run.
    loss_curve_ : list of float
        The objective per sample after each of them.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, if `X` had any.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mlefast import SoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> SoftmaxClassifier(max_iter=1000).fit(X, y).score(X, y)
    0.97...
    """

    classes_: npt.NDArray[Any]

    def __init__(
        self,
        penalty: str | None = "l2",
        *,
        C: float = 1.0,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        tol: float = 1e-4,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
        batch_size: int | str = "auto",
        learning_rate_init: float | str = "auto",
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        n_iter_no_change: int = 10,
        callback: Callback | None = None,
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.n_iter_no_change = n_iter_no_change
        self.callback = callback

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxClassifier:
        """Fit the model to samples.

        Parameters
        ----------
        X : array_like or CSR matrix of float32 or float64, shape (n_samples, n_features)
            Features; computed in their own precision, other dtypes in float64.
        y : array_like, shape (n_samples,)
            Labels: numbers or strings.
        sample_weight : array_like, shape (n_samples,), optional
            A factor for each sample.

        Returns
        -------
        SoftmaxClassifier
            Itself.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        before = (self.classes_, self.coef_, self.intercept_) if self.warm_start and hasattr(self, "coef_") else None
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y: received only one class, {self.classes_.tolist()[0]!r}; accepted: labels of at least 2 classes"
            )
        data = Samples(X, codes.astype(np.int64), self._weights(X, codes, sample_weight))
        if not data.total_weight > 0:
            raise ValueError(f"sample_weight: received weights that sum to {data.total_weight}; accepted: a sum > 0")
        objective = self._objective(data)
        start = np.zeros(objective.shape)
        if before is not None and np.array_equal(before[0], self.classes_) and before[1].shape[1] == X.shape[1]:
            start[:, : X.shape[1]] = before[1]
            if self.fit_intercept:
                start[:, -1] = before[2]
        self.loss_curve_: list[float] = []
        fit = self._solve(objective, start, data)
        if not fit.converged:
            warnings.warn(
                f"solver={self.solver!r} did not converge in {fit.n_iter} iterations ({fit.message}): "
                "increase max_iter or scale the features",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._keep(fit.parameters, fit.n_iter)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> SoftmaxClassifier:
        """Continue with one epoch over these samples, by "adamw" if that is the `solver`, else by "sgd".

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`. The prior counts once for the samples of each call.
        classes : array_like, optional
            All labels that will ever come; needed in the first call.

        Returns
        -------
        SoftmaxClassifier
            Itself.
        """
        self._check_parameters()
        first = not hasattr(self, "coef_")
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
        data = Samples(X, codes, self._weights(X, codes, sample_weight))
        if first:
            objective = self._objective(data)
            self._descent = self._new_descent(objective, np.zeros(objective.shape), data)
            self.loss_curve_ = []
        elif not hasattr(self, "_descent"):
            objective = self._objective(data)
            start = np.hstack([self.coef_, self.intercept_[:, None]]) if self.fit_intercept else self.coef_
            self._descent = self._new_descent(objective, start, data)
        model = self._descent.model
        model.objective.l2 = self._l2(data.total_weight)
        with blas_threads_for(self._descent.batch_size * model.parameters.size):
            objective_value = self._descent.epoch(data)
        self._watch(len(self.loss_curve_) + 1, objective_value)
        self._keep(model.parameters, len(self.loss_curve_))
        return self

    def decision_function(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Logits: shape (n_samples, n_classes), or (n_samples,) for two classes, the second against the first."""
        logits = self._logits(X)
        return logits[:, 1] if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each sample, shape (n_samples,)."""
        winners = np.argmax(self._logits(X), axis=1)
        labels: npt.NDArray[Any] = self.classes_[winners]
        return labels

    def predict_proba(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Probabilities of the classes, shape (n_samples, n_classes), in the order of `classes_`."""
        logits = self._logits(X)
        probabilities: npt.NDArray[np.floating[Any]] = softmax(logits, out=logits)
        return probabilities

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Logarithms of the probabilities, shape (n_samples, n_classes), exact where a probability rounds to 0 or 1."""
        logits = self._logits(X)
        logs: npt.NDArray[np.floating[Any]] = log_softmax(logits, out=logits)
        return logs

    def log_likelihood(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the log-likelihood of labelled samples, in nats: the (weighted) sum of log P(y | x)."""
        logits = self._logits(X)
        losses = cross_entropy(logits, class_codes(np.asarray(y), self.classes_), reduction="none")
        if sample_weight is not None:
            losses = losses * _check_sample_weight(sample_weight, X, dtype=np.float64)
        return -float(np.sum(losses, dtype=np.float64))

    def statistics(self, X: Any, y: Any, sample_weight: Any = None) -> MaximumLikelihoodResult:
        """Statistics of maximum likelihood: standard errors, tests, intervals, criteria.

        They are those of coefficients against the first class, as of statsmodels' ``MNLogit``, at the maximum of the
        likelihood: Newton's method takes the fitted coefficients to its last digits.

        Parameters
        ----------
        X, y : array_like
            The samples of `fit`.
        sample_weight : array_like, shape (n_samples,), optional
            Those of `fit`. They are counts: a weight of 2 is two samples.

        Returns
        -------
        MaximumLikelihoodResult
            ``print(result.summary())`` shows all of it.

        Raises
        ------
        ValueError
            If the fit is penalised or has class weights, so that it is none of maximum likelihood; if the likelihood
            has no single maximum (too few samples, linearly dependent features, separable classes); if the maximum for
            these samples is not where `fit` has ended.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from mlefast import SoftmaxClassifier
        >>> X, y = load_iris(return_X_y=True)
        >>> X, y = X[50:, :2], y[50:]
        >>> model = SoftmaxClassifier(penalty=None, tol=1e-8).fit(X, y)
        >>> result = model.statistics(X, y)
        >>> result.names
        ('intercept', 'x0', 'x1')
        >>> result.standard_errors.round(2)
        array([[3.1 , 0.52, 0.86]])
        """
        check_is_fitted(self)
        if self._l2(1.0) > 0:
            raise ValueError(
                f"penalty: received {self.penalty!r} with C={self.C:g}; accepted: None (or C=inf): a prior biases the "
                "coefficients, and the curvature of the likelihood alone does not give their errors"
            )
        if self.class_weight is not None:
            raise ValueError(
                f"class_weight: received {self.class_weight!r}; accepted: None: weighted classes are not a likelihood"
            )
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        coef: Any = np.hstack([self.intercept_[:, None], self.coef_]) if self.fit_intercept else self.coef_
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(X.shape[1])])
        return maximum_likelihood_statistics(
            coef[1:] - coef[0] if len(coef) > 1 else coef,
            X,
            class_codes(y, self.classes_),
            weight,
            classes=tuple(self.classes_.tolist()),
            names=(*(("intercept",) if self.fit_intercept else ()), *map(str, names)),
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _logits(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        dtype = np.result_type(X.dtype, self.coef_.dtype)
        return linear_logits(X.astype(dtype, copy=False), self.coef_.astype(dtype), self.intercept_.astype(dtype))

    def _weights(self, X: Any, codes: Any, sample_weight: Any) -> FloatArray | None:
        return weight_of_samples(X, codes, self.classes_, sample_weight, self.class_weight)

    def _l2(self, total_weight: float) -> float:
        return 0.0 if self.penalty is None or math.isinf(self.C) else 1.0 / (self.C * total_weight)

    def _objective(self, data: Samples) -> LinearObjective:
        return LinearObjective(
            data.X.shape[1],
            len(self.classes_),
            fit_intercept=self.fit_intercept,
            l2=self._l2(data.total_weight),
            dtype=data.X.dtype,
        )

    def _solve(self, objective: LinearObjective, start: FloatArray, data: Samples) -> Fit:
        if self.solver == "lbfgs":
            with blas_threads_for(len(data.y) * start.size):
                return lbfgs(objective, start, data, max_iter=self.max_iter, tol=self.tol, watch=self._watch)
        descent = self._new_descent(objective, start, data)
        with blas_threads_for(descent.batch_size * start.size):
            return descent.run(
                data, max_iter=self.max_iter, tol=self.tol, n_iter_no_change=self.n_iter_no_change, watch=self._watch
            )

    def _new_descent(self, objective: LinearObjective, start: FloatArray, data: Samples) -> Descent[LinearDescent]:
        model = LinearDescent(objective, start)
        rate: Any = self.learning_rate_init
        optimizer: Optimizer
        if self.solver == "adamw":
            # The prior is part of the objective, as for every solver; none of it is left to decouple.
            optimizer = AdamW(model.parameters, learning_rate=0.001 if rate == "auto" else float(rate))
        else:
            optimizer = SGD(
                model.parameters,
                learning_rate=(
                    steady_learning_rate(data.X, objective.l2, self.momentum) if rate == "auto" else float(rate)
                ),
                momentum=self.momentum,
                nesterov=self.nesterovs_momentum,
            )
        return Descent(
            model,
            optimizer,
            name="adamw" if self.solver == "adamw" else "sgd",
            batch_size=128 if self.batch_size == "auto" else int(self.batch_size),
            random=check_random_state(self.random_state),
        )

    def _watch(self, iteration: int, value: float) -> None:
        self.loss_curve_.append(value)
        if self.verbose and iteration % self.verbose == 0:
            print(f"iteration {iteration}: objective {value:.8g}")
        if self.callback is not None:
            self.callback(iteration, value)

    def _keep(self, parameters: FloatArray, n_iter: int) -> None:
        n_features = self.n_features_in_
        self.coef_ = np.array(parameters[:, :n_features])
        self.intercept_ = np.array(parameters[:, n_features]) if self.fit_intercept else np.zeros(len(parameters))
        self.n_iter_ = n_iter

    def _check_parameters(self) -> None:
        check = partial(check_parameter, self)
        check("penalty", self.penalty in ("l2", None), "'l2' or None")
        check("C", is_real(self.C) and self.C > 0, "a number > 0")
        check("solver", self.solver in ("lbfgs", "sgd", "adamw"), "'lbfgs', 'sgd' or 'adamw'")
        check("max_iter", is_count(self.max_iter), "an integer >= 1")
        check("tol", is_real(self.tol) and self.tol >= 0, "a number >= 0")
        check("batch_size", self.batch_size == "auto" or is_count(self.batch_size), "'auto' or an integer >= 1")
        rate: Any = self.learning_rate_init
        check("learning_rate_init", rate == "auto" or (is_real(rate) and rate > 0), "'auto' or a number > 0")
        check("momentum", is_real(self.momentum) and 0 <= self.momentum < 1, "a number in [0, 1)")
        check("n_iter_no_change", is_count(self.n_iter_no_change), "an integer >= 1")
        check("callback", self.callback is None or callable(self.callback), "a callable or None")
