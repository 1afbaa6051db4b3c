"""``mlefast train``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from typer import BadParameter, Option

import mlefast as mf
from mlefast import data as datasets
from mlefast import model_file
from mlefast._files import one_line, open_atomically
from mlefast.cli import report
from mlefast.cli.evaluation import class_indices, evaluate
from mlefast.cli.fitting import Fit, FitOptions, fit, split
from mlefast.cli.options import (
    DATA,
    FIT,
    OUTPUT,
    Data,
    Target,
    Threads,
    check_not_input,
    check_output,
    image_size,
    not_negative,
    positive,
    require,
    use_threads,
)

_PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def train(
    data: Data,
    target: Target = None,
    test: Annotated[
        str | None, Option(metavar="DATA", help="Test on this, not on a part of the data.", rich_help_panel=DATA)
    ] = None,
    test_size: Annotated[
        float, Option(min=0.0, max=0.99, help="Share of each class to test on; 0: none.", rich_help_panel=DATA)
    ] = 0.25,
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Of the split and of sgd.", rich_help_panel=DATA)] = 0,
    picture_size: Annotated[
        str | None,
        Option("--image-size", metavar="SIZE", help="Of pictures: 28 or 32x24 (width, height).", rich_help_panel=DATA),
    ] = None,
    standardize: Annotated[
        bool,
        Option(
            help="Scale features to mean 0 (unless sparse) and standard deviation 1; the model takes unscaled ones.",
            rich_help_panel=DATA,
        ),
    ] = True,
    solver: Annotated[
        Literal["lbfgs", "sgd"], Option(help="Minimiser of the objective.", rich_help_panel=FIT)
    ] = "lbfgs",
    penalty: Annotated[Literal["l2", "none"], Option(help="Gaussian prior, or none.", rich_help_panel=FIT)] = "l2",
    C: Annotated[
        float, Option("-C", "--C", callback=positive, help="Variance of the prior; large is weak.", rich_help_panel=FIT)
    ] = 1.0,
    max_iter: Annotated[int, Option(min=1, help="Most iterations, or epochs of sgd.", rich_help_panel=FIT)] = 200,
    tol: Annotated[
        float,
        Option(callback=not_negative, help="Stop at this gradient; sgd: at this gain.", rich_help_panel=FIT),
    ] = 1e-4,
    batch_size: Annotated[
        int | None, Option(metavar="N", min=1, help="Samples in a step of sgd.", rich_help_panel=FIT)
    ] = None,
    learning_rate: Annotated[
        float | None, Option(metavar="RATE", callback=positive, help="Step size of sgd.", rich_help_panel=FIT)
    ] = None,
    threads: Threads = None,
    save: Annotated[
        Path | None, Option(metavar="MODEL", help="Write the model: .npz or .safetensors.", rich_help_panel=OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None,
        Option(
            metavar="FILE.png", help="Draw loss, confusion and weights: .png, .pdf or .svg.", rich_help_panel=OUTPUT
        ),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of tables.", rich_help_panel=OUTPUT)] = False,
    quiet: Annotated[bool, Option("--quiet", help="Print only errors and --json.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Fit a linear softmax classifier by maximum likelihood and report how well it explains the labels."""
    size = image_size(picture_size)
    _check_targets(save, plot, (data, test))
    options = FitOptions(solver, penalty, C, max_iter, tol, batch_size, learning_rate, standardize, seed)
    with use_threads(threads):
        parts = _load(data, test, test_size, seed, target, size)
        fitted = _fit(parts["train"], options, show_progress=not (quiet or as_json))
        training = report.Training(
            parts["train"],
            options,
            fitted,
            {part: evaluate(fitted.model, each) for part, each in parts.items()},
            str(mf.show_config()["isa"]),
            mf.get_num_threads(),
        )
    if save is not None:
        model_file.save(save, replace(fitted.model, metadata=report.as_metadata(training)))
    if as_json:
        report.print_json(training, {option: str(path) for option, path in (("model", save), ("plot", plot)) if path})
    elif not quiet:
        report.print_training(training)
    if plot is not None:
        _write_plot(plot, training)


def _check_targets(save: Path | None, plot: Path | None, inputs: Iterable[str | None]) -> None:
    """Refuse what could not be written at the end, before the time for a fit is spent."""
    if save is not None:
        model_file.check_target(save)
        check_not_input(save, inputs, "--save")
    if plot is not None:
        check_output(plot, _PLOT_SUFFIXES, "--plot")
        check_not_input(plot, inputs, "--plot")
        require("matplotlib", "cli", "--plot")


def _load(
    source: str, test: str | None, test_size: float, seed: int, target: str | None, size: tuple[int, int] | None
) -> dict[str, datasets.Dataset]:
    data = datasets.load(source, target=target, image_size=size)
    if test is not None:
        test_data = datasets.load(test, target=target, like=data)
        # A wrong label is to be found before the fit.
        class_indices(np.unique(datasets.training_labels(data)), test_data)
        return {"train": data, "test": test_data}
    if test_size == 0:
        return {"train": data}
    return dict(zip(("train", "test"), split(data, test_size, seed), strict=True))


def _fit(data: datasets.Dataset, options: FitOptions, *, show_progress: bool) -> Fit:
    try:
        with report.progress(options.solver, options.max_iter, wanted=show_progress) as callback:
            return fit(data, options, callback)
    except FloatingPointError as error:  # sgd has diverged; the message says which learning rate was too large
        raise BadParameter(one_line(error), param_hint="--learning-rate") from error


def _write_plot(path: Path, training: report.Training) -> None:
    from mlefast.cli import plots

    part, evaluation = list(training.evaluations.items())[-1]
    options = training.options
    figure = plots.draw_training(
        f"{training.data.name}: linear softmax model, fitted by maximum likelihood",
        training.fit,
        part,
        evaluation,
        solver=options.solver,
        standardized=options.standardize,
    )
    try:
        with open_atomically(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a character that the font lacks is drawn as a box
            figure.savefig(file, format=path.suffix[1:])
    except OSError as error:
        raise BadParameter(f"{path} cannot be written: {one_line(error)}.", param_hint="--plot") from error
