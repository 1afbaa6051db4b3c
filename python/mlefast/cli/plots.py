"""Drawings of a fit: its loss, the confusion matrix, and the weights of each class or how reliable a network is.

Figures are made directly, not through pyplot: no window system, and no global state of a host program is touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mlefast.calibration import ReliabilityDiagram
from mlefast.cli.evaluation import Evaluation
from mlefast.cli.fitting import Fit
from mlefast.model_file import TrainedModel

_MAX_TEMPLATES = 20
_MAX_FEATURES = 30  # rows of the heat map whose names can be read
_MAX_COUNTED_CLASSES = 20  # more cells hold no legible numbers
_INK = "#333333"

Array = npt.NDArray[Any]


def draw_training(
    title: str, fit: Fit, part: str, evaluation: Evaluation, *, solver: str, standardized: bool
) -> Figure:
    """Draw the loss curve, the confusion matrix, and the weights of each class; of a network, its reliability.

    Parameters
    ----------
    title : str
    fit : Fit
    part : str
        What the evaluation is of: "test" or "train".
    evaluation : Evaluation
    solver : {"lbfgs", "sgd", "adamw"}
        Counts iterations or epochs.
    standardized : bool
        Whether the weights are per standard deviation of a feature.

    Returns
    -------
    Figure
        15 x 9 inches.
    """
    figure = Figure(figsize=(15, 9), dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    figure.suptitle(title, fontsize=14, parse_math=False)
    halves: Any = figure.subfigures(1, 2, width_ratios=[1, 1.25], wspace=0.03)
    loss_axes, confusion_axes = halves[0].subplots(2, 1, height_ratios=[1, 2])
    labels = [_shorten(label, 16) for label in fit.model.classes]
    draw_loss(loss_axes, fit.loss_curve, len(fit.model.classes), "iteration" if solver == "lbfgs" else "epoch")
    draw_confusion(confusion_axes, evaluation, labels, part)
    if fit.weights is None:
        reliability_axes, confidence_axes = halves[1].subplots(2, 1, height_ratios=[3, 1], sharex=True)
        draw_reliability(reliability_axes, evaluation.reliability)
        draw_confidence(confidence_axes, evaluation.reliability, part)
    else:
        draw_weights(halves[1], fit.model, fit.weights, labels, "standard deviation" if standardized else "unit")
    return figure


def draw_loss(axes: Axes, loss_curve: Sequence[float], n_classes: int, unit: str) -> None:
    """Draw the objective after each iteration, from that of a model without weights: the logarithm of C."""
    start = math.log(n_classes)
    curve = [start, *loss_curve]
    axes.plot(curve, ".-", color="#1f6fb2", markersize=4)
    axes.axhline(start, color="#999999", linestyle="--", linewidth=1)
    axes.annotate(
        f"all classes equally likely: ln {n_classes} = {start:.3f}",
        (1, start),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color="#777777",
        fontsize=9,
    )
    if start > 5 * min(curve) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, max(1, len(loss_curve)))
    axes.set_xlabel(unit)
    axes.set_ylabel("objective\n(nats per sample)")
    axes.set_title(f"Loss: {curve[-1]:.4f} after {len(loss_curve)} {unit}{'s' * (len(loss_curve) != 1)}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_confusion(axes: Axes, evaluation: Evaluation, labels: Sequence[str], part: str) -> None:
    """Draw counts of samples, coloured by their share of the true class."""
    counts = evaluation.confusion
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    _name_ticks(axes, labels, labels)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"Confusion on {evaluation.samples} {part} samples: accuracy {100 * evaluation.accuracy:.1f} %")
    colorbar = axes.figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    _finish(colorbar, "share of the true class (%)")
    if len(counts) > _MAX_COUNTED_CLASSES:
        return
    size = max(5.5, 11 - 0.3 * len(counts))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if share[row, column] > 55 else _INK
            axes.text(column, row, f"{count}", color=color, fontsize=size, ha="center", va="center")


def draw_reliability(axes: Axes, diagram: ReliabilityDiagram) -> None:
    """Draw the accuracy of predictions over their confidence: true probabilities lie on the diagonal."""
    filled = diagram.weight > 0
    accuracy, confidence = diagram.accuracy[filled], diagram.confidence[filled]
    left, right = diagram.edges[:-1][filled], diagram.edges[1:][filled]
    options: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.5}
    axes.bar(left, accuracy, right - left, color="#1f6fb2", label="accuracy", **options)
    gap, base = np.abs(confidence - accuracy), np.minimum(confidence, accuracy)
    axes.bar(
        left, gap, right - left, bottom=base, color="#d1495b", alpha=0.45, label="gap to the confidence", **options
    )
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"Reliability: expected calibration error {100 * diagram.expected_error:.2f} %")
    axes.legend(loc="upper left", frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_confidence(axes: Axes, diagram: ReliabilityDiagram, part: str) -> None:
    """Draw how many samples each bin of a reliability diagram holds."""
    axes.bar(
        diagram.edges[:-1],
        100 * diagram.weight / diagram.weight.sum(),
        np.diff(diagram.edges),
        align="edge",
        color="#8fb4d6",
        edgecolor="white",
        linewidth=0.5,
    )
    axes.set(xlim=(0, 1), xlabel="confidence: probability of the predicted class", ylabel=f"{part} samples (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_weights(figure: SubFigure, model: TrainedModel, weights: Array, labels: Sequence[str], per: str) -> None:
    """Draw the weights of each class, as images if samples are images, on one symmetric scale."""
    scale = f"weight (nats per {per} of the feature)"
    pictures = _as_pictures(weights, model.image_shape)
    if pictures is None:
        _draw_heat_map(figure, weights, model.feature_names, labels, scale)
    else:
        _draw_templates(figure, pictures[:_MAX_TEMPLATES], labels, scale)


def _draw_templates(figure: SubFigure, pictures: Array, labels: Sequence[str], scale: str) -> None:
    limit = _limit(pictures)
    n_columns = _widest_cells(len(pictures), pictures.shape[1] / pictures.shape[2])
    grid = figure.subplots(math.ceil(len(pictures) / n_columns), n_columns, squeeze=False).ravel()
    for axes in grid[len(pictures) :]:
        axes.set_axis_off()
    for axes, picture, label in zip(grid, pictures, labels, strict=False):
        image = axes.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(label, fontsize=11, parse_math=False)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#bbbbbb")
    some = f" (the first {len(pictures)} of {len(labels)})" if len(pictures) < len(labels) else ""
    figure.suptitle(f"Class templates{some}: red speaks for the class, blue against it")
    _finish(figure.colorbar(image, ax=list(grid), shrink=0.8, pad=0.02), scale)


def _draw_heat_map(
    figure: SubFigure, all_weights: Array, names: Sequence[str] | None, labels: Sequence[str], scale: str
) -> None:
    n_classes, n_features = all_weights.shape
    largest = np.abs(all_weights).max(axis=0)
    shown = np.sort(np.argsort(-largest, kind="stable")[:_MAX_FEATURES])
    weights = all_weights[:, shown].T
    axes = figure.subplots()
    limit = _limit(weights)
    image = axes.imshow(weights, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
    _name_ticks(axes, labels, [_shorten(names[i], 26) if names else str(i) for i in shown])
    if n_classes <= _MAX_COUNTED_CLASSES and n_classes * len(shown) <= 200:
        size = max(7.5, 12 - 0.3 * len(shown))
        for (row, column), weight in np.ndenumerate(weights):
            color = "white" if abs(weight) > 0.6 * limit else _INK
            text = f"{weight:.2f}".replace("-", "\N{MINUS SIGN}")
            axes.text(column, row, text, color=color, fontsize=size, ha="center", va="center")
    axes.set_xlabel("class")
    axes.set_ylabel("feature")
    some = f", the {len(shown)} largest of {n_features} features" if len(shown) < n_features else ""
    axes.set_title(f"Weights{some}: red speaks for the class, blue against it")
    _finish(figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02), scale)


def _widest_cells(n: int, aspect: float) -> int:
    """Choose the number of columns with which n pictures fill the space, about 6.5 x 8 inches, best."""
    return max(range(1, n + 1), key=lambda columns: min(6.5 / columns, 8 / math.ceil(n / columns) / (aspect + 0.2)))


def _as_pictures(weights: Array, shape: tuple[int, ...] | None) -> Array | None:
    """Give the weights (C, height, width), summed over colour channels, or None if samples are no pictures."""
    if shape is None or len(shape) not in (2, 3):
        return None
    pictures = weights.reshape(-1, *shape)
    if len(shape) == 2:
        return pictures
    channels = 1 if shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4) else 3  # channels first, or last
    total: Array = pictures.sum(axis=channels)
    return total


def _name_ticks(axes: Axes, columns: Sequence[str], rows: Sequence[str]) -> None:
    """Name cells, but no more than fit; names are text, even where they look like formulas."""
    every = math.ceil(len(columns) / 30)
    axes.set_xticks(range(0, len(columns), every), columns[::every], parse_math=False)
    if sum(map(len, columns[::every])) > 60:
        axes.tick_params(axis="x", rotation=90)
    every = math.ceil(len(rows) / 30)
    axes.set_yticks(range(0, len(rows), every), rows[::every], parse_math=False)


def _shorten(label: object, length: int) -> str:
    """Cut the middle out of a long name: names that belong together differ at the end."""
    text = str(label)
    half = length // 2
    return text if len(text) <= length else f"{text[: half - 1]}…{text[-half:]}"


def _limit(weights: Array) -> float:
    return float(np.abs(weights).max()) or 1.0


def _finish(colorbar: Colorbar, label: str) -> None:
    colorbar.set_label(label)
    colorbar.outline.set_visible(False)
