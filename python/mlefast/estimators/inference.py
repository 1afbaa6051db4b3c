r"""Statistics of a maximum likelihood fit: how certain its coefficients are, and what the likelihood says of the model.

The parameters are those that the data identify: the logit of each class against the first one,
:math:`\beta_k = w_k - w_0`, as in statsmodels' ``MNLogit``. Their covariance is the inverse of the observed information

.. math:: I_{kl} = \sum_i u_i\,p_{ik}(\delta_{kl} - p_{il})\,x_i x_i^T

with the weights :math:`u` of the samples, which are counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.optimize
import scipy.sparse
import scipy.special

from mlefast.losses import cross_entropy_and_grad

if TYPE_CHECKING:
    import pandas as pd

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 8192
_NEAR = 0.1  # standard errors: from further away, Newton's method would not polish a fit but make another one
_POLISHED = 1e-9  # standard errors
_MOST_STEPS = 10
_LARGEST_PROGRAM = 20_000_000  # entries of the linear program that tells whether classes can be separated


@dataclass(frozen=True, eq=False)
class MaximumLikelihoodResult:
    r"""What follows from the likelihood at its maximum; made by :meth:`mlefast.SoftmaxClassifier.statistics`.

    Attributes
    ----------
    classes : tuple
        The K labels; the first is the base, which the others are compared with.
    names : tuple of str
        The p coefficients of each other class: "intercept", if there is one, and the features.
    coef : ndarray, shape (K - 1, p)
        :math:`\beta_k`: how much a unit of a feature adds to :math:`\log P(k \mid x) / P(0 \mid x)`.
    covariance : ndarray, shape ((K - 1) p, (K - 1) p)
        Of ``coef.ravel()``.
    log_likelihood, null_log_likelihood : float
        Of the model, and of the one without features: the classes' shares where there is an intercept, else all
        classes equally likely.
    n_samples : float
        Number of samples, or the sum of their weights.
    """

    classes: tuple[Any, ...]
    names: tuple[str, ...]
    coef: Float64Array
    covariance: Float64Array
    log_likelihood: float
    null_log_likelihood: float
    n_samples: float

    @property
    def standard_errors(self) -> Float64Array:
        """The square roots of the covariance's diagonal, in the shape of `coef`."""
        errors: Float64Array = np.sqrt(np.diag(self.covariance)).reshape(self.coef.shape)
        return errors

    @property
    def z(self) -> Float64Array:
        """Coefficients in standard errors."""
        return self.coef / self.standard_errors

    @property
    def p_values(self) -> Float64Array:
        """How probable a z of at least this size is if the coefficient is 0 (two-sided, normal)."""
        p: Float64Array = 2 * scipy.special.ndtr(-np.abs(self.z))
        return p

    def conf_int(self, level: float = 0.95) -> Float64Array:
        """Wald's confidence intervals.

        Parameters
        ----------
        level : float, default 0.95
            In (0, 1).

        Returns
        -------
        ndarray, shape (K - 1, p, 2)
            Lower and upper end.

        Raises
        ------
        ValueError
            If the level is none.
        """
        if not 0 < level < 1:
            raise ValueError(f"level: received {level}; accepted: a number in (0, 1)")
        half = scipy.special.ndtri(0.5 + level / 2) * self.standard_errors
        return np.stack([self.coef - half, self.coef + half], axis=-1)

    @property
    def n_parameters(self) -> int:
        """Number of coefficients."""
        return self.coef.size

    @property
    def aic(self) -> float:
        """Akaike's criterion: twice the number of parameters minus twice the log-likelihood."""
        return 2 * self.n_parameters - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion: log n for each parameter minus twice the log-likelihood."""
        return self.n_parameters * math.log(self.n_samples) - 2 * self.log_likelihood

    @property
    def pseudo_r_squared(self) -> float:
        """McFadden's: the share of the null log-likelihood that the features explain."""
        return 1 - self.log_likelihood / self.null_log_likelihood

    @property
    def lr_statistic(self) -> float:
        """Likelihood ratio: twice the gain in log-likelihood over the model without features."""
        return 2 * (self.log_likelihood - self.null_log_likelihood)

    @property
    def lr_df(self) -> int:
        """Degrees of freedom of the likelihood ratio: coefficients that are no intercepts."""
        return self.n_parameters - len(self.coef) * (self.names[:1] == ("intercept",))

    @property
    def lr_p_value(self) -> float:
        """How probable such a likelihood ratio is if no feature matters (chi-squared)."""
        return float(scipy.special.chdtrc(self.lr_df, max(self.lr_statistic, 0.0)))

    def summary(self, level: float = 0.95) -> Summary:
        """Return a table of everything, to be printed or turned into a pandas frame.

        Parameters
        ----------
        level : float, default 0.95
            Of the confidence intervals.
        """
        interval = self.conf_int(level)
        return Summary(self, level, interval[..., 0], interval[..., 1])


@dataclass(frozen=True, eq=False)
class Summary:
    """A table of coefficients and what the likelihood says of the model; ``str()`` makes text of it."""

    result: MaximumLikelihoodResult
    level: float
    lower: Float64Array
    upper: Float64Array

    def __str__(self) -> str:
        r = self.result
        facts = [
            ("samples", f"{r.n_samples:g}", "log-likelihood", f"{r.log_likelihood:.6g}"),
            ("parameters", f"{r.n_parameters}", "without features", f"{r.null_log_likelihood:.6g}"),
            ("AIC", f"{r.aic:.6g}", f"likelihood ratio, {r.lr_df} df", f"{r.lr_statistic:.6g}"),
            ("BIC", f"{r.bic:.6g}", "its p-value", f"{r.lr_p_value:.4g}"),
            ("base class", f"{r.classes[0]}", "McFadden's pseudo-R²", f"{r.pseudo_r_squared:.4f}"),
        ]
        percent = f"{100 * self.level:g} %"
        head = ("", "coef", "std err", "z", "P>|z|", f"{percent} from", "to")
        tables = [_aligned(facts, left=(0, 2))]
        for k, label in enumerate(r.classes[1:]):
            columns = (r.coef[k], r.standard_errors[k], r.z[k], r.p_values[k], self.lower[k], self.upper[k])
            rows = [
                (name, *(f"{value:.4f}" if i in (2, 3) else f"{value:.5g}" for i, value in enumerate(values)))
                for name, *values in zip(r.names, *columns, strict=True)
            ]
            tables.append(f"class {label}\n" + _aligned([head, *rows], left=(0,)))
        return "\n\n".join(tables)

    def to_frame(self) -> pd.DataFrame:
        """Return the table of coefficients, indexed by class and name; needs pandas.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        r = self.result
        index = pd.MultiIndex.from_product([r.classes[1:], r.names], names=["class", "name"])
        columns = {
            "coef": r.coef,
            "std_err": r.standard_errors,
            "z": r.z,
            "p_value": r.p_values,
            "lower": self.lower,
            "upper": self.upper,
        }
        return pd.DataFrame({name: column.ravel() for name, column in columns.items()}, index=index)


def _aligned(rows: Sequence[tuple[str, ...]], left: tuple[int, ...]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def maximum_likelihood_statistics(
    start: Float64Array,
    X: Any,
    y: IntArray,
    sample_weight: Float64Array | None,
    *,
    classes: tuple[Any, ...],
    names: tuple[str, ...],
) -> MaximumLikelihoodResult:
    """Find the statistics at the maximum near which a fit has ended.

    Parameters
    ----------
    start : ndarray, shape (K - 1, p)
        The fitted coefficients against the first class, the intercept, if there is one, first; Newton's method takes
        them to the maximum's last digits.
    X : ndarray or CSR array, shape (samples, features)
    y : ndarray of int64, shape (samples,)
        Class indices.
    sample_weight : ndarray, shape (samples,), or None
        Counts.
    classes, names : tuple
        As in the result.

    Raises
    ------
    ValueError
        If there are too few samples, if features are linearly dependent or classes separable (the likelihood has no
        single maximum then), or if the maximum is elsewhere.
    """
    intercept = names[:1] == ("intercept",)
    counts = np.bincount(y, sample_weight, minlength=len(classes)).astype(np.float64)
    n_samples = float(counts.sum())
    if not n_samples > start.size:
        raise ValueError(
            f"X: received {n_samples:g} samples for {start.size} parameters; accepted: more samples than parameters"
        )
    if not (counts > 0).all():
        absent = classes[int(np.argmin(counts))]
        raise ValueError(f"y: received no sample of class {absent!r}; accepted: samples of all classes of the fit")
    data = _Data(X, y, sample_weight, intercept)
    coef = np.array(start, dtype=np.float64)
    far = math.nan
    for n_steps in range(_MOST_STEPS + 1):
        log_likelihood, gradient, information = data.likelihood(coef)
        try:
            covariance = _inverse(information)
        except np.linalg.LinAlgError:
            raise ValueError(data.why_there_is_no_maximum()) from None
        step = covariance @ gradient.ravel()
        distance = math.sqrt(max(0.0, float(gradient.ravel() @ step)))  # in standard errors
        if n_steps == 0:
            far = distance
            if not far < _NEAR:
                break
        if distance < _POLISHED:
            return MaximumLikelihoodResult(
                classes, names, coef, covariance, log_likelihood, _null(counts, intercept), n_samples
            )
        coef += step.reshape(coef.shape)
    if not far < _NEAR and not data.is_separable():
        raise ValueError(
            f"X, y: received samples whose likelihood is largest {far:.2g} standard errors from the fitted "
            "coefficients; accepted: the samples (and weights) of fit, after it has converged (try tol=1e-8 and a "
            "larger max_iter)"
        )
    raise ValueError(data.why_there_is_no_maximum())


def _null(counts: Float64Array, intercept: bool) -> float:
    n_samples = counts.sum()
    if not intercept:
        return -float(n_samples) * math.log(len(counts))
    return float(np.sum(counts * np.log(counts / n_samples)))


def _inverse(information: Float64Array) -> Float64Array:
    """Invert a positive definite matrix whose rows may have any units; raise LinAlgError if it is singular."""
    scale = np.sqrt(np.diag(information))
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise np.linalg.LinAlgError
    correlation = information / np.outer(scale, scale)
    if not np.linalg.eigvalsh(correlation)[0] > len(scale) * np.finfo(np.float64).eps:
        raise np.linalg.LinAlgError
    factor = scipy.linalg.cho_factor(correlation, lower=True)
    inverse: Float64Array = scipy.linalg.cho_solve(factor, np.eye(len(scale)))
    inverse = (inverse + inverse.T) / 2
    inverse /= np.outer(scale, scale)
    return inverse


@dataclass(frozen=True, eq=False)
class _Data:
    """Samples whose features, an intercept's column of ones before them, are made dense some thousand at a time."""

    X: Any
    y: IntArray
    weight: Float64Array | None
    intercept: bool

    def design(self, some: slice) -> Float64Array:
        rows = self.X[some]
        X = np.asarray(rows if isinstance(rows, np.ndarray) else rows.toarray(), dtype=np.float64)
        return np.hstack([np.ones((len(X), 1)), X]) if self.intercept else X

    def likelihood(self, coef: Float64Array) -> tuple[float, Float64Array, Float64Array]:
        """Return the log-likelihood, its gradient (K - 1, p) and the observed information."""
        n_others, n_columns = coef.shape
        total, gradient = 0.0, np.zeros_like(coef)
        information = np.zeros((n_others, n_columns, n_others, n_columns))
        for start in range(0, len(self.y), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            Z, y = self.design(some), self.y[some]
            weight = np.ones(len(y)) if self.weight is None else self.weight[some]
            logits = np.zeros((len(y), n_others + 1))
            np.matmul(Z, coef.T, out=logits[:, 1:])
            losses, errors = cross_entropy_and_grad(logits, y, reduction="none")
            total -= float(np.dot(losses, weight))
            gradient -= (errors[:, 1:] * weight[:, None]).T @ Z
            rows = np.arange(len(y))
            other = 1 - errors  # 1 - p; at the target, where the error is p - 1 to all its digits, without cancellation
            other[rows, y] = -errors[rows, y]
            errors[rows, y] += 1
            p = errors
            for k in range(n_others):
                for j in range(k + 1):
                    curvature = p[:, k + 1] * (other[:, k + 1] if j == k else -p[:, j + 1])
                    information[k, :, j, :] += (Z * (weight * curvature)[:, None]).T @ Z
        for k in range(n_others):
            for j in range(k):
                information[j, :, k, :] = information[k, :, j, :].T
        return total, gradient, information.reshape(coef.size, coef.size)

    def why_there_is_no_maximum(self) -> str:
        """Say what is wrong with data whose likelihood has no single maximum."""
        Z = self.design(slice(None))
        scale = np.abs(Z).max(axis=0)
        rank = int(np.linalg.matrix_rank(Z / np.where(scale > 0, scale, 1)))
        if rank < Z.shape[1]:
            what = "features and intercept" if self.intercept else "features"
            return (
                f"X: received {Z.shape[1]} {what} of which only {rank} are linearly independent; accepted: independent "
                "ones, of which alone the likelihood has a single maximum"
            )
        if self.is_separable():
            return (
                "X, y: received classes that a linear function of the features can separate, in part or all of them: "
                "the likelihood grows without bound and has no maximum; accepted: classes that overlap (or use a prior "
                "and do without standard errors)"
            )
        return (
            "X, y: received samples at which Newton's method finds no maximum of the likelihood: classes are nearly "
            "separable or features nearly dependent; accepted: classes that overlap, independent features"
        )

    def is_separable(self) -> bool:
        """Whether some direction makes some sample's label more likely and none's less (A. Albert, J. Anderson, 1984).

        A linear program looks for it: of all coefficients of at most 1 in absolute value it takes those whose margins
        have the largest sum while none is negative. False also where the program would be too large.
        """
        Z = self.design(slice(None))
        if self.weight is not None:
            Z = Z[self.weight > 0]
        y = self.y if self.weight is None else self.y[self.weight > 0]
        n_classes = int(y.max()) + 1
        if Z.size * n_classes * 2 > _LARGEST_PROGRAM:
            return False
        scale = np.abs(Z).max(axis=0)
        scaled = scipy.sparse.csr_array(Z / np.where(scale > 0, scale, 1))
        margins: list[Any] = []
        for k in range(n_classes):
            of_class = scaled[y == k]
            for j in range(n_classes):
                if j != k:  # (beta_k - beta_j) x, where beta_0 = 0
                    signs = scipy.sparse.csr_array(np.eye(n_classes)[[k]] - np.eye(n_classes)[[j]])[:, 1:]
                    margins.append(scipy.sparse.kron(signs, of_class, format="csr"))
        margin = scipy.sparse.vstack(margins, format="csr")
        found: Any = scipy.optimize.linprog(
            -np.asarray(margin.sum(axis=0)).ravel(),
            A_ub=-margin,
            b_ub=np.zeros(margin.shape[0]),
            bounds=(-1, 1),
            method="highs",
        )
        return bool(found.status == 0 and -found.fun > 1e-6)
