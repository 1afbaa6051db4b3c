"""Checks and conversions that the estimators share."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

from mlefast._arguments import describe

FloatArray = npt.NDArray[np.floating[Any]]


def check_parameter(estimator: Any, name: str, valid: bool, accepted: str) -> None:
    """Raise a ValueError that names a parameter, what was received and what is accepted, unless it is valid."""
    if not valid:
        raise ValueError(f"{name}: received {describe(getattr(estimator, name))}; accepted: {accepted}")


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
    X: Any, codes: npt.NDArray[np.int64], classes: npt.NDArray[Any], sample_weight: Any, class_weight: Any
) -> FloatArray | None:
    """Multiply the weights of samples by those of their classes; None if there are none of either."""
    if sample_weight is None and class_weight is None:
        return None
    weight: FloatArray = _check_sample_weight(sample_weight, X, dtype=X.dtype, copy=True, ensure_non_negative=True)
    if class_weight is not None:
        balance = {} if sample_weight is None else {"sample_weight": sample_weight}
        by_class = compute_class_weight(class_weight, classes=classes, y=classes[codes], **balance)
        weight *= by_class[codes].astype(weight.dtype)
    return weight
