"""``mlefast predict``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO

import numpy as np
import numpy.typing as npt
import typer

from mlefast import data as datasets
from mlefast import model_file
from mlefast._files import one_line, open_atomically, write_npz
from mlefast.cli.evaluation import evaluate
from mlefast.cli.options import (
    Corrupt,
    Data,
    Target,
    Threads,
    check_not_input,
    check_output,
    open_data,
    require,
    use_threads,
)
from mlefast.cli.report import evaluation_table, new_console

_OUTPUT_SUFFIXES = (".csv", ".npz", ".parquet")


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A file that mlefast train --save wrote.")],
    data: Data,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help=".csv, .npz or .parquet; else CSV on standard output."),
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="Add the probability of each class.")] = False,
    score: Annotated[
        bool, typer.Option("--score", help="Print accuracy and likelihood on standard error; needs labels.")
    ] = False,
    target: Target = None,
    corrupt: Corrupt = "fail",
    threads: Threads = None,
) -> None:
    """Predict the classes of samples, which may be larger than memory, with a trained model."""
    if output is not None:
        check_output(output, _OUTPUT_SUFFIXES, "--output")
        check_not_input(output, (model, data), "--output")
        if output.suffix == ".parquet":
            require("pyarrow", "data", "--output")
    trained = model_file.load(model)
    samples = open_data(data, target=target, corrupt=corrupt, like=trained)
    with use_threads(threads):
        if score:
            _print_score(trained, samples)
        batches = samples.batches() if isinstance(samples, datasets.Stream) else iter([samples])
        predictions = (_predict(trained, batch, proba) for batch in batches)
        if output is None:
            _write_csv(predictions, sys.stdout)
        else:
            _write_file(predictions, output)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted labels (N,), if asked for the probabilities (N, C) of the classes (C,), and names of pictures (N,)."""

    labels: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None
    classes: npt.NDArray[Any]
    sample_names: tuple[str, ...] | None

    def columns(self) -> dict[str, list[Any]]:
        """Return a table's columns by name."""
        columns: dict[str, list[Any]] = {}
        if self.sample_names is not None:
            columns["file"] = list(self.sample_names)
        columns["prediction"] = self.labels.tolist()
        if self.probabilities is not None:
            for label, column in zip(self.classes, self.probabilities.T, strict=True):
                columns[f"P({label})"] = column.tolist()
        return columns

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return an archive's arrays by name."""
        arrays = {"prediction": self.labels}
        if self.sample_names is not None:
            arrays["files"] = np.array(self.sample_names)  # np.savez cannot be given one named "file"
        if self.probabilities is not None:
            arrays["probabilities"] = self.probabilities
        return arrays


def _predict(model: model_file.TrainedModel, samples: datasets.Dataset, proba: bool) -> Predictions:
    probabilities = model.predict_proba(samples.X) if proba else None
    return Predictions(model.predict(samples.X), probabilities, model.classes, samples.sample_names)


def _print_score(model: model_file.TrainedModel, samples: datasets.Dataset | datasets.Stream) -> None:
    new_console(stderr=True).print(evaluation_table({samples.name: evaluate(model, samples)}))


def _write_csv(predictions: Iterable[Predictions], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    for i, some in enumerate(predictions):
        columns = some.columns()
        if i == 0:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _write_file(predictions: Iterator[Predictions], path: Path) -> None:
    try:
        with open_atomically(path) as file:
            _write(predictions, path.suffix, file)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {one_line(error)}.", param_hint="--output") from error


def _write(predictions: Iterator[Predictions], suffix: str, file: BinaryIO) -> None:
    if suffix == ".npz":
        parts = list(predictions)
        every = [part.arrays() for part in parts]
        arrays: dict[str, Any] = {name: np.concatenate([each[name] for each in every]) for name in every[0]}
        if parts[0].probabilities is not None:
            arrays["classes"] = parts[0].classes
        write_npz(file, arrays)
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = (pa.table(some.columns()) for some in predictions)
        first = next(tables)
        with pq.ParquetWriter(file, first.schema) as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
    else:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        _write_csv(predictions, text)
        text.detach()  # flushes, and leaves the file open for whoever opened it
