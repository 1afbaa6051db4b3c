"""A report as one HTML page that needs nothing else: no other file, no network, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import mlefast as mf
from mlefast.cli.evaluation import Evaluation
from mlefast.cli.options import write_output
from mlefast.cli.plots import DARK, LIGHT, Drawings
from mlefast.cli.report import CLASS_COLUMNS, Training, class_rows, evaluation_rows, model_facts


@dataclass(frozen=True, eq=False)
class Report:
    """What a page shows.

    Attributes
    ----------
    title : str
    subtitle : str
    facts, options : mapping of str to str
    evaluations : mapping of str to Evaluation
        By the part of the data; the last one is that whose classes and plots are shown.
    drawings : Drawings
    """

    title: str
    subtitle: str
    facts: Mapping[str, str]
    options: Mapping[str, str]
    evaluations: Mapping[str, Evaluation]
    drawings: Drawings

    @classmethod
    def of_training(cls, training: Training, drawings: Drawings) -> Report:
        """Report on a training."""
        options = training.options
        idle = set(_LINEAR if options.model == "mlp" else _NETWORK)
        if options.unit == "iteration":
            idle |= set(_DESCENT)
        if options.penalty != "elasticnet":
            idle.add("l1_ratio")
        shown = {name.replace("_", " "): _as_text(value) for name, value in vars(options).items() if name not in idle}
        return cls("Training", training.data.name, training.facts, shown, training.evaluations, drawings)

    @classmethod
    def of_evaluation(cls, path: Path, data: str, evaluation: Evaluation, drawings: Drawings) -> Report:
        """Report on a model from a file."""
        facts = {"model": str(path), "samples": str(evaluation.samples), **model_facts(drawings.model)}
        return cls("Evaluation", data, facts, {}, {"data": evaluation}, drawings)

    def to_html(self) -> str:
        """Return the page."""
        import jinja2

        source = resources.files("mlefast.cli").joinpath("report.html").read_text(encoding="utf-8")
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        part, evaluation = list(self.evaluations.items())[-1]
        return environment.from_string(source).render(
            report=self,
            version=mf.__version__,
            part=part,
            highlights=_highlights(evaluation),
            rows=evaluation_rows(self.evaluations),
            class_columns=CLASS_COLUMNS,
            class_rows=class_rows(self.drawings.model, evaluation),
            panels=[
                (name, _data_uri(draw(LIGHT)), _data_uri(draw(DARK))) for name, draw in self.drawings.panels().items()
            ],
        )

    def write(self, path: Path) -> None:
        """Write the page to a file, whole or not at all."""
        write_output(path, self.to_html().encode(), "--report")


_LINEAR = ("penalty", "C", "l1_ratio")
_DESCENT = ("batch_size", "learning_rate", "schedule", "early_stopping")
_NETWORK = ("hidden", "activation", "dropout", "weight_decay")


def _as_text(value: Any) -> str:
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _highlights(evaluation: Evaluation) -> dict[str, str]:
    return {
        "accuracy": f"{100 * evaluation.accuracy:.2f} %",
        "negative log-likelihood": f"{evaluation.nll:.4f}",
        "calibration error": f"{100 * evaluation.reliability.expected_error:.2f} %",
    }


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
