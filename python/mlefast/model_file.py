"""Trained models, linear or deep, in files: NumPy archives, safetensors, never pickles; written whole or not at all."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlefast._files import BROKEN_FILE, check_writable, one_line, open_atomically, write_npz
from mlefast.softmax import log_softmax, softmax

__all__ = ["LinearModel", "ModelFileError", "NetworkModel", "TrainedModel", "check_target", "load", "save"]

_SUFFIXES = (".npz", ".safetensors")
_LINEAR, _NETWORK = "mlefast.linear/1", "mlefast.network/1"
_ACTIVATIONS = ("relu", "gelu", "tanh", "identity")
_ROWS_AT_ONCE = 8192  # float64 copies of features stay this small, however many samples there are

Array = npt.NDArray[Any]
Float64Array = npt.NDArray[np.float64]


class ModelFileError(ValueError):
    """A model file that cannot be read or written; the message names it and what was found."""


class _Classifier:
    """What follows from a model's logits, and the checks of what all models have."""

    classes: Array
    feature_names: tuple[str, ...] | None
    image_shape: tuple[int, ...] | None

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        raise NotImplementedError

    def logits(self, X: Any) -> Float64Array:
        """Logits of samples: see the model."""
        raise NotImplementedError

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each sample, shape (N,); arguments as for :meth:`logits`."""
        labels: Array = self.classes[np.argmax(self.logits(X), axis=1)]
        return labels

    def predict_proba(self, X: Any) -> Float64Array:
        """Return the probability of each class, shape (N, C); arguments as for :meth:`logits`."""
        probabilities: Float64Array = softmax(self.logits(X))
        return probabilities

    def predict_log_proba(self, X: Any) -> Float64Array:
        """Return the logarithm of the probability of each class, shape (N, C); arguments as for :meth:`logits`."""
        logs: Float64Array = log_softmax(self.logits(X))
        return logs

    def _check_classes(self) -> None:
        object.__setattr__(self, "classes", _as_classes(self.classes))
        n_classes = len(self.classes)
        if n_classes < 2 or len(set(self.classes.tolist())) != n_classes:
            raise ValueError(f"classes: received {self.classes}; accepted: 2 or more, all different")

    def _check_names_of_features(self) -> None:
        if self.feature_names is not None and len(self.feature_names) != self.n_features:
            raise ValueError(f"feature_names: received {len(self.feature_names)} names; accepted: {self.n_features}")
        if self.image_shape is not None and math.prod(self.image_shape) != self.n_features:
            raise ValueError(f"image_shape: received {self.image_shape}; accepted: a shape of {self.n_features} pixels")

    def _check_features(self, X: Any) -> None:
        if X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"X: received shape {X.shape}; accepted: (samples, {self.n_features})")


@dataclass(frozen=True, eq=False)
class LinearModel(_Classifier):
    r"""A softmax model that is linear in its features: :math:`P(y=k \mid x) = \mathrm{softmax}(Wx + b)_k`.

    Attributes
    ----------
    coef : ndarray of float64, shape (C, F), or (1, F) for two classes
        :math:`W`; the one row for two classes is the logit of the second against the first.
    intercept : ndarray of float64, shape (C,) or (1,)
        :math:`b`.
    classes : ndarray of int64 or str, shape (C,)
        The labels.
    feature_names : tuple of str or None
        Names of the F features.
    image_shape : tuple of int or None
        Shape of a sample that is an image.
    metadata : dict
        How the model was made; whatever JSON can hold.

    Raises
    ------
    ValueError
        If shapes do not fit each other, a weight is not finite, or classes repeat.
    """

    coef: Float64Array
    intercept: Float64Array
    classes: Array
    feature_names: tuple[str, ...] | None = None
    image_shape: tuple[int, ...] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        object.__setattr__(self, "coef", np.ascontiguousarray(self.coef, dtype=np.float64))
        object.__setattr__(self, "intercept", np.ascontiguousarray(self.intercept, dtype=np.float64))
        self._check_classes()
        n_classes = len(self.classes)
        rows = 1 if n_classes == 2 else n_classes
        if self.coef.ndim != 2 or self.coef.shape[0] != rows or self.coef.shape[1] == 0:
            raise ValueError(f"coef: received shape {self.coef.shape}; accepted: ({rows}, F) for {n_classes} classes")
        if self.intercept.shape != (rows,):
            raise ValueError(f"intercept: received shape {self.intercept.shape}; accepted: ({rows},)")
        if not (np.isfinite(self.coef).all() and np.isfinite(self.intercept).all()):
            raise ValueError("coef, intercept: received a weight that is NaN or infinite; accepted: finite weights")
        self._check_names_of_features()

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return int(self.coef.shape[1])

    def logits(self, X: Any) -> Float64Array:
        """Logits of samples.

        Parameters
        ----------
        X : ndarray or CSR matrix, shape (N, F)

        Returns
        -------
        ndarray of float64, shape (N, C)

        Raises
        ------
        ValueError
            If `X` has another number of features.
        """
        self._check_features(X)
        rows = len(self.coef)
        logits = np.zeros((X.shape[0], len(self.classes)))  # of two classes, the first keeps the logit 0
        for start in range(0, X.shape[0], _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            logits[some, -rows:] = X[some] @ self.coef.T + self.intercept
        return logits


@dataclass(frozen=True, eq=False)
class NetworkModel(_Classifier):
    r"""A softmax model with hidden layers: :math:`\mathrm{softmax}(a_L W_L + b_L)`, :math:`a_{l+1} = f(a_l W_l + b_l)`.

    Attributes
    ----------
    coefs : tuple of ndarray of float64, shape (inputs, outputs)
        :math:`W_l` of each layer, the F features' first.
    intercepts : tuple of ndarray of float64, shape (outputs,)
        :math:`b_l` of each layer.
    activation : {"relu", "gelu", "tanh", "identity"}
        :math:`f`.
    classes, feature_names, image_shape, metadata
        As of a :class:`LinearModel`.

    Raises
    ------
    ValueError
        If shapes do not fit each other, the activation is unknown, a weight is not finite, or classes repeat.
    """

    coefs: tuple[Float64Array, ...]
    intercepts: tuple[Float64Array, ...]
    activation: str
    classes: Array
    feature_names: tuple[str, ...] | None = None
    image_shape: tuple[int, ...] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        for name in ("coefs", "intercepts"):
            parts = tuple(np.ascontiguousarray(part, dtype=np.float64) for part in getattr(self, name))
            object.__setattr__(self, name, parts)
            if not all(np.isfinite(part).all() for part in parts):
                raise ValueError(f"{name}: received a weight that is NaN or infinite; accepted: finite weights")
        self._check_classes()
        shapes = [coef.shape for coef in self.coefs]
        chained = all(len(shape) == 2 and 0 not in shape for shape in shapes) and all(
            before[1] == after[0] for before, after in pairwise(shapes)
        )
        if not shapes or not chained or shapes[-1][1] != len(self.classes):
            raise ValueError(
                f"coefs: received shapes {shapes}; accepted: (F, units), (units, more units), ..., (units, "
                f"{len(self.classes)}) for {len(self.classes)} classes"
            )
        received, accepted = [part.shape for part in self.intercepts], [(n_out,) for _, n_out in shapes]
        if received != accepted:
            raise ValueError(f"intercepts: received shapes {received}; accepted: {accepted}, as the columns of coefs")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation: received {self.activation!r}; accepted: {', '.join(_ACTIVATIONS)}")
        self._check_names_of_features()

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return int(self.coefs[0].shape[0])

    def logits(self, X: Any) -> Float64Array:
        """Logits of samples.

        Parameters
        ----------
        X : ndarray or CSR matrix, shape (N, F)

        Returns
        -------
        ndarray of float64, shape (N, C)

        Raises
        ------
        ValueError
            If `X` has another number of features.
        """
        from mlefast.estimators.network import network_logits

        self._check_features(X)
        return network_logits(X, self.coefs, self.intercepts, self.activation).astype(np.float64, copy=False)


TrainedModel = LinearModel | NetworkModel


def save(path: str | os.PathLike[str], model: TrainedModel) -> None:
    """Write a model to a ``.npz`` or ``.safetensors`` file.

    The file appears whole or not at all, and one that it replaces stays until then.

    Parameters
    ----------
    path : str or path
        Its suffix decides the format. ``.safetensors`` needs the extra "data".
    model : LinearModel or NetworkModel

    Raises
    ------
    ModelFileError
        If the suffix is neither, if the metadata cannot be JSON, or if the file cannot be written.
    """
    path = Path(path)
    _check_suffix(path)
    try:
        content = _to_bytes(path.suffix, model)
        with open_atomically(path) as file:
            file.write(content)
    except (OSError, TypeError, ValueError, ImportError) as error:
        raise _cannot("write", path, error) from error


def load(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a model that :func:`save` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    LinearModel or NetworkModel

    Raises
    ------
    ModelFileError
        If the file is absent, damaged or of another kind. Nothing in it is ever executed.
    """
    path = Path(path)
    _check_suffix(path)
    try:
        arrays, header = _from_safetensors(path) if path.suffix == ".safetensors" else _from_npz(path)
        return _unpack(arrays, header)
    except (*BROKEN_FILE, ImportError) as error:
        raise _cannot("read", path, error) from error


def check_target(path: str | os.PathLike[str]) -> None:
    """Find out whether :func:`save` would work, before a long fit whose result it is to keep.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    ModelFileError
        If not.
    """
    path = Path(path)
    _check_suffix(path)
    try:
        if path.suffix == ".safetensors":
            import safetensors.numpy  # noqa: F401
        check_writable(path)
    except (ImportError, OSError) as error:
        raise _cannot("write", path, error) from error


def _as_classes(classes: Any) -> Array:
    array = np.asarray(classes)
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise ValueError(f"classes: received {array.dtype}, shape {array.shape}; accepted: integers or strings, (C,)")
    return array if array.dtype.kind == "U" else array.astype(np.int64)


def _to_bytes(suffix: str, model: TrainedModel) -> bytes:
    fields: dict[str, Any] = {
        "format": _LINEAR if isinstance(model, LinearModel) else _NETWORK,
        "classes": model.classes.tolist(),
        "feature_names": model.feature_names,
        "image_shape": model.image_shape,
        "metadata": model.metadata,
    }
    arrays: dict[str, Any]
    if isinstance(model, LinearModel):
        arrays = {"coef": model.coef, "intercept": model.intercept}
    else:
        fields.update(activation=model.activation, layers=len(model.coefs))
        arrays = {f"coef_{i}": coef for i, coef in enumerate(model.coefs)}
        arrays.update({f"intercept_{i}": intercept for i, intercept in enumerate(model.intercepts)})
    header = json.dumps(fields)
    if suffix == ".safetensors":
        import safetensors.numpy

        return safetensors.numpy.save(arrays, metadata={"header": header})
    buffer = io.BytesIO()
    write_npz(buffer, {"header": np.array(header), **arrays})
    return buffer.getvalue()


def _from_npz(path: Path) -> tuple[dict[str, Array], str]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if name != "header"}, str(archive["header"])


def _from_safetensors(path: Path) -> tuple[dict[str, Array], str]:
    import safetensors

    try:
        with path.open("rb"), safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["header"]  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error


def _unpack(arrays: dict[str, Array], header: str) -> TrainedModel:
    fields = json.loads(header)
    if not isinstance(fields, dict) or fields.get("format") not in (_LINEAR, _NETWORK):
        raise ValueError(f"its format is neither {_LINEAR} nor {_NETWORK}")
    classes, names, shape = fields["classes"], fields["feature_names"], fields["image_shape"]
    if len({type(label) for label in classes}) != 1:
        raise ValueError("its classes are not of one type")
    common: dict[str, Any] = {
        "classes": np.array(classes),
        "feature_names": None if names is None else tuple(str(name) for name in names),
        "image_shape": None if shape is None else tuple(int(size) for size in shape),
        "metadata": dict(fields["metadata"]),
    }
    if fields["format"] == _LINEAR:
        return LinearModel(arrays["coef"], arrays["intercept"], **common)
    layers = range(int(fields["layers"]))
    return NetworkModel(
        tuple(arrays[f"coef_{i}"] for i in layers),
        tuple(arrays[f"intercept_{i}"] for i in layers),
        fields["activation"],
        **common,
    )


def _check_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise ModelFileError(f"{path}: received a model file named {path.name}; accepted: {' or '.join(_SUFFIXES)}")


def _cannot(verb: str, path: Path, error: BaseException) -> ModelFileError:
    if isinstance(error, ImportError):
        return ModelFileError(f'{path}: needs {error.name}, which is not installed; pip install "mlefast[data]"')
    return ModelFileError(f"{path}: cannot {verb} the model: {one_line(error)}")
