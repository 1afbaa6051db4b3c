"""Drawings: they show what they should, for any number of classes and any kind of samples."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from mlefast.calibration import reliability_diagram
from mlefast.cli import plots
from mlefast.cli.evaluation import Evaluation
from mlefast.cli.fitting import Fit
from mlefast.model_file import LinearModel, NetworkModel

RANDOM = np.random.default_rng(2)


def make(n_classes, n_features, *, image_shape=None, names=None, labels=None):
    weights = RANDOM.standard_normal((n_classes, n_features))
    weights -= weights.mean(axis=0)
    rows = 1 if n_classes == 2 else n_classes
    labels = np.arange(n_classes) if labels is None else np.array(labels)
    model = LinearModel(weights[:rows], np.zeros(rows), labels, names, image_shape)
    confusion = RANDOM.poisson(3, (n_classes, n_classes)) + np.diag(RANDOM.integers(20, 90, n_classes))
    confusion[0] = 0  # a class that the test data lack
    total = int(confusion.sum())
    reliability = reliability_diagram(RANDOM.dirichlet(np.ones(n_classes), total), RANDOM.integers(0, n_classes, total))
    evaluation = Evaluation(total, np.trace(confusion) / total, 0.3, 0.3, 0.0, confusion, reliability)
    return Fit(model, weights, [1.5, 0.7, 0.02], 1.0, True), evaluation


def drawings(fit, evaluation, **options):
    options = {"unit": "epoch", "standardized": True, **options}
    return plots.Drawings.of_training("$\\title$", fit, "test", evaluation, **options)


def draw(fit, evaluation, **options):
    figure = drawings(fit, evaluation, **options).page()
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    return figure


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("n_classes", "image_shape"),
    [(2, None), (2, (4, 6)), (3, (24,)), (3, (2, 3, 2, 2)), (4, (4, 2, 3)), (20, (4, 6)), (21, (4, 6)), (60, None)],
)
def test_any_number_of_classes(n_classes, image_shape):
    fit, evaluation = make(n_classes, 24, image_shape=image_shape)
    figure = draw(fit, evaluation)
    loss, confusion, colorbar, *others, reliability, confidence = figure.axes
    assert (reliability.get_ylabel(), confidence.get_ylabel()) == ("accuracy", "test samples (%)")
    assert loss.get_xlabel() == "epoch"
    assert "nats" in loss.get_ylabel()
    assert (confusion.get_xlabel(), confusion.get_ylabel()) == ("predicted class", "true class")
    assert "%" in colorbar.get_ylabel()
    pictures = [axes for axes in others if axes.get_images() and axes.get_visible()]
    if image_shape is not None and len(image_shape) in (2, 3):
        assert [axes.get_title() for axes in pictures] == [str(k) for k in range(min(n_classes, 20))]
        scales = {(axes.get_images()[0].norm.vmin, axes.get_images()[0].norm.vmax) for axes in pictures}
        assert len(scales) == 1
    else:
        assert len(pictures) == 1
    assert "nats per standard deviation" in others[-1].get_ylabel()


def test_loss_starts_from_equal_classes():
    fit, evaluation = make(3, 4)
    loss = draw(fit, evaluation, unit="iteration").axes[0]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [np.log(3), *fit.loss_curve])
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), range(4))
    assert loss.get_xlabel() == "iteration"
    assert loss.get_yscale() == "log"


def test_confusion_counts():
    fit, evaluation = make(4, 3)
    axes = draw(fit, evaluation).axes[1]
    assert sorted(texts(axes)) == sorted(str(count) for count in evaluation.confusion.ravel() if count)
    share = axes.get_images()[0].get_array()
    np.testing.assert_array_equal(share[0], 0)
    np.testing.assert_allclose(share[1:].sum(axis=1), 100)
    assert f"{100 * evaluation.accuracy:.1f} %" in axes.get_title()
    assert f"{evaluation.samples} test samples" in axes.get_title()


def test_template_of_a_class_is_its_weights():
    fit, evaluation = make(3, 6, image_shape=(2, 3))
    fit.weights[1, 2] = -9  # the largest weight is negative
    pictures = draw(fit, evaluation).axes[3:6]
    largest = np.abs(fit.weights).max()
    for axes, weights in zip(pictures, fit.weights, strict=True):
        norm = axes.get_images()[0].norm
        assert (norm.vmin, norm.vmax) == (-largest, largest)
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), weights.reshape(2, 3))


def test_colour_channels_are_summed_wherever_they_are():
    fit, evaluation = make(3, 24, image_shape=(2, 4, 3))
    picture = draw(fit, evaluation).axes[3].get_images()[0].get_array()
    np.testing.assert_allclose(picture, fit.weights[0].reshape(2, 4, 3).sum(axis=2))
    fit, evaluation = make(3, 24, image_shape=(3, 2, 4))  # 4 pixels wide or 4 channels: read as channels last
    picture = draw(fit, evaluation).axes[3].get_images()[0].get_array()
    np.testing.assert_allclose(picture, fit.weights[0].reshape(3, 2, 4).sum(axis=2))
    fit, evaluation = make(3, 30, image_shape=(3, 2, 5))
    picture = draw(fit, evaluation).axes[3].get_images()[0].get_array()
    np.testing.assert_allclose(picture, fit.weights[0].reshape(3, 2, 5).sum(axis=0))


def test_largest_of_many_features():
    fit, evaluation = make(3, 100, names=tuple(f"f{i}" for i in range(100)))
    axes = draw(fit, evaluation, standardized=False).axes[3]
    largest = np.sort(np.argsort(-np.abs(fit.weights).max(axis=0))[:30])
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"f{i}" for i in largest]
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), fit.weights[:, largest].T)
    assert "30 largest of 100" in axes.get_title()


def test_long_names():
    labels = [f"a long name, of class {i}" for i in range(4)]
    fit, evaluation = make(4, 2, names=("x" * 98 + "1", "x" * 98 + "2"), labels=labels)
    confusion, _, heat_map = draw(fit, evaluation).axes[1:4]
    for axes in (confusion, heat_map):
        shown = [label.get_text() for label in axes.get_yticklabels()]
        assert all(len(label) <= 26 for label in shown)
        assert len(set(shown)) == len(shown)  # what tells the names apart is kept


@pytest.mark.parametrize("image_shape", [None, (1, 2)])
def test_names_that_look_like_formulas(image_shape):
    names = ("$\\frac$", "$_$")  # neither is one
    fit, evaluation = make(3, 2, names=names, labels=["$\\frac$", "$^$", "$"], image_shape=image_shape)
    confusion = draw(fit, evaluation).axes[1]
    assert [label.get_text() for label in confusion.get_xticklabels()] == ["$\\frac$", "$^$", "$"]


def test_weights_of_zero():
    fit, evaluation = make(3, 4, image_shape=(2, 2))
    fit.weights[:] = 0
    draw(fit, evaluation)


def test_pyplot_is_not_touched():
    code = "import sys, mlefast.cli.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reliability_of_a_network():
    linear, evaluation = make(3, 4)
    network = NetworkModel((np.ones((4, 5)), np.ones((5, 3))), (np.zeros(5), np.zeros(3)), "relu", linear.model.classes)
    figure = draw(replace(linear, model=network, weights=None), evaluation)
    reliability, confidence = figure.axes[3:]
    diagram = evaluation.reliability
    filled = diagram.weight > 0
    bars = [bar for bar in reliability.patches if bar.get_y() == 0 and bar.get_alpha() is None]
    np.testing.assert_allclose([bar.get_height() for bar in bars], diagram.accuracy[filled])
    gaps = [bar.get_height() for bar in reliability.patches if bar.get_alpha() is not None]
    np.testing.assert_allclose(gaps, np.abs(diagram.accuracy - diagram.confidence)[filled])
    assert f"{100 * diagram.expected_error:.2f} %" in reliability.get_title()
    assert sum(bar.get_height() for bar in confidence.patches) == pytest.approx(100)
    assert (reliability.get_xlim(), reliability.get_ylim()) == ((0, 1), (0, 1))


def test_validation_curve():
    fit, evaluation = make(3, 4)
    fit = replace(fit, validation_curve=[0.4, 0.9, 0.8])
    loss, *_, validation = (axes for axes in draw(fit, evaluation).axes if axes.get_ylabel() in LOSS_LABELS)
    assert loss.get_shared_x_axes().joined(loss, validation)
    np.testing.assert_array_equal(validation.lines[0].get_xydata(), [[1, 0.4], [2, 0.9], [3, 0.8]])
    np.testing.assert_array_equal(validation.lines[1].get_xydata(), [[2, 0.9]])  # what is kept


LOSS_LABELS = ("objective\n(nats per sample)", "validation accuracy")


@pytest.mark.parametrize("n_classes", [2, 3])
def test_evaluation_of_a_model(n_classes):
    fit, evaluation = make(n_classes, 6, image_shape=(2, 3))
    drawings = plots.Drawings.of_evaluation("model.npz", fit.model, "data", evaluation)
    confusion, _, *others = drawings.page().axes
    assert confusion.get_xlabel() == "predicted class"
    pictures = [axes for axes in others if axes.get_images() and axes.get_title()]
    expected = fit.weights if n_classes > 2 else np.outer([-0.5, 0.5], fit.model.coef)
    for axes, weights in zip(pictures, expected, strict=True):
        np.testing.assert_allclose(axes.get_images()[0].get_array().ravel(), weights)
    assert list(drawings.panels()) == ["Confusion matrix", "Reliability", "Weights of the classes"]


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK], ids=["light", "dark"])
def test_panels(theme):
    fit, evaluation = make(3, 6, labels=["<b>", "&amp;", "$x"])
    panels = drawings(fit, evaluation).panels()
    assert list(panels) == ["Loss", "Confusion matrix", "Reliability", "Weights of the classes"]
    for draw_panel in panels.values():
        svg = draw_panel(theme)
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert svg == draw_panel(theme)  # the same file for the same model
        assert theme.ink.encode() in svg
        assert b"<image" in svg or b'xlink:href="http' not in svg


def test_texts_can_be_read_on_their_ground():
    for theme in (plots.LIGHT, plots.DARK):
        for scale in (theme.counts, theme.weights):
            for share in np.linspace(0, 1, 11):
                red, green, blue, _ = scale(share)
                ground = 0.3 * red + 0.59 * green + 0.11 * blue
                text = {"white": 1.0, "#1c1c1c": 0.11}[plots._on(scale(share))]
                assert abs(ground - text) > 0.38
