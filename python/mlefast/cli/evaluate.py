"""``mlefast evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mlefast import model_file
from mlefast.cli import report
from mlefast.cli.evaluation import evaluate as evaluate_model
from mlefast.cli.options import (
    Corrupt,
    Data,
    Json,
    Plot,
    Report,
    Target,
    Threads,
    check_drawings,
    open_data,
    use_threads,
)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A file that mlefast train --save wrote.")],
    data: Data,
    target: Target = None,
    corrupt: Corrupt = "fail",
    threads: Threads = None,
    plot: Plot = None,
    page: Report = None,
    as_json: Json = False,
) -> None:
    """Compare a trained model's predictions with the labels of data, which may be larger than memory."""
    check_drawings(plot, page, (model, data))
    trained = model_file.load(model)
    samples = open_data(data, target=target, corrupt=corrupt, like=trained)
    with use_threads(threads):
        evaluation = evaluate_model(trained, samples)
    if as_json:
        files = {"plot": plot, "report": page}
        record = {
            "model": str(model),
            "data": samples.name,
            **report.evaluation_record(evaluation),
            "classes": report.class_records(trained, evaluation),
            "confusion": evaluation.confusion.tolist(),
            **{option: str(path) for option, path in files.items() if path},
        }
        print(json.dumps(record))
    else:
        facts = {"model": str(model), "samples": str(evaluation.samples), **report.model_facts(trained)}
        report.print_tables(f"mlefast evaluate {samples.name}", facts, {"data": evaluation})
        report.new_console().print(report.class_table(trained, evaluation))
    if plot is None and page is None:
        return
    from mlefast.cli import html_report, plots

    drawings = plots.Drawings.of_evaluation(f"{model.name} on {samples.name}", trained, "data", evaluation)
    if plot is not None:
        drawings.write(plot)
    if page is not None:
        html_report.Report.of_evaluation(model, samples.name, evaluation, drawings).write(page)
