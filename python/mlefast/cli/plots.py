"""Drawings of a model: its loss, the confusion matrix, how reliable it is, and the weights of each class.

Figures are made directly, not through pyplot: no window system, and no global state of a host program is touched.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mlefast.calibration import ReliabilityDiagram
from mlefast.cli.evaluation import Evaluation
from mlefast.cli.fitting import Fit
from mlefast.cli.options import write_output
from mlefast.model_file import LinearModel, TrainedModel

_MAX_TEMPLATES = 20
_MAX_FEATURES = 30  # rows of the heat map whose names can be read
_MAX_COUNTED_CLASSES = 20  # more cells hold no legible numbers

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Theme:
    """Colours: of the ground, of texts, of what is beside them, of lines and bars, of the lowest to highest numbers."""

    face: str
    ink: str
    muted: str
    main: str
    second: str
    counts: Colormap
    weights: Colormap

    @property
    def settings(self) -> Any:
        """Matplotlib's parameters, which are looked up while a figure is made and while it is saved."""
        texts = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
        return {**dict.fromkeys(texts, self.ink), "axes.facecolor": "none", "svg.hashsalt": "mlefast"}


LIGHT = Theme("#ffffff", "#333333", "#777777", "#1f6fb2", "#d1495b", mpl.colormaps["Blues"], mpl.colormaps["RdBu_r"])
DARK = Theme(
    "#171e26",
    "#e3e6ea",
    "#9aa3ad",
    "#5aa9e6",
    "#ff8a80",
    LinearSegmentedColormap.from_list("blues of the night", ["#1b2430", "#2f6ea8", "#a9d6ff"]),
    LinearSegmentedColormap.from_list("red, dark, blue", ["#8cc4ff", "#2f6ea8", "#1b2430", "#b23a48", "#ffb3a7"]),
)


@dataclass(frozen=True, eq=False)
class Drawings:
    """What there is to draw of a model.

    Attributes
    ----------
    title : str
    model : LinearModel or NetworkModel
    weights : ndarray, shape (C, F), or None
        Weights of a linear model, centred over the classes.
    per : str
        What a weight is for: a "unit" or a "standard deviation" of its feature.
    part : str
        What the evaluation is of: "test" or "train".
    evaluation : Evaluation
    loss_curve, validation_curve : sequence of float, optional
        Objective after each iteration; accuracy on what early stopping sets aside.
    unit : str
        What iterations are called.
    """

    title: str
    model: TrainedModel
    weights: Array | None
    per: str
    part: str
    evaluation: Evaluation
    loss_curve: Sequence[float] | None = None
    validation_curve: Sequence[float] | None = None
    unit: str = "iteration"

    @classmethod
    def of_training(
        cls, title: str, fit: Fit, part: str, evaluation: Evaluation, *, unit: str, standardized: bool
    ) -> Drawings:
        """Drawings of a fit and an evaluation on a part of its data."""
        per = "standard deviation" if standardized else "unit"
        curves = fit.loss_curve, fit.validation_curve
        return cls(title, fit.model, fit.weights, per, part, evaluation, *curves, unit)

    @classmethod
    def of_evaluation(cls, title: str, model: TrainedModel, part: str, evaluation: Evaluation) -> Drawings:
        """Drawings of a model from a file."""
        weights = None
        if isinstance(model, LinearModel):
            weights = model.coef if len(model.coef) > 1 else np.vstack([np.zeros_like(model.coef), model.coef])
            weights = weights - weights.mean(axis=0)
        return cls(title, model, weights, "unit", part, evaluation)

    @property
    def labels(self) -> list[str]:
        """Names of the classes, shortened."""
        return [_shorten(label, 16) for label in self.model.classes]

    def page(self, theme: Theme = LIGHT) -> Figure:
        """Draw all of it, 9 inches high."""
        with mpl.rc_context(theme.settings):
            columns = [0.95, 0.85] if self.weights is None else [0.95, 0.85, 1.2]
            figure = Figure(figsize=(7 * sum(columns), 9), dpi=110, layout=_layout())
            figure.suptitle(self.title, fontsize=14, parse_math=False)
            parts: Any = figure.subfigures(1, len(columns), width_ratios=columns, wspace=0.03)
            if self.loss_curve is None:
                draw_confusion(parts[0].subplots(), self.evaluation, self.labels, self.part, theme)
            else:
                loss_axes, confusion_axes = parts[0].subplots(2, 1, height_ratios=[1, 2])
                self.draw_loss(loss_axes, theme)
                draw_confusion(confusion_axes, self.evaluation, self.labels, self.part, theme)
            if self.weights is not None:
                self.draw_weights(parts[2], theme)
            self.draw_reliability(parts[1], theme)
            return figure

    def write(self, path: Path) -> None:
        """Write the page to a file, whole or not at all."""
        with mpl.rc_context(LIGHT.settings):
            content = to_bytes(self.page(), path.suffix[1:])
        write_output(path, content, "--plot")

    def panels(self) -> dict[str, Callable[[Theme], bytes]]:
        """Return functions that draw the parts as SVG, by what they show."""
        n_classes = len(self.model.classes)
        side = min(max(5.5, 4 + 0.25 * n_classes), 9)
        panels: dict[str, tuple[Callable[[Figure, Theme], None], tuple[float, float]]] = {}
        if self.loss_curve is not None:
            panels["Loss"] = lambda figure, theme: self.draw_loss(figure.subplots(), theme), (6.6, 4)
        panels["Confusion matrix"] = (
            lambda figure, theme: draw_confusion(figure.subplots(), self.evaluation, self.labels, self.part, theme),
            (side * 1.15, side),
        )
        panels["Reliability"] = self.draw_reliability, (6.6, 6)
        if self.weights is not None:
            panels["Weights of the classes"] = self.draw_weights, (8, 7)
        return {name: _renderer(draw, size) for name, (draw, size) in panels.items()}

    def draw_loss(self, axes: Axes, theme: Theme) -> None:
        """Draw the loss curve and, on a scale of its own, the accuracy on what was set aside."""
        assert self.loss_curve is not None
        draw_loss(axes, self.loss_curve, len(self.model.classes), self.unit, theme)
        if self.validation_curve:
            draw_validation(axes.twinx(), self.validation_curve, theme)

    def draw_reliability(self, figure: Figure | SubFigure, theme: Theme) -> None:
        """Draw accuracy over confidence, and how often each confidence occurs."""
        reliability_axes, confidence_axes = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        draw_reliability(reliability_axes, self.evaluation.reliability, theme)
        draw_confidence(confidence_axes, self.evaluation.reliability, self.part, theme)

    def draw_weights(self, figure: Figure | SubFigure, theme: Theme) -> None:
        """Draw the weights of each class."""
        assert self.weights is not None
        draw_weights(figure, self.model, self.weights, self.labels, self.per, theme)


def _renderer(draw: Callable[[Figure, Theme], None], size: tuple[float, float]) -> Callable[[Theme], bytes]:
    def render(theme: Theme) -> bytes:
        with mpl.rc_context(theme.settings):
            figure = Figure(figsize=size, layout=_layout())
            draw(figure, theme)
            return to_bytes(figure, "svg", transparent=True, metadata={"Date": None})

    return render


def to_bytes(figure: Figure, suffix: str, **options: Any) -> bytes:
    """Return a figure as the content of a file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a character that the font lacks is drawn as a box
        figure.savefig(buffer, format=suffix, **options)
    return buffer.getvalue()


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)


def draw_loss(axes: Axes, loss_curve: Sequence[float], n_classes: int, unit: str, theme: Theme) -> None:
    """Draw the objective after each iteration, from that of a model without weights: the logarithm of C."""
    start = math.log(n_classes)
    curve = [start, *loss_curve]
    axes.plot(curve, ".-", color=theme.main, markersize=4)
    axes.axhline(start, color=theme.muted, linestyle="--", linewidth=1)
    axes.annotate(
        f"all classes equally likely: ln {n_classes} = {start:.3f}",
        (1, start),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color=theme.muted,
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


def draw_validation(axes: Axes, scores: Sequence[float], theme: Theme) -> None:
    """Draw the accuracy on the samples that early stopping sets aside, after each epoch, and the best one."""
    best = int(np.argmax(scores))
    axes.plot(range(1, len(scores) + 1), scores, color=theme.second, linewidth=1)
    axes.plot(best + 1, scores[best], "o", color=theme.second, markersize=5)
    axes.set_ylabel("validation accuracy", color=theme.second)
    axes.spines[["top"]].set_visible(False)


def draw_confusion(axes: Axes, evaluation: Evaluation, labels: Sequence[str], part: str, theme: Theme) -> None:
    """Draw counts of samples, coloured by their share of the true class."""
    counts = evaluation.confusion
    share = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap=theme.counts, vmin=0, vmax=100)
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
            color = _on(theme.counts(share[row, column] / 100))
            axes.text(column, row, f"{count}", color=color, fontsize=size, ha="center", va="center")


def draw_reliability(axes: Axes, diagram: ReliabilityDiagram, theme: Theme) -> None:
    """Draw the accuracy of predictions over their confidence: true probabilities lie on the diagonal."""
    filled = diagram.weight > 0
    accuracy, confidence = diagram.accuracy[filled], diagram.confidence[filled]
    left, right = diagram.edges[:-1][filled], diagram.edges[1:][filled]
    options: dict[str, Any] = {"align": "edge", "edgecolor": theme.face, "linewidth": 0.5}
    axes.bar(left, accuracy, right - left, color=theme.main, label="accuracy", **options)
    gap, base = np.abs(confidence - accuracy), np.minimum(confidence, accuracy)
    axes.bar(
        left, gap, right - left, bottom=base, color=theme.second, alpha=0.45, label="gap to the confidence", **options
    )
    axes.plot([0, 1], [0, 1], color=theme.muted, linestyle="--", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"Reliability: expected calibration error {100 * diagram.expected_error:.2f} %")
    axes.legend(loc="upper left", facecolor=theme.face, edgecolor="none", framealpha=0.85)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_confidence(axes: Axes, diagram: ReliabilityDiagram, part: str, theme: Theme) -> None:
    """Draw how many samples each bin of a reliability diagram holds."""
    axes.bar(
        diagram.edges[:-1],
        100 * diagram.weight / diagram.weight.sum(),
        np.diff(diagram.edges),
        align="edge",
        color=theme.main,
        alpha=0.5,
        edgecolor=theme.face,
        linewidth=0.5,
    )
    axes.set(xlim=(0, 1), xlabel="confidence: probability of the predicted class", ylabel=f"{part} samples (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def draw_weights(
    figure: Figure | SubFigure, model: TrainedModel, weights: Array, labels: Sequence[str], per: str, theme: Theme
) -> None:
    """Draw the weights of each class, as images if samples are images, on one symmetric scale."""
    scale = f"weight (nats per {per} of the feature)"
    pictures = _as_pictures(weights, model.image_shape)
    if pictures is None:
        _draw_heat_map(figure, weights, model.feature_names, labels, scale, theme)
    else:
        _draw_templates(figure, pictures[:_MAX_TEMPLATES], labels, scale, theme)


def _draw_templates(
    figure: Figure | SubFigure, pictures: Array, labels: Sequence[str], scale: str, theme: Theme
) -> None:
    limit = _limit(pictures)
    n_columns = _widest_cells(len(pictures), pictures.shape[1] / pictures.shape[2])
    grid = figure.subplots(math.ceil(len(pictures) / n_columns), n_columns, squeeze=False).ravel()
    for axes in grid[len(pictures) :]:
        axes.set_axis_off()
    for axes, picture, label in zip(grid, pictures, labels, strict=False):
        image = axes.imshow(picture, cmap=theme.weights, vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(label, fontsize=11, parse_math=False)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(theme.muted)
    some = f" (the first {len(pictures)} of {len(labels)})" if len(pictures) < len(labels) else ""
    figure.suptitle(f"Class templates{some}: red speaks for the class, blue against it")
    _finish(figure.colorbar(image, ax=list(grid), shrink=0.8, pad=0.02), scale)


def _draw_heat_map(
    figure: Figure | SubFigure,
    all_weights: Array,
    names: Sequence[str] | None,
    labels: Sequence[str],
    scale: str,
    theme: Theme,
) -> None:
    n_classes, n_features = all_weights.shape
    largest = np.abs(all_weights).max(axis=0)
    shown = np.sort(np.argsort(-largest, kind="stable")[:_MAX_FEATURES])
    weights = all_weights[:, shown].T
    axes = figure.subplots()
    limit = _limit(weights)
    image = axes.imshow(weights, cmap=theme.weights, vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
    _name_ticks(axes, labels, [_shorten(names[i], 26) if names else str(i) for i in shown])
    if n_classes <= _MAX_COUNTED_CLASSES and n_classes * len(shown) <= 200:
        size = max(7.5, 12 - 0.3 * len(shown))
        for (row, column), weight in np.ndenumerate(weights):
            color = _on(theme.weights((weight / limit + 1) / 2))
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


def _on(colour: tuple[float, float, float, float]) -> str:
    """Return the colour of a text that can be read on another."""
    red, green, blue, _ = colour
    return "#1c1c1c" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"


def _limit(weights: Array) -> float:
    return float(np.abs(weights).max()) or 1.0


def _finish(colorbar: Colorbar, label: str) -> None:
    colorbar.set_label(label)
    colorbar.outline.set_visible(False)
