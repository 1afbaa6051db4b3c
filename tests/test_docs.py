"""What the documentation shows is run: the examples of the docstrings, and the Python of the README."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = ["mlefast", "mlefast._config"]
WITH_EXAMPLES = [
    "mlefast.binary",
    "mlefast.derivatives",
    "mlefast.divergences",
    "mlefast.likelihood",
    "mlefast.linear",
    "mlefast.losses",
    "mlefast.softmax",
    "mlefast.estimators.mlp_classifier",
    "mlefast.calibration",
    "mlefast.estimators.softmax_classifier",
    "mlefast.estimators.temperature_calibrator",
]


@pytest.mark.parametrize("name", MODULES + WITH_EXAMPLES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    if name in WITH_EXAMPLES:
        assert result.attempted > 0


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_python_of_a_page_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", ["docs/guide.md"])
def test_examples_of_a_page_give_what_it_says(page):
    text = re.sub(r"^```.*$", "", (ROOT / page).read_text(), flags=re.M)  # a fence would be taken for an output
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, page, page, 0))
    assert runner.tries > 20
    assert runner.failures == 0


def test_pictures_of_a_page_are_there_and_small():
    page = (ROOT / "docs" / "guide.md").read_text()
    named = {ROOT / "docs" / name for name in re.findall(r"!\[.*?\]\((.*?)\)", page)}
    assert named == set((ROOT / "docs" / "pictures").iterdir())
    assert all(picture.stat().st_size <= 60_000 for picture in named)
