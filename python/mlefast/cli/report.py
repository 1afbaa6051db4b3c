"""What is shown of a training or an evaluation: progress, tables, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlefast.cli.evaluation import Evaluation
from mlefast.cli.fitting import Fit, FitOptions
from mlefast.data import Dataset
from mlefast.model_file import NetworkModel

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, eq=False)
class Training:
    """Everything that is reported of a training."""

    data: Dataset
    options: FitOptions
    fit: Fit
    evaluations: Mapping[str, Evaluation]
    isa: str
    threads: int

    @property
    def samples_per_second(self) -> float:
        """Samples that were seen in all iterations, per second of the fit."""
        return self.data.n_samples * len(self.fit.loss_curve) / self.fit.seconds


@contextmanager
def progress(solver: str, max_iter: int, *, wanted: bool) -> Iterator[Callable[[int, float], None]]:
    """Show the progress of a fit, if wanted and if standard error is a terminal; yield the estimator's callback."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda iteration, objective: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    unit = "iterations" if solver == "lbfgs" else "epochs"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("objective {task.fields[objective]:.6f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=new_console(stderr=True), transient=True) as bar:
        task = bar.add_task(solver, total=max_iter, objective=float("nan"))
        yield lambda iteration, objective: bar.update(task, completed=iteration, objective=objective)


def print_training(training: Training) -> None:
    """Print a training as tables."""
    from rich.table import Table

    data, fit, options = training.data, training.fit, training.options
    facts = Table("", "", title=f"mlefast train {data.name}", title_justify="left", show_header=False)
    facts.add_row("samples", ", ".join(f"{e.samples} {part}" for part, e in training.evaluations.items()))
    facts.add_row("features", _features(data))
    facts.add_row("classes", str(len(fit.model.classes)))
    if isinstance(fit.model, NetworkModel):
        facts.add_row("network", _network(fit.model))
    ending = "converged" if fit.converged else "not converged: raise --max-iter"
    if fit.interrupted:
        ending = "interrupted: the model so far is kept"
    facts.add_row("fit", f"{options.solver}, {iterations(fit, options)} in {fit.seconds:.3g} s, {ending}")
    facts.add_row("samples per second", f"{training.samples_per_second:,.0f}")
    facts.add_row("instruction set", training.isa)
    facts.add_row("threads", str(training.threads))
    console = new_console()
    console.print(facts)
    console.print(evaluation_table(training.evaluations))


def iterations(fit: Fit, options: FitOptions) -> str:
    """Say how many iterations (of sgd and adamw: epochs) there were."""
    number = len(fit.loss_curve)
    unit = "iteration" if options.solver == "lbfgs" else "epoch"
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def new_console(*, stderr: bool = False) -> Console:
    """Make a console that takes text literally: names of files and classes may look like markup."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def evaluation_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """Make a table with a column for each evaluation, in which NLL = KL + H can be checked by eye."""
    from rich.table import Table

    table = Table("")
    for part in evaluations:
        table.add_column(part, justify="right")
    table.add_row("accuracy", *(f"{e.accuracy:.4f}" for e in evaluations.values()))
    table.add_row("negative log-likelihood (nats per sample)", *(f"{e.nll:.6f}" for e in evaluations.values()))
    table.add_row("= KL(labels || model)", *(f"{e.kl:.6f}" for e in evaluations.values()))
    table.add_row("+ entropy of the labels", *(f"{e.entropy:.6f}" for e in evaluations.values()))
    errors = (f"{e.reliability.expected_error:.4f}" for e in evaluations.values())
    table.add_row("expected calibration error", *errors)
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
        **{
            part: {
                "samples": e.samples,
                "accuracy": e.accuracy,
                "nll": e.nll,
                "kl": e.kl,
                "entropy": e.entropy,
                "calibration_error": e.reliability.expected_error,
            }
            for part, e in training.evaluations.items()
        },
    }


def _network(model: NetworkModel) -> str:
    units = [model.n_features, *(len(intercept) for intercept in model.intercepts)]
    parameters = sum(part.size for part in (*model.coefs, *model.intercepts))
    return f"{' - '.join(map(str, units))} units, {model.activation}, {parameters:,} parameters"


def _features(data: Dataset) -> str:
    if data.image_shape is None:
        return str(data.n_features)
    return f"{data.n_features} ({' x '.join(map(str, data.image_shape))} image)"
