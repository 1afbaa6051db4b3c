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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

import mlefast as mf
from mlefast.calibration import ReliabilityDiagram, reliability_diagram
from mlefast.data import Dataset, Stream
from mlefast.data._dataset import Labels, wrong_data
from mlefast.model_file import TrainedModel

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
class ClassScores:
    """How well each class is found: arrays of shape (C,); what has no samples to divide by is 0."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    support: IntArray


def evaluate(model: TrainedModel, data: Dataset | Stream) -> Evaluation:
    """Compare a model's predictions with the labels of data.

    Of a stream, 32 bytes for each sample are kept, by which samples with identical features are found.

    Raises
    ------
    DataError
        If the data have no labels, or one that the model does not know.
    ArithmeticError
        If NLL = KL + H does not hold, which would be an error in the kernels.
    """
    n_classes = len(model.classes)
    confusion = np.zeros((n_classes, n_classes), np.int64)
    digests, targets, losses, diagrams = [], [], [], []
    for batch in data.batches() if isinstance(data, Stream) else [data]:
        target = class_indices(model.classes, batch)
        logits = model.logits(batch.X)
        cells = np.bincount(target * n_classes + np.argmax(logits, axis=1), minlength=n_classes**2)
        confusion += cells.reshape(n_classes, n_classes)
        digests.append(_digests(batch.X))
        targets.append(target)
        losses.append(np.asarray(mf.cross_entropy(logits, target, reduction="none")))
        diagrams.append(reliability_diagram(mf.softmax(logits), target))
    target, loss = np.concatenate(targets), np.concatenate(losses)
    n_samples = len(target)
    nll = math.fsum(loss) / n_samples
    kl, entropy = _kl_and_entropy(loss, target, _numbered(np.concatenate(digests)))
    if not math.isclose(nll, kl + entropy, rel_tol=1e-9, abs_tol=1e-12):
        raise ArithmeticError(f"{data.name}: NLL = {nll!r} is not KL + H = {kl!r} + {entropy!r}")
    accuracy = int(np.trace(confusion)) / n_samples
    return Evaluation(n_samples, accuracy, nll, kl, entropy, confusion, _merged(diagrams))


def class_scores(evaluation: Evaluation) -> ClassScores:
    """Return precision, recall, F1 and the number of samples of each class."""
    from sklearn.metrics import precision_recall_fscore_support

    confusion = evaluation.confusion
    true, predicted = np.nonzero(confusion)
    precision, recall, f1, _ = precision_recall_fscore_support(
        true,
        predicted,
        labels=np.arange(len(confusion)),
        sample_weight=confusion[true, predicted],
        zero_division=0.0,
    )
    return ClassScores(precision, recall, f1, confusion.sum(axis=1))


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
    _check_known(labels, classes, data.name)
    order = np.argsort(classes)
    return order[np.searchsorted(classes, labels, sorter=order)]


def check_labels(classes: Labels, data: Dataset | Stream) -> None:
    """Raise the errors of :func:`evaluate` about labels before there is a model."""
    found = data.classes if isinstance(data, Stream) else data.y
    if found is None:
        raise wrong_data(data.name, "no labels", "data with a label for each sample")
    _check_known(found.astype(str), classes.astype(str), data.name)


def _check_known(labels: Labels, classes: Labels, name: str) -> None:
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise wrong_data(name, f"the label {labels[unknown][0]}", f"{shown}, as in training")


def identical_rows(X: Any) -> IntArray:
    """Give each row of features a number, the same to identical rows.

    Rows are told apart by 128-bit digests: sorting them would take longer than fitting a model to them.
    """
    return _numbered(_digests(X))


def _digests(X: Any) -> npt.NDArray[np.uint64]:
    """Return a digest of each row, shape (N, 2)."""
    return np.frombuffer(b"".join(_digests_of_rows(X)), np.uint64).reshape(-1, 2)


def _digests_of_rows(X: Any) -> Iterator[bytes]:
    if isinstance(X, np.ndarray):
        for row in X:
            yield blake2b(row + 0.0, digest_size=16).digest()  # -0.0 becomes 0.0
        return
    X = X.copy()
    X.sum_duplicates()
    X.eliminate_zeros()
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        yield blake2b(X.indices[start:stop].tobytes() + X.data[start:stop].tobytes(), digest_size=16).digest()


def _numbered(digests: npt.NDArray[np.uint64]) -> IntArray:
    order = np.lexsort(digests.T)
    ordered = digests[order]
    new = np.concatenate([[False], (ordered[1:] != ordered[:-1]).any(axis=1)])
    numbers = np.empty(len(digests), np.int64)
    numbers[order] = np.cumsum(new)
    return numbers


def _kl_and_entropy(loss: FloatArray, target: IntArray, group: IntArray) -> tuple[float, float]:
    n_samples = len(target)
    # A label of a group: all its samples have the same features, hence the same loss.
    _, member, counts = np.unique(group * (target.max() + 1) + target, return_index=True, return_counts=True)
    surprisal = np.log(np.bincount(group)[group[member]] / counts)  # -log q
    share = counts / n_samples
    kl = math.fsum(share * (loss[member] - surprisal))
    return kl, math.fsum(share * surprisal)


def _merged(diagrams: Sequence[ReliabilityDiagram]) -> ReliabilityDiagram:
    """Return the diagram of all samples from those of their parts, whose bins are the same."""
    weight = np.sum([each.weight for each in diagrams], axis=0)
    confidence = np.sum([np.nan_to_num(each.confidence) * each.weight for each in diagrams], axis=0)
    accuracy = np.sum([np.nan_to_num(each.accuracy) * each.weight for each in diagrams], axis=0)
    edges = np.max([each.edges for each in diagrams], axis=0)  # the last one is 1, or what rounding has made of it
    with np.errstate(invalid="ignore"):
        return ReliabilityDiagram(edges, weight, confidence / weight, accuracy / weight)
