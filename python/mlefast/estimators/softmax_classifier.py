"""Multinomial logistic regression by maximum likelihood."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from mlefast._backends import on_host
from mlefast.estimators.checkpoint import Checkpoint
from mlefast.estimators.descent import Descent, Fit
from mlefast.estimators.inference import MaximumLikelihoodResult, maximum_likelihood_statistics
from mlefast.estimators.machines import Machine, machine_of, to_host
from mlefast.estimators.objective import FloatArray, IntArray, LinearObjective, linear_logits
from mlefast.estimators.optimizers import SGD, AdamW, Optimizer
from mlefast.estimators.samples import Samples, Source, StreamSamples, sum_of_squares
from mlefast.estimators.schedules import Schedule
from mlefast.estimators.softmax_estimator import BY_EPOCHS, Callback, SoftmaxEstimator
from mlefast.estimators.solvers import Problem, lbfgs, newton_cg
from mlefast.estimators.validation import check_parameter, class_codes, features_of, is_real, one_of

_FULL_BATCH = {"lbfgs": lbfgs, "newton-cg": newton_cg}
_PENALTIES = ("l2", "l1", "elasticnet", None)


class SoftmaxClassifier(SoftmaxEstimator):
    r"""Linear softmax classifier fitted by maximum likelihood, or with a prior on its weights (MAP).

    The model is :math:`P(y=k \mid x) = \mathrm{softmax}(Wx + b)_k`. Fitting minimises
    :math:`C \sum_i -\log P(y_i \mid x_i) + \tfrac{1-\rho}2 \|W\|^2 + \rho \|W\|_1`, the objective of scikit-learn's
    ``LogisticRegression``; without a penalty it is the negative log-likelihood alone. Two classes have one row of
    weights, the second class's against the first's.

    Parameters
    ----------
    penalty : {"l2", "l1", "elasticnet", None}, default "l2"
        The prior on the weights: Gaussian of variance `C` (:math:`\rho = 0`), Laplace's (:math:`\rho = 1`), which makes
        some weights exactly 0, both (:math:`\rho` = `l1_ratio`), or none. Intercepts have no prior.
    C : float, default 1.0
        Inverse strength of the prior, > 0; infinity is the same as ``penalty=None``.
    l1_ratio : float, default 0.5
        :math:`\rho` of "elasticnet", in [0, 1].
    fit_intercept : bool, default True
        Whether there is an intercept :math:`b`.
    class_weight : dict, "balanced" or None, default None
        A factor for the samples of each class; "balanced" makes all classes weigh the same.
    solver : {"lbfgs", "newton-cg", "sgd", "adamw"}, default "lbfgs"
        "lbfgs" and "newton-cg" see all samples in every iteration; "newton-cg" uses products with the Hessian, and
        takes no L1 prior. "sgd" takes steps on shuffled mini-batches, with momentum; "adamw" takes adaptive ones. All
        seek the same solution: the prior is part of the objective, not a decay of its own.
    max_iter : int, default 100
        The largest number of iterations; of epochs with "sgd" and "adamw".
    tol : float, default 1e-4
        "lbfgs" and "newton-cg" stop when no entry of the mean gradient exceeds it; the others when the objective per
        sample (with `early_stopping` the validation accuracy) has not improved by it for `n_iter_no_change` epochs, 0
        runs all epochs.
    warm_start : bool, default False
        Start `fit` from the last solution.
    random_state : int, RandomState or None, default None
        The order in which "sgd" and "adamw" visit the samples, and those that early stopping sets aside. The same
        number gives the same model, whatever the number of threads.
    verbose : int, default 0
        If positive, show the objective: a progress bar on a terminal (with rich), else a line after so many iterations.
    batch_size : int or "auto", default "auto"
        Samples in a step of "sgd" or "adamw"; "auto" is the smaller of 128 and their number.
    learning_rate_init : float or "auto", default "auto"
        Step size. "auto" is :math:`(1-\mu) / (\tfrac12 \overline{\|x\|^2} + \tfrac12 + \lambda)` for "sgd", with which
        descent on all samples could not overshoot, and 0.001 for "adamw".
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"} or callable, default "constant"
        The step size in epoch :math:`t` of `max_iter` :math:`T`, relative to `learning_rate_init`: 1,
        :math:`\tfrac12 (1 + \cos \pi \frac{t-1}{T})`, :math:`1/\sqrt t`, or divided by 5 (four times at most) each time
        that nothing has improved for `n_iter_no_change` epochs. A callable gets :math:`t`, from 1, and gives the
        factor.
    momentum : float, default 0.9
        :math:`\mu` of "sgd", in [0, 1).
    nesterovs_momentum : bool, default True
        Nesterov's momentum instead of the classical one.
    n_iter_no_change : int, default 10
        See `tol`.
    early_stopping : bool, default False
        For "sgd" and "adamw": set `validation_fraction` of the samples aside, stop when their accuracy no longer
        improves, and keep the model that was best for them.
    validation_fraction : float, default 0.1
        See `early_stopping`; of each class, in (0, 1).
    callback : callable or None, default None
        Called as ``callback(iteration, objective)`` after every iteration or epoch; the objective is per sample.
    checkpoint : str, path or None, default None
        A directory in which the state of `fit` is saved after every iteration or epoch.
    resume : bool, default False
        Go on from the state in `checkpoint`, if there is one, to the same bits as a fit that was never interrupted.

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
    validation_scores_ : list of float or None
        With early stopping: accuracy on the samples that were set aside, after each epoch.
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

    def __init__(
        self,
        penalty: str | None = "l2",
        *,
        C: float = 1.0,
        l1_ratio: float = 0.5,
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
        learning_rate: str | Schedule = "constant",
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        callback: Callback | None = None,
        checkpoint: Any = None,
        resume: bool = False,
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
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
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callback = callback
        self.checkpoint = checkpoint
        self.resume = resume

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
        if any(self._priors(1.0)):
            raise ValueError(
                f"penalty: received {self.penalty!r} with C={self.C:g}; accepted: None (or C=inf): a prior biases the "
                "coefficients, and the curvature of the likelihood alone does not give their errors"
            )
        if self.class_weight is not None:
            raise ValueError(
                f"class_weight: received {self.class_weight!r}; accepted: None: weighted classes are not a likelihood"
            )
        on_host(X, "statistics")
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

    def _is_fitted(self) -> bool:
        return hasattr(self, "coef_")

    def _has_shape_of_solution(self) -> bool:
        return bool(self.coef_.shape[1] == self.n_features_in_)

    def _logits(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        X = features_of(self, X, reset=False)
        machine = machine_of(X)
        dtype = np.result_type(X.dtype, self.coef_.dtype)
        coef, intercept = (machine.asarray(part.astype(dtype)) for part in (self.coef_, self.intercept_))
        return linear_logits(X.astype(dtype, copy=False), coef, intercept, machine=machine)

    def _priors(self, total_weight: float) -> tuple[float, float]:
        """Return the strengths of the L2 and L1 prior per sample."""
        strength = 0.0 if self.penalty is None or math.isinf(self.C) else 1.0 / (self.C * total_weight)
        share = {"l1": 1.0, "elasticnet": float(self.l1_ratio)}.get(self.penalty or "", 0.0)
        return (1 - share) * strength, share * strength

    def _objective(self, dtype: Any, machine: Machine, total_weight: float) -> LinearObjective:
        l2, l1 = self._priors(total_weight)
        return LinearObjective(
            self.n_features_in_,
            len(self.classes_),
            fit_intercept=self.fit_intercept,
            l2=l2,
            l1=l1,
            dtype=dtype,
            machine=machine,
        )

    def _start(self, objective: LinearObjective, *, go_on: bool) -> FloatArray:
        start = np.zeros(objective.size)
        if go_on:
            weights, intercepts = objective.split(start)
            weights[...] = self.coef_
            if intercepts is not None:
                intercepts[...] = self.intercept_
        return start

    def _minimise(
        self,
        data: Samples,
        validation: Samples | None,
        random: np.random.Generator,
        checkpoint: Checkpoint | None,
        *,
        go_on: bool,
    ) -> tuple[Any, Fit]:
        if self.solver not in _FULL_BATCH:
            return super()._minimise(data, validation, random, checkpoint, go_on=go_on)
        machine = machine_of(data.X)
        objective = self._objective(data.X.dtype, machine, data.total_weight)
        start = self._start(objective, go_on=go_on)
        minimise = partial(_FULL_BATCH[self.solver], max_iter=self.max_iter, tol=self.tol, checkpoint=checkpoint)
        with self._watching() as watch, machine.one_thread():
            fit = minimise(Problem(objective, data), start, watch=watch)
        return _LinearModel(objective, fit.parameters), fit

    def _new_model(self, dtype: Any, machine: Machine, random: np.random.Generator, *, go_on: bool) -> _LinearModel:
        objective = self._objective(dtype, machine, 1.0)
        return _LinearModel(objective, machine.asarray(self._start(objective, go_on=go_on).astype(dtype)))

    def _new_optimizer(self, model: _LinearModel, data: Source, n_samples: float | None) -> Optimizer:
        objective, rate = model.objective, self.learning_rate_init
        needs_scale = rate == "auto" and self.solver != "adamw"
        mean_square = math.nan
        if isinstance(data, Samples):
            mean_square = sum_of_squares(data.X) / data.X.shape[0] if needs_scale else math.nan
        elif isinstance(data, StreamSamples) and (needs_scale or n_samples is None):
            n_samples, mean_square = data.scan()
        objective.l2, objective.l1 = self._priors(float(n_samples or 1))
        of_prior: dict[str, Any] = {"n_weights": objective.n_weights, "l2": objective.l2, "l1": objective.l1}
        if self.solver == "adamw":
            # The prior is part of the objective, as for every solver; none of it is left to decouple.
            return AdamW(model.parameters, learning_rate=0.001 if rate == "auto" else float(rate), **of_prior)
        if rate == "auto":
            rate = steady_learning_rate(mean_square, objective.l2, self.momentum)
        return SGD(
            model.parameters,
            learning_rate=float(rate),
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            **of_prior,
        )

    def _renew_prior(self, descent: Descent[Any], total_weight: float) -> None:
        objective = descent.model.objective
        optimizer: Any = descent.optimizer
        objective.l2, objective.l1 = optimizer.l2, optimizer.l1 = self._priors(total_weight)

    def _model_logits(self, model: _LinearModel, X: Any) -> FloatArray:
        weights, intercepts = model.objective.split(model.parameters)
        return linear_logits(X, weights, intercepts, machine=model.objective.machine)

    def _keep(self, model: _LinearModel, n_iter: int) -> None:
        weights, intercepts = model.objective.split(to_host(model.parameters))
        self.coef_ = np.array(weights)
        self.intercept_ = np.zeros(len(weights)) if intercepts is None else np.array(intercepts)
        self.n_iter_ = n_iter

    def _check_parameters(self) -> None:
        self._check_common_parameters()
        check = partial(check_parameter, self)
        check("penalty", self.penalty in _PENALTIES, one_of(_PENALTIES))
        check("C", is_real(self.C) and self.C > 0, "a number > 0")
        ratio: Any = self.l1_ratio
        check("l1_ratio", is_real(ratio) and 0 <= ratio <= 1, "a number in [0, 1]")
        solvers = (*_FULL_BATCH, *BY_EPOCHS)
        check("solver", self.solver in solvers, one_of(solvers))
        rate: Any = self.learning_rate_init
        check("learning_rate_init", rate == "auto" or (is_real(rate) and rate > 0), "'auto' or a number > 0")
        check("momentum", is_real(self.momentum) and 0 <= self.momentum < 1, "a number in [0, 1)")
        smooth = self.solver != "newton-cg" or self._priors(1.0)[1] == 0
        check("penalty", smooth, "'l2' or None for solver='newton-cg', which needs an objective without kinks")
        can_stop = self.solver in BY_EPOCHS or not self.early_stopping
        check("early_stopping", can_stop, f"False for solvers other than {one_of(BY_EPOCHS)}")


class _LinearModel:
    """A linear objective at parameters of its own: what descent trains."""

    def __init__(self, objective: LinearObjective, parameters: FloatArray) -> None:
        self.objective = objective
        self.parameters = parameters
        self.gradient = objective.machine.empty(parameters.shape, parameters.dtype)

    def loss_and_gradient(self, X: Any, y: IntArray, sample_weight: FloatArray | None, total_weight: float) -> Any:
        return self.objective.loss_and_gradient(self.parameters, X, y, sample_weight, total_weight, self.gradient)

    def penalty(self) -> float:
        return self.objective.penalty(self.parameters)


def steady_learning_rate(mean_square: float, l2: float, momentum: float) -> float:
    r"""The step size at which descent on all samples cannot overshoot.

    A sample's loss has a curvature of at most :math:`\|x\|^2/2` (the largest eigenvalue of
    :math:`\mathrm{diag}(p) - pp^T` is at most 1/2; D. Böhning, 1992), and momentum multiplies a steady step by
    :math:`1/(1-\mu)`.
    """
    return (1 - momentum) / (0.5 * (mean_square + 1) + l2)
