"""``mlefast evaluate``, and the page of it and of ``mlefast train``."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import mlefast as mf
import numpy as np
import pytest
from mlefast import data, model_file
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


@pytest.fixture
def model(run, small, tmp_path):
    path = tmp_path / "model.npz"
    assert run("train", small, "--quiet", "--save", path).status == 0
    return path


@pytest.fixture
def streamed(small, tmp_path):
    """The data of `small` in files that are read in parts."""
    with np.load(small) as archive:
        np.save(tmp_path / "X.npy", archive["X"])
        np.save(tmp_path / "y.npy", archive["y"])
    return tmp_path / "X.npy"


class Page(HTMLParser):
    """The tags, texts and links of a page, and whether every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.sources, self.open = [], [], [], []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "img", "source", "br", "link"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "srcset", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(data.strip())

    def rows(self, first):
        """What follows a text, up to what it holds."""
        return self.texts[self.texts.index(first) + 1 :]


def check_self_contained(page):
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.findall(r"url\(|@import|https?://", page.html)
    for source in page.sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(content)
        assert ET.fromstring(svg).tag.endswith("svg")
        links = re.findall(rb'(?:href|src)="([^"]{0,30})', svg)
        assert all(link.startswith((b"#", b"data:")) for link in links)
    assert "viewport" in page.html
    assert "prefers-color-scheme: dark" in page.html


def test_numbers(run, model, small, streamed):
    trained, samples = model_file.load(model), data.load(small)
    predicted = trained.predict(samples.X)
    for source in (small, streamed):
        result = run("evaluate", model, source, "--json")
        assert (result.status, result.err) == (0, "")
        record = json.loads(result.out)
        assert (record["model"], record["data"], record["samples"]) == (str(model), str(source), 60)
        assert record["accuracy"] == pytest.approx(np.mean(predicted == samples.y))
        target = np.searchsorted(trained.classes, samples.y)
        assert record["nll"] == pytest.approx(float(mf.cross_entropy(trained.logits(samples.X), target)))
        assert record["nll"] == pytest.approx(record["kl"] + record["entropy"])
        expected = mf.calibration.expected_calibration_error(trained.predict_proba(samples.X), target)
        assert record["calibration_error"] == pytest.approx(expected)
        np.testing.assert_array_equal(record["confusion"], confusion_matrix(samples.y, predicted))
        scores = precision_recall_fscore_support(samples.y, predicted)
        for each, label, *numbers in zip(record["classes"], trained.classes, *scores, strict=True):
            assert each["class"] == label
            assert [each[name] for name in ("precision", "recall", "f1", "samples")] == pytest.approx(numbers)


def test_tables(process, model, small):
    result = process("evaluate", model, small)
    assert (result.status, result.err) == (0, "")
    for text in (
        "mlefast evaluate",
        "precision",
        "recall",
        "F1",
        "ant",
        "bee",
        "cow",
        "= KL(labels || model)",
        "calibration",
    ):
        assert text in result.out


def test_plot(run, model, small, tmp_path):
    assert run("evaluate", model, small, "--plot", tmp_path / "p.svg", "--json").status == 0
    svg = ET.fromstring((tmp_path / "p.svg").read_bytes())
    assert svg.tag.endswith("svg")


def test_wrong_data(one_line_error, model, small, tmp_path, streamed):
    (tmp_path / "y.npy").unlink()
    assert "no labels" in one_line_error("evaluate", model, streamed)
    assert "no such file" in one_line_error("evaluate", model, tmp_path / "absent.csv")
    assert "64 features" in one_line_error("evaluate", model, "digits")
    assert "also read" in one_line_error("evaluate", model, small, "--plot", _as_plot(model))
    assert ".html" in one_line_error("evaluate", model, small, "--report", tmp_path / "r.txt")
    assert "No such file" in one_line_error("evaluate", model, small, "--report", tmp_path / "absent" / "r.html")
    np.save(tmp_path / "y.npy", np.array(["ant", "dog"] * 30))
    assert "the label dog" in one_line_error("evaluate", model, streamed)


def _as_plot(model):
    """A file that is read, under a name that a plot may have."""
    link = model.with_suffix(".png")
    link.symlink_to(model)
    return link


def test_report_of_an_evaluation(run, model, small, tmp_path):
    path = tmp_path / "r.html"
    assert run("evaluate", model, small, "--report", path, "--json").status == 0
    page = Page(path)
    check_self_contained(page)
    for text in ("ant", "bee", "cow", "precision", "Confusion matrix", "Reliability", "Weights of the classes"):
        assert text in page.texts
    assert "Loss" not in page.texts
    assert len(page.sources) == 6  # light and dark


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_report_of_a_training(run, tmp_path, kind):
    path = tmp_path / "r.html"
    options = ("--model", "mlp", "--hidden", "8,4", "--max-iter", 5) if kind == "mlp" else ("--penalty", "none")
    result = run("train", "iris", *options, "--report", path, "--json")
    assert (result.status, result.err) == (0, "")
    record, page = json.loads(result.out), Page(path)
    assert record["report"] == str(path)
    check_self_contained(page)
    assert page.rows("accuracy")[:2] == [f"{record[part]['accuracy']:.4f}" for part in ("train", "test")]
    assert f"{100 * record['test']['accuracy']:.2f} %" in page.texts
    for text in ("Training: iris", "112 train, 38 test", "setosa", "versicolor", "Loss", "Confusion matrix"):
        assert text in page.texts
    assert ("Weights of the classes" in page.texts) == (kind == "linear")
    assert len(page.sources) == (8 if kind == "linear" else 6)
    assert page.rows("penalty" if kind == "linear" else "hidden")[0] == ("none" if kind == "linear" else "8, 4")
    assert ("dropout" in page.texts) == (kind == "mlp")


def test_texts_are_text(run, small, tmp_path):
    """Names of files, classes and features are shown as they are, whatever they look like."""
    names = ["<script>alert(1)</script>", "&amp; {{ 7 * 7 }} $x_1$", "\"'><img src=x onerror=alert(1)>"]
    path = tmp_path / "<b>bold" / "d.npz"
    path.parent.mkdir()
    with np.load(small) as archive:
        np.savez(path, X=archive["X"], y=np.array(names)[np.unique(archive["y"], return_inverse=True)[1]])
    model = tmp_path / "m.npz"
    for command in (("train", path, "--save", model), ("evaluate", model, path)):
        report = tmp_path / "r.html"
        assert run(*command, "--report", report).status == 0
        page = Page(report)
        check_self_contained(page)
        for name in names:
            assert name in page.texts
        assert any(str(path) in text for text in page.texts)
        assert "b" not in page.tags
        assert page.tags.count("img") == len(page.sources) // 2
