"""What is shown of a training or an evaluation: progress, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlefast.cli.evaluation import Evaluation, class_scores
from mlefast.cli.fitting import Fit, FitOptions
from mlefast.data import Dataset, Stream
from mlefast.model_file import NetworkModel, TrainedModel

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, eq=False)
class Training:
    """Everything that is reported of a training."""

    data: Dataset | Stream
    options: FitOptions
    fit: Fit
    evaluations: Mapping[str, Evaluation]
    isa: str
    threads: int

    @property
    def samples_per_second(self) -> float:
        """Samples that were seen in all iterations, per second of the fit."""
        return self.evaluations["train"].samples * len(self.fit.loss_curve) / self.fit.seconds

    @property
    def facts(self) -> dict[str, str]:
        """What a user wants to know first."""
        fit = self.fit
        ending = "converged" if fit.converged else "not converged: raise --max-iter"
        if fit.interrupted:
            ending = "interrupted: the model so far is kept"
        return {
            "samples": ", ".join(f"{e.samples} {part}" for part, e in self.evaluations.items()),
            **model_facts(fit.model),
            "fit": f"{self.options.solver}, {iterations(fit, self.options)} in {fit.seconds:.3g} s, {ending}",
            "samples per second": f"{self.samples_per_second:,.0f}",
            "instruction set": self.isa,
            "threads": str(self.threads),
        }


@contextmanager
def progress(options: FitOptions, *, wanted: bool) -> Iterator[Callable[[int, float], None]]:
    """Show the progress of a fit, if wanted and if standard error is a terminal; yield the estimator's callback."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda iteration, objective: None
        return
    from mlefast.estimators.progress import progress_bar

    with progress_bar(options.solver, f"{options.unit}s", options.max_iter) as watch:
        yield watch


def print_training(training: Training) -> None:
    """Print tables for people."""
    print_tables(f"mlefast train {training.data.name}", training.facts, training.evaluations)


def print_tables(title: str, facts: Mapping[str, str], evaluations: Mapping[str, Evaluation]) -> None:
    """Print facts and evaluations."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for name, fact in facts.items():
        table.add_row(name, fact)
    console = new_console()
    console.print(table)
    console.print(evaluation_table(evaluations))


def model_facts(model: TrainedModel) -> dict[str, str]:
    """Describe a model."""
    image = "" if model.image_shape is None else f" ({' x '.join(map(str, model.image_shape))} image)"
    facts = {"features": f"{model.n_features}{image}", "classes": str(len(model.classes))}
    if isinstance(model, NetworkModel):
        units = " - ".join(map(str, [model.n_features, *map(len, model.intercepts)]))
        parameters = sum(part.size for part in (*model.coefs, *model.intercepts))
        facts["network"] = f"{units} units, {model.activation}, {parameters:,} parameters"
    return facts


def iterations(fit: Fit, options: FitOptions) -> str:
    """Say how many iterations (of sgd and adamw: epochs) there were."""
    number = len(fit.loss_curve)
    return f"{number} {options.unit}" + "s" * (number != 1)


def new_console(*, stderr: bool = False) -> Console:
    """Make a console that takes text literally: names of files and classes may look like markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def evaluation_rows(evaluations: Mapping[str, Evaluation]) -> dict[str, list[str]]:
    """Return numbers for people, a list for each of them, in which NLL = KL + H can be checked by eye."""
    every = evaluations.values()
    return {
        "accuracy": [f"{e.accuracy:.4f}" for e in every],
        "negative log-likelihood (nats per sample)": [f"{e.nll:.6f}" for e in every],
        "= KL(labels || model)": [f"{e.kl:.6f}" for e in every],
        "+ entropy of the labels": [f"{e.entropy:.6f}" for e in every],
        "expected calibration error": [f"{e.reliability.expected_error:.4f}" for e in every],
    }


def evaluation_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Make a table with a column for each evaluation."""
    from rich.table import Table

    table = Table("")
    for part in evaluations:
        table.add_column(part, justify="right")
    for name, row in evaluation_rows(evaluations).items():
        table.add_row(name, *row)
    return table


CLASS_COLUMNS = ("class", "precision", "recall", "F1", "samples")


def class_rows(model: TrainedModel, evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return scores of the classes for people, as `CLASS_COLUMNS` says."""
    scores = class_scores(evaluation)
    numbers = zip(scores.precision, scores.recall, scores.f1, scores.support, strict=True)
    return [
        (str(label), f"{precision:.4f}", f"{recall:.4f}", f"{f1:.4f}", str(support))
        for label, (precision, recall, f1, support) in zip(model.classes, numbers, strict=True)
    ]


def class_table(model: TrainedModel, evaluation: Evaluation) -> Table:
    """Make a table with a row for each class."""
    from rich.table import Table

    table = Table(CLASS_COLUMNS[0])
    for name in CLASS_COLUMNS[1:]:
        table.add_column(name, justify="right")
    for row in class_rows(model, evaluation):
        table.add_row(*row)
    return table


def print_json(training: Training, files: Mapping[str, str]) -> None:
    """Print a training as one JSON object; `files` are the paths of what is written."""
    fit = training.fit
    record: dict[str, Any] = {
        **as_metadata(training),
        "seconds": fit.seconds,
        "samples_per_second": training.samples_per_second,
        "isa": training.isa,
        "threads": training.threads,
        "loss_curve": fit.loss_curve,
        "validation_curve": fit.validation_curve,
        "interrupted": fit.interrupted,
        **files,
    }
    print(json.dumps(record))


def as_metadata(training: Training) -> dict[str, Any]:
    """Return how a model came about, for its file: what was asked for and what came out, without timings."""
    fit, options = training.fit, training.options
    return {
        "data": training.data.name,
        "n_features": fit.model.n_features,
        "classes": fit.model.classes.tolist(),
        "options": vars(options),
        "iterations": len(fit.loss_curve),
        "converged": fit.converged,
        **{part: evaluation_record(evaluation) for part, evaluation in training.evaluations.items()},
    }


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """Return the numbers of an evaluation."""
    return {
        "samples": evaluation.samples,
        "accuracy": evaluation.accuracy,
        "nll": evaluation.nll,
        "kl": evaluation.kl,
        "entropy": evaluation.entropy,
        "calibration_error": evaluation.reliability.expected_error,
    }


def class_records(model: TrainedModel, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the scores of the classes."""
    scores = class_scores(evaluation)
    columns = (scores.precision, scores.recall, scores.f1, scores.support)
    return [
        {"class": label, "precision": precision, "recall": recall, "f1": f1, "samples": support}
        for label, precision, recall, f1, support in zip(
            model.classes.tolist(), *(column.tolist() for column in columns), strict=True
        )
    ]
