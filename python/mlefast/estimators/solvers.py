"""Minimisers of a :class:`~mlefast.estimators.objective.LinearObjective` on all samples at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse.linalg

from mlefast import _core
from mlefast.estimators.blas import product
from mlefast.estimators.checkpoint import Checkpoint, EvaluationLog
from mlefast.estimators.descent import INTERRUPTED, Fit, Watcher
from mlefast.estimators.machines import Machine
from mlefast.estimators.objective import FloatArray, LinearObjective, has_own_products
from mlefast.estimators.samples import Samples

_MOST_PRODUCTS = 500  # with the Hessian, in one iteration
_SMALL_GAIN = 0.01  # of the objective: what Newton's method, which converges faster than linearly, leaves is less


class Problem:
    """The penalised objective of some samples, as a function of its parameters."""

    def __init__(self, objective: LinearObjective, data: Samples) -> None:
        self.objective = objective
        self.data = data
        self.total_weight = data.total_weight
        objective.keep_transpose(data.X)

    def smooth(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """Return the objective without its L1 part, and the gradient of that."""
        objective, data = self.objective, self.data
        machine = objective.machine
        into = machine.empty(objective.size, np.float64)
        value = float(objective.loss_and_gradient(parameters, data.X, data.y, data.weight, self.total_weight, into))
        gradient: FloatArray = machine.to_host(into)
        weights = parameters[: objective.n_weights]
        if objective.l2:
            value += 0.5 * objective.l2 * float(np.vdot(weights, weights))
            gradient[: objective.n_weights] += objective.l2 * weights
        return value, gradient

    def hessian(self, parameters: FloatArray) -> Callable[[FloatArray], FloatArray]:
        """Return the product with the Hessian at some parameters."""
        objective = self.objective
        curvature = objective.curvature(parameters, self.data.X, self.data.weight, self.total_weight)

        def times(vector: FloatArray) -> FloatArray:
            product = curvature.times(vector)
            product[: objective.n_weights] += objective.l2 * vector[: objective.n_weights]
            return product

        return times


class Preconditioner:
    r"""Coordinates in which the curvature of the objective is about the same in all directions.

    The Hessian of the loss is bounded by :math:`\tfrac12 (I - 11^T/K) \otimes X^T X / n` (D. Böhning, 1992), and the
    factor of :math:`X^T X` is what makes it ill-conditioned: pixels, say, vary together. With the Cholesky factor
    :math:`L L^T = s X^T X / n + \lambda I` the coordinates are :math:`U = L^T W`. The share :math:`s` of the bound is
    what is left of :math:`p (1-p)` on a typical way to the solution.
    """

    # The factor, its inverse and the products cost as much as these many evaluations at most, or it does not pay.
    _WORTH = 50
    _MOST_FEATURES = 4096
    _SHARE = 0.2

    def __init__(self, problem: Problem) -> None:
        objective, data = problem.objective, problem.data
        self._shape = objective.n_outputs, objective.n_features + objective.fit_intercept
        self._objective = objective
        X, machine = data.X, objective.machine
        dense = machine.xp.ndarray
        root = None if data.weight is None else machine.xp.sqrt(data.weight).astype(X.dtype)
        if root is not None:
            X = X * root[:, None] if isinstance(X, dense) else X.multiply(root[:, None]).tocsr()
        n_features = objective.n_features
        full = np.empty((self._shape[1],) * 2)
        full[:n_features, :n_features] = _gram(X, machine) if isinstance(X, dense) else (X.T @ X).toarray()
        if objective.fit_intercept:
            ones = machine.xp.ones(X.shape[0], X.dtype) if root is None else root
            full[n_features, :n_features] = full[:n_features, n_features] = machine.to_host(X.T @ ones)
            full[n_features, n_features] = problem.total_weight
        full *= self._SHARE / objective.n_classes / problem.total_weight
        diagonal = np.einsum("ii->i", full)
        diagonal += 1e-6 * float(diagonal.max())  # features that are constant or depend on each other
        diagonal[:n_features] += objective.l2
        self._factor = scipy.linalg.cholesky(full, lower=True, overwrite_a=True)
        # To multiply by the inverse is several times as fast as to solve. It may be inexact, if only points and
        # gradients are transformed by the same numbers.
        inverse, _ = scipy.linalg.lapack.dtrtri(self._factor, lower=1)
        self._inverse = np.ascontiguousarray(inverse)

    @classmethod
    def pays(cls, problem: Problem) -> bool:
        """Whether it costs less than the evaluations that it spares."""
        n_features, X = problem.objective.n_features, problem.data.X
        evaluation = 4 * X.shape[0] * n_features * problem.objective.n_outputs
        if not isinstance(X, problem.objective.machine.xp.ndarray):
            evaluation = int(evaluation * (X.nnz / (X.shape[0] * n_features)))
            n_products = X.nnz**2 / X.shape[0]
        else:
            n_products = X.shape[0] * n_features**2
        return n_features <= cls._MOST_FEATURES and n_products + 2 * n_features**3 / 3 <= cls._WORTH * evaluation

    def to_parameters(self, u: FloatArray) -> FloatArray:
        """Return the parameters of a point."""
        point, matrix = u.reshape(self._shape[::-1]), np.empty(self._shape)
        if has_own_products(self._shape[1], self._shape[0]):
            _core.linear_gradient(self._inverse, point, matrix, None)
        else:
            product(point.T, self._inverse, matrix)
        n_features = self._objective.n_features
        return np.concatenate([matrix[:, :n_features].ravel(), matrix[:, n_features:].ravel()])

    def gradient(self, gradient: FloatArray) -> FloatArray:
        """Return the gradient with respect to the coordinates."""
        matrix, slope = self._matrix(gradient), np.empty(self._shape[::-1])
        if has_own_products(self._shape[1], self._shape[0]):
            _core.linear_logits(self._inverse, matrix, None, slope)
        else:
            product(self._inverse, matrix.T, slope)
        return slope.ravel()

    def from_parameters(self, parameters: FloatArray) -> FloatArray:
        """Return the coordinates of parameters."""
        return np.ascontiguousarray(self._factor.T @ self._matrix(parameters).T).ravel()

    def _matrix(self, parameters: FloatArray) -> FloatArray:
        weights, intercepts = self._objective.split(parameters)
        return weights if intercepts is None else np.hstack([weights, intercepts[:, None]])


def _gram(X: Any, machine: Machine) -> Any:
    """Return X'X on the host, its upper right quarter left out: Cholesky's factor needs the lower triangle."""
    n_features = X.shape[1]
    half = n_features // 2
    gram = machine.zeros((n_features, n_features), X.dtype)
    for rows, columns in ((slice(half), slice(half)), (slice(half, None), slice(None))):
        machine.product(X[:, rows].T, X[:, columns], gram[rows, columns])
    return machine.to_host(gram)


class Parameters:
    """The parameters as their own coordinates."""

    def to_parameters(self, u: FloatArray) -> FloatArray:
        """Return the parameters of a point."""
        return u

    def gradient(self, gradient: FloatArray) -> FloatArray:
        """Return the gradient with respect to the coordinates."""
        return gradient

    def from_parameters(self, parameters: FloatArray) -> FloatArray:
        """Return the coordinates of parameters."""
        return parameters


Coordinates = Preconditioner | Parameters


def make_coordinates(problem: Problem) -> Coordinates:
    """Return preconditioned coordinates if they pay."""
    if Preconditioner.pays(problem):
        try:
            return Preconditioner(problem)
        except (scipy.linalg.LinAlgError, ValueError):  # features so large that their squares are not finite
            pass
    return Parameters()


def lbfgs(
    problem: Problem,
    start: FloatArray,
    *,
    max_iter: int,
    tol: float,
    watch: Watcher,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    r"""Limited-memory BFGS by SciPy, preconditioned; ``tol`` bounds the gradient's largest entry.

    An L1 prior makes the objective one with kinks. As :math:`W = W^+ - W^-` with both :math:`\ge 0` it is smooth, and
    bounds are what L-BFGS-B is for.
    """
    has_kinks = problem.objective.l1 > 0
    view: _Split | _Unbounded = _Split(problem) if has_kinks else _Unbounded(problem)
    x = view.coordinates(start)
    log = None
    if checkpoint is not None:
        if checkpoint.saved is None:
            checkpoint.save({}, {})
        log = checkpoint.evaluations(len(x))
    evaluations = _Logged(view.evaluate, log)
    loss_curve: list[float] = []
    ending = (False, INTERRUPTED)

    def after_iteration(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        nonlocal x
        x = intermediate_result.x.copy()
        loss_curve.append(float(intermediate_result.fun))
        if not evaluations.replaying:
            watch(len(loss_curve), loss_curve[-1])
            if log is not None:
                log.flush()
        if not has_kinks and evaluations.largest_slope(x) <= tol:
            raise StopIteration

    try:
        result = scipy.optimize.minimize(
            evaluations,
            x,
            method="L-BFGS-B",
            jac=True,
            bounds=view.bounds,
            callback=after_iteration,
            # As in scikit-learn's LogisticRegression: the gradient decides, the objective's own change only at its
            # noise. That is the gradient of the parameters, which SciPy does not see in other coordinates.
            options={
                "maxiter": max_iter,
                "maxfun": 20 * max_iter + 1000,
                "maxls": 50,
                "gtol": tol if has_kinks else 0.0,
                "ftol": 64 * np.finfo(np.float64).eps,
            },
        )
        x = result.x
        stopped = not has_kinks and evaluations.largest_slope(x) <= tol
        ending = (stopped or result.status == 0, str(result.message))
    except KeyboardInterrupt:
        pass  # x is the last iteration's end
    finally:
        if log is not None:
            log.close()
    return Fit(view.parameters(x), loss_curve, *ending)


class _Unbounded:
    """The objective in preconditioned coordinates, as L-BFGS-B wants it."""

    bounds = None

    def __init__(self, problem: Problem) -> None:
        self._function = _Smooth(problem)

    def coordinates(self, parameters: FloatArray) -> FloatArray:
        return self._function.to.from_parameters(parameters)

    def parameters(self, x: FloatArray) -> FloatArray:
        return self._function.to.to_parameters(x)

    def evaluate(self, x: FloatArray) -> tuple[float, FloatArray, float]:
        function = self._function
        return function.value(x), function.slope(x), function.largest_slope(x)


class _Split:
    """The objective with an L1 prior, as a function of the weights' positive and negative parts."""

    def __init__(self, problem: Problem) -> None:
        objective = problem.objective
        self._problem = problem
        self._n = objective.n_weights
        self.bounds = scipy.optimize.Bounds(
            np.concatenate([np.zeros(2 * self._n), np.full(objective.size - self._n, -np.inf)])
        )

    def coordinates(self, parameters: FloatArray) -> FloatArray:
        weights = parameters[: self._n]
        return np.concatenate([np.maximum(weights, 0), np.maximum(-weights, 0), parameters[self._n :]])

    def parameters(self, x: FloatArray) -> FloatArray:
        n = self._n
        return np.concatenate([x[:n] - x[n : 2 * n], x[2 * n :]])

    def evaluate(self, x: FloatArray) -> tuple[float, FloatArray, float]:
        n, l1 = self._n, self._problem.objective.l1
        value, gradient = self._problem.smooth(self.parameters(x))
        slope = np.concatenate([gradient[:n] + l1, l1 - gradient[:n], gradient[n:]])
        return value + l1 * float(x[: 2 * n].sum()), slope, math.inf


class _Logged:
    """The function that SciPy sees: evaluations from a log as long as that lasts, then new ones, which it keeps."""

    def __init__(self, evaluate: Callable[[FloatArray], tuple[float, FloatArray, float]], log: EvaluationLog | None):
        self._evaluate = evaluate
        self._log = log
        self._last: tuple[FloatArray, float] | None = None
        self.replaying = log is not None

    def __call__(self, x: FloatArray) -> tuple[float, FloatArray]:
        if self._log is not None and self.replaying:
            known = self._log.replay(x)
            if known is not None:
                value, gradient, slope = known
                self._last = x.copy(), slope
                return value, gradient
            self.replaying = False
        value, gradient, slope = self._evaluate(x)
        self._last = x.copy(), slope
        if self._log is not None:
            self._log.append(x, value, gradient, slope)
        return value, gradient

    def largest_slope(self, x: FloatArray) -> float:
        """Return the largest entry of the parameters' gradient at x, the point of the last evaluation."""
        if self._last is None or not np.array_equal(self._last[0], x):
            self(x)
        return self._last[1] if self._last is not None else math.inf


def newton_cg(
    problem: Problem,
    start: FloatArray,
    *,
    max_iter: int,
    tol: float,
    watch: Watcher,
    checkpoint: Checkpoint | None = None,
) -> Fit:
    r"""Newton's method, whose equations are solved by preconditioned conjugate gradients as far as they deserve it.

    An iteration solves :math:`H d = -g` until the residual is :math:`\min(\tfrac14, \sqrt{|g| / |g_0|})` of the
    gradient (R. Dembo, T. Steihaug, 1983), with products by the Hessian, never the Hessian itself, and goes as far
    along d as Wolfe's conditions ask. ``tol`` bounds the gradient's largest entry, where the last iteration gained
    little: with many rare features the mean gradient's entries are small far from the solution.
    """
    saved = None if checkpoint is None else checkpoint.saved
    function = _Smooth(problem)
    u, loss_curve, first_size, gain = function.to.from_parameters(start), [], 0.0, 0.0
    if saved is not None:
        u, loss_curve = saved.arrays["u"], list(saved.state["loss_curve"])
        first_size, gain = saved.state["first_size"], saved.state["gain"]
    ending = (False, INTERRUPTED)
    try:
        while True:
            if function.largest_slope(u) <= tol and gain <= max(tol, _SMALL_GAIN * function.value(u)):
                ending = (True, "the gradient is small")
                break
            if len(loss_curve) >= max_iter:
                ending = (False, f"max_iter={max_iter} iterations")
                break
            slope = function.slope(u)
            size = float(np.linalg.norm(slope))
            first_size = first_size or size
            direction, _ = scipy.sparse.linalg.cg(
                function.hessian(u),
                -slope,
                rtol=min(0.25, math.sqrt(size / first_size)),
                atol=0,
                maxiter=_MOST_PRODUCTS,
            )
            step = _line_search(function, u, direction)
            if step is None:
                possible, noise = -0.5 * float(slope @ direction), np.finfo(problem.objective.dtype).eps
                ending = (possible <= 64 * noise * function.value(u), "no step lowers the objective any more")
                break
            before = function.value(u)
            u = u + step * direction
            loss_curve.append(function.value(u))
            gain = before - loss_curve[-1]
            if checkpoint is not None:
                checkpoint.save({"u": u}, {"loss_curve": loss_curve, "first_size": first_size, "gain": gain})
            watch(len(loss_curve), loss_curve[-1])
    except KeyboardInterrupt:
        pass  # u is the last iteration's end
    return Fit(function.to.to_parameters(u), loss_curve, *ending)


class _Smooth:
    """The penalised objective in preconditioned coordinates, its last value being remembered.

    A line search asks for value and slope one after the other.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.to = make_coordinates(problem)
        self._last: tuple[FloatArray, float, FloatArray] | None = None

    def _at(self, u: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        if self._last is None or not np.array_equal(self._last[0], u):
            self._last = (u.copy(), *self._problem.smooth(self.to.to_parameters(u)))
        return self._last

    def value(self, u: FloatArray) -> float:
        return self._at(u)[1]

    def slope(self, u: FloatArray) -> FloatArray:
        return self.to.gradient(self._at(u)[2])

    def largest_slope(self, u: FloatArray) -> float:
        """Return the largest entry of the parameters' gradient."""
        return float(np.abs(self._at(u)[2]).max())

    def hessian(self, u: FloatArray) -> scipy.sparse.linalg.LinearOperator:
        times = self._problem.hessian(self.to.to_parameters(u))

        def product(v: FloatArray) -> FloatArray:
            return self.to.gradient(times(self.to.to_parameters(v)))

        return scipy.sparse.linalg.LinearOperator((u.size, u.size), matvec=product, dtype=np.float64)


def _line_search(function: _Smooth, u: FloatArray, direction: FloatArray) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of no convergence: None says as much
        step = scipy.optimize.line_search(
            function.value, function.slope, u, direction, function.slope(u), function.value(u)
        )[0]
    return None if step is None else float(step)
