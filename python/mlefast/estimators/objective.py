"""What a linear softmax model is fitted by: the mean negative log-likelihood and the logarithm of a Gaussian prior."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mlefast.losses import cross_entropy_and_grad

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]


class LinearObjective:
    r"""Mean negative log-likelihood of labels under a linear softmax model, plus :math:`\lambda/2\,\|W\|^2`.

    The parameters are one array (outputs, features [+ 1]), the intercepts in the last column, which has no prior. Two
    classes have one output, the logit of the second against the first; more have an output each.

    Buffers are made once for the largest batch and used again: fresh pages cost as much as the kernel that fills them.
    """

    def __init__(self, n_features: int, n_classes: int, *, fit_intercept: bool, l2: float, dtype: Any) -> None:
        self.n_classes = n_classes
        self.n_outputs = 1 if n_classes == 2 else n_classes
        self.n_features = n_features
        self.fit_intercept = fit_intercept
        self.l2 = l2
        self.dtype = np.dtype(dtype)
        self._logits = np.empty((0, n_classes), self.dtype)
        self._weight_gradient = np.empty((self.n_outputs, n_features), self.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the parameters."""
        return self.n_outputs, self.n_features + self.fit_intercept

    def penalty(self, parameters: FloatArray) -> float:
        """Return the prior's share of the objective."""
        weights = parameters[:, : self.n_features]
        return 0.5 * self.l2 * float(np.vdot(weights, weights)) if self.l2 else 0.0

    def loss_and_gradient(
        self,
        parameters: FloatArray,
        X: Any,
        y: IntArray,
        sample_weight: FloatArray | None,
        total_weight: float,
        gradient: FloatArray,
    ) -> float:
        """Write the gradient of the penalised objective; return the loss of the samples alone.

        Parameters
        ----------
        parameters : ndarray, shape (outputs, features [+ 1])
        X : ndarray or CSR array, shape (samples, features)
        y : ndarray of int64, shape (samples,)
            Class indices.
        sample_weight : ndarray, shape (samples,), or None
        total_weight : float
            What the sum over the samples is divided by.
        gradient : ndarray, the shape of `parameters`
            Is overwritten.
        """
        weights = parameters[:, : self.n_features]
        logits = linear_logits(
            X, weights.astype(self.dtype, copy=False), self._intercept(parameters), self._logits_for(X.shape[0])
        )
        if sample_weight is None:
            loss, _ = cross_entropy_and_grad(logits, y, reduction="sum", denominator=total_weight, out=logits)
        else:
            losses, _ = cross_entropy_and_grad(
                logits, y, reduction="none", upstream=sample_weight / total_weight, out=logits
            )
            loss = np.dot(losses.astype(np.float64), sample_weight) / total_weight
        errors = logits[:, 1:] if self.n_outputs == 1 else logits
        gradient[:, : self.n_features] = self._times_features(errors, X)
        if self.l2:
            gradient[:, : self.n_features] += self.l2 * weights
        if self.fit_intercept:
            np.sum(errors, axis=0, dtype=np.float64, out=gradient[:, self.n_features])
        return float(loss)

    def _intercept(self, parameters: FloatArray) -> FloatArray | None:
        return parameters[:, self.n_features].astype(self.dtype, copy=False) if self.fit_intercept else None

    def _logits_for(self, n_samples: int) -> FloatArray:
        if n_samples > len(self._logits):
            self._logits = np.empty((n_samples, self.n_classes), self.dtype)
        return self._logits[:n_samples]

    def _times_features(self, errors: FloatArray, X: Any) -> FloatArray:
        if isinstance(X, np.ndarray):
            return np.matmul(errors.T, X, out=self._weight_gradient)
        product: FloatArray = (X.T @ errors).T  # a sparse factor must come first
        return product


def linear_logits(X: Any, coef: FloatArray, intercept: FloatArray | None, out: FloatArray | None = None) -> FloatArray:
    """Logits (samples, classes) of a linear model with (classes or 1, features) coefficients.

    With one row of coefficients it is the logit of the second class, and that of the first is 0.
    """
    n_outputs = coef.shape[0]
    if out is None:
        out = np.empty((X.shape[0], max(2, n_outputs)), coef.dtype)
    if n_outputs == 1:
        out[:, 0] = 0
        out[:, 1] = X @ coef[0]
        if intercept is not None:
            out[:, 1] += intercept[0]
        return out
    if isinstance(X, np.ndarray):
        np.matmul(X, coef.T, out=out)
    else:
        out[...] = X @ coef.T
    if intercept is not None:
        out += intercept
    return out
