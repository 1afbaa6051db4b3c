r"""How well a model explains labels.

The negative log-likelihood per sample is the cross-entropy between the empirical conditional distribution
:math:`q(y \mid x)` of the labels and the model's :math:`p(y \mid x)`, hence
:math:`\mathrm{NLL} = \mathrm{KL}(q \,\|\, p) + H(q)`, averaged over samples. Samples with identical features share one
:math:`q`: the frequencies of their labels. Where no two samples are alike, every :math:`q` is one-hot and :math:`H` is
0; else :math:`H` is the floor below which no classifier of these features can come, and KL is what a better model could
still gain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

import mlefast as mf
from mlefast.calibration import ReliabilityDiagram, reliability_diagram
from mlefast.data import Dataset
from mlefast.data._dataset import Labels, wrong_data
from mlefast.model_file import TrainedModel

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's performance on labelled samples; `nll`, `kl` and `entropy` are in nats per sample.

    `confusion` counts samples: the row is the true class, the column the predicted one. `reliability` compares the
    predictions' confidence with how often they are right.
    """

    samples: int
    accuracy: float
    nll: float
    kl: float
    entropy: float
    confusion: IntArray
    reliability: ReliabilityDiagram


def evaluate(model: TrainedModel, data: Dataset) -> Evaluation:
    """Compare a model's predictions with the labels of data.

    Raises
    ------
    DataError
        If the data have no labels, or one that the model does not know.
    ArithmeticError
        If NLL = KL + H does not hold, which would be an error in the kernels.
    """
    target = class_indices(model.classes, data)
    n_samples, n_classes = len(target), len(model.classes)
    logits = model.logits(data.X)
    predicted = np.argmax(logits, axis=1)
    nll = float(mf.cross_entropy(logits, target))
    kl, entropy = _kl_and_entropy(mf.log_softmax(logits), target, identical_rows(data.X))
    if not math.isclose(nll, kl + entropy, rel_tol=1e-9, abs_tol=1e-12):
        raise ArithmeticError(f"{data.name}: NLL = {nll!r} is not KL + H = {kl!r} + {entropy!r}")
    confusion = np.bincount(target * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    reliability = reliability_diagram(mf.softmax(logits), target)
    return Evaluation(n_samples, float(np.mean(predicted == target)), nll, kl, entropy, confusion, reliability)


def class_indices(classes: Labels, data: Dataset) -> IntArray:
    """Return the place of each label among the classes of a model.

    Raises
    ------
    DataError
        If the data have no labels, or one that is no class.
    """
    if data.y is None:
        raise wrong_data(data.name, "no labels", "data with a label for each sample")
    labels, classes = data.y.astype(str), classes.astype(str)  # a file may hold 1 where another holds "1"
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise wrong_data(data.name, f"the label {labels[unknown][0]}", f"{shown}, as in training")
    order = np.argsort(classes)
    return order[np.searchsorted(classes, labels, sorter=order)]


def identical_rows(X: Any) -> IntArray:
    """Give each row of features a number, the same to identical rows, counted from 0 by first appearance.

    Rows are told apart by 128-bit digests: sorting them would take longer than fitting a model to them.
    """
    numbers: dict[bytes, int] = {}
    return np.fromiter((numbers.setdefault(d, len(numbers)) for d in _digests(X)), np.int64, X.shape[0])


def _digests(X: Any) -> Iterator[bytes]:
    if isinstance(X, np.ndarray):
        for row in X:
            yield blake2b(row + 0.0, digest_size=16).digest()  # -0.0 becomes 0.0
        return
    X = X.copy()
    X.sum_duplicates()
    X.eliminate_zeros()
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        yield blake2b(X.indices[start:stop].tobytes() + X.data[start:stop].tobytes(), digest_size=16).digest()


def _kl_and_entropy(log_p: npt.NDArray[np.float64], target: IntArray, group: IntArray) -> tuple[float, float]:
    n_samples, n_classes = log_p.shape
    _, member = np.unique(group, return_index=True)  # some sample of each group; p is the same in all of it
    pairs, counts = np.unique(group * n_classes + target, return_counts=True)
    groups, labels = pairs // n_classes, pairs % n_classes
    surprisal = np.log(np.bincount(group)[groups] / counts)  # -log q
    share = counts / n_samples
    kl = math.fsum(share * (-surprisal - log_p[member[groups], labels]))
    return kl, math.fsum(share * surprisal)
