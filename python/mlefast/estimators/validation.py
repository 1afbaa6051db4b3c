"""Checks and conversions that the estimators share."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, column_or_1d, validate_data

from mlefast._arguments import describe
from mlefast.estimators.machines import Machine, machine_of, to_host

FloatArray = npt.NDArray[np.floating[Any]]


def check_parameter(estimator: Any, name: str, valid: bool, accepted: str) -> None:
    """Raise a ValueError that names a parameter, what was received and what is accepted, unless it is valid."""
    if not valid:
        raise ValueError(f"{name}: received {describe(getattr(estimator, name))}; accepted: {accepted}")


def one_of(values: Iterable[Any]) -> str:
    """Name what is accepted: ``'a', 'b' or 'c'``."""
    *most, last = map(repr, values)
    return f"{', '.join(most)} or {last}" if most else last


def is_real(value: Any) -> bool:
    """Whether it is a number, infinite perhaps, but neither NaN nor a truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)) and not math.isnan(value)


def is_count(value: Any) -> bool:
    """Whether it is an integer >= 1."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def class_codes(y: Any, classes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the place of each label among the sorted classes.

    Raises
    ------
    ValueError
        If a label is none of them.
    """
    known = np.isin(y, classes)
    if not known.all():
        raise ValueError(f"y: received the label {y[~known].tolist()[0]!r}; accepted: {classes.tolist()}")
    codes: npt.NDArray[np.int64] = np.searchsorted(classes, y).astype(np.int64)
    return codes


def weight_of_samples(
    codes: npt.NDArray[np.int64], classes: npt.NDArray[Any], sample_weight: Any, class_weight: Any, *, dtype: Any
) -> FloatArray | None:
    """Multiply the weights of samples by those of their classes; None if there are none of either."""
    if sample_weight is None and class_weight is None:
        return None
    sample_weight = to_host(sample_weight)
    weight: FloatArray = _check_sample_weight(sample_weight, codes, dtype=dtype, copy=True, ensure_non_negative=True)
    if class_weight is not None:
        balance = {} if sample_weight is None else {"sample_weight": sample_weight}
        by_class = compute_class_weight(class_weight, classes=classes, y=classes[codes], **balance)
        weight *= by_class[codes].astype(weight.dtype)
    return weight


def features_of(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Check features: C-contiguous, float32 or float64, finite, as many as were fitted; others become float64.

    Parameters
    ----------
    estimator : estimator
        Whose ``n_features_in_`` they have to fit, or are to set.
    X : array_like or sparse matrix of the host, or CuPy array
    reset : bool
        Whether this is a fit.

    Returns
    -------
    ndarray, CSR matrix or CuPy array

    Raises
    ------
    TypeError, ValueError
        If they are something else.
    """
    machine = machine_of(X)
    if machine.xp is np:
        return _host_data(estimator, X, reset=reset)
    return _device_features(estimator, machine, X, reset=reset)


def labelled_of(estimator: Any, X: Any, y: Any, *, reset: bool) -> tuple[Any, npt.NDArray[Any]]:
    """Check features as :func:`features_of` does, and labels, which go to the host."""
    y = to_host(y)
    machine = machine_of(X)
    if machine.xp is np:
        X, y = _host_data(estimator, X, y, reset=reset)
    else:
        X = _device_features(estimator, machine, X, reset=reset)
        if y is None:
            raise ValueError("y: received None; accepted: a label for each sample")
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        if len(y) != X.shape[0]:
            raise ValueError(f"y: received {len(y)} labels; accepted: {X.shape[0]}, one for each sample of X")
    check_classification_targets(y)
    return X, y


def _host_data(estimator: Any, *data: Any, reset: bool) -> Any:
    if type(data[0]).__module__.partition(".")[0] == "cupyx":
        raise TypeError(
            f"X: received a {type(data[0]).__name__} on a CUDA device; accepted: dense CuPy arrays, or sparse matrices "
            "in the host's memory"
        )
    return validate_data(estimator, *data, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", reset=reset)


# What validate_data of scikit-learn does for arrays of the host; it would refuse those of a device.
def _device_features(estimator: Any, machine: Machine, X: Any, *, reset: bool) -> Any:
    received = f"received an array of dtype {X.dtype} and shape {tuple(X.shape)}"
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X: {received}; accepted: shape (n_samples, n_features), with at least one of both")
    if X.dtype.kind not in "biuf":
        raise TypeError(f"X: {received}; accepted: real numbers")
    if reset:
        estimator.n_features_in_ = int(X.shape[1])
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(f"X: {received}; accepted: {estimator.n_features_in_} features, as in fit")
    dtype = X.dtype if X.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    X = machine.xp.ascontiguousarray(X, dtype)
    if not machine.xp.isfinite(X).all():
        raise ValueError(f"X: {received} that holds NaN or infinity; accepted: finite numbers")
    return X
