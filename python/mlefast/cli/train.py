"""``mlefast train``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from typer import BadParameter, Context, Option

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
    NETWORK,
    OUTPUT,
    Data,
    Target,
    Threads,
    check_not_input,
    check_output,
    image_size,
    layer_sizes,
    not_negative,
    positive,
    require,
    share,
    use_threads,
)

_OF_LINEAR_MODELS = {"penalty": "--penalty", "C": "-C"}
_OF_NETWORKS = {
    "hidden": "--hidden",
    "activation": "--activation",
    "dropout": "--dropout",
    "weight_decay": "--weight-decay",
    "early_stopping": "--early-stopping",
}
_PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def train(
    context: Context,
    data: Data,
    target: Target = None,
    test: Annotated[
        str | None, Option(metavar="DATA", help="Test on this, not on a part of the data.", rich_help_panel=DATA)
    ] = None,
    test_size: Annotated[
        float, Option(min=0.0, max=0.99, help="Share of each class to test on; 0: none.", rich_help_panel=DATA)
    ] = 0.25,
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Of the split, sgd and adamw.", rich_help_panel=DATA)] = 0,
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
    model: Annotated[
        Literal["linear", "mlp"], Option(help="Linear, or a network with hidden layers.", rich_help_panel=FIT)
    ] = "linear",
    solver: Annotated[
        Literal["lbfgs", "sgd", "adamw"] | None,
        Option(help="Minimiser of the objective; lbfgs by default, adamw for mlp.", rich_help_panel=FIT),
    ] = None,
    penalty: Annotated[
        Literal["l2", "none"], Option(help="Gaussian prior of a linear model, or none.", rich_help_panel=FIT)
    ] = "l2",
    C: Annotated[
        float, Option("-C", "--C", callback=positive, help="Variance of the prior; large is weak.", rich_help_panel=FIT)
    ] = 1.0,
    max_iter: Annotated[
        int, Option(min=1, help="Most iterations, or epochs of sgd and adamw.", rich_help_panel=FIT)
    ] = 200,
    tol: Annotated[
        float,
        Option(callback=not_negative, help="Stop at this gradient; sgd, adamw: at this gain.", rich_help_panel=FIT),
    ] = 1e-4,
    batch_size: Annotated[
        int | None, Option(metavar="N", min=1, help="Samples in a step of sgd or adamw.", rich_help_panel=FIT)
    ] = None,
    learning_rate: Annotated[
        float | None, Option(metavar="RATE", callback=positive, help="Step size of sgd or adamw.", rich_help_panel=FIT)
    ] = None,
    hidden: Annotated[
        str, Option(metavar="UNITS", help="Units of each hidden layer, such as 256,128.", rich_help_panel=NETWORK)
    ] = "100",
    activation: Annotated[
        Literal["relu", "gelu", "tanh", "identity"], Option(help="Of hidden units.", rich_help_panel=NETWORK)
    ] = "relu",
    dropout: Annotated[
        float, Option(callback=share, help="Share of hidden units silenced in a step.", rich_help_panel=NETWORK)
    ] = 0.0,
    weight_decay: Annotated[
        float,
        Option(callback=not_negative, help="Of adamw; the strength of the prior of sgd.", rich_help_panel=NETWORK),
    ] = 1e-4,
    early_stopping: Annotated[
        bool,
        Option(
            "--early-stopping",
            help="Set a tenth of the training samples aside and keep what is best for them.",
            rich_help_panel=NETWORK,
        ),
    ] = False,
    threads: Threads = None,
    save: Annotated[
        Path | None, Option(metavar="MODEL", help="Write the model: .npz or .safetensors.", rich_help_panel=OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None,
        Option(
            metavar="FILE.png",
            help="Draw loss, confusion, weights (mlp: reliability): .png, .pdf or .svg.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of tables.", rich_help_panel=OUTPUT)] = False,
    quiet: Annotated[bool, Option("--quiet", help="Print only errors and --json.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Fit a softmax classifier, linear or deep, by maximum likelihood and report how well it explains the labels."""
    size = image_size(picture_size)
    _check_targets(save, plot, (data, test))
    _check_model(context, model, solver)
    options = FitOptions(
        solver or ("lbfgs" if model == "linear" else "adamw"),
        penalty,
        C,
        max_iter,
        tol,
        batch_size,
        learning_rate,
        standardize,
        seed,
        model,
        layer_sizes(hidden),
        activation,
        dropout,
        weight_decay,
        early_stopping,
    )
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


def _check_model(context: Context, model: str, solver: str | None) -> None:
    """Refuse options of the other kind of model, which would silently do nothing."""
    wrong, of = (_OF_NETWORKS, "mlp") if model == "linear" else (_OF_LINEAR_MODELS, "linear")
    for parameter, option in wrong.items():
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE":
            raise BadParameter(f"is for --model {of}.", param_hint=option)
    if model == "mlp" and solver == "lbfgs":
        raise BadParameter("lbfgs is for --model linear; networks take adamw or sgd.", param_hint="--solver")


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
    except FloatingPointError as error:  # descent has diverged; the message says which learning rate was too large
        raise BadParameter(one_line(error), param_hint="--learning-rate") from error


def _write_plot(path: Path, training: report.Training) -> None:
    from mlefast.cli import plots

    part, evaluation = list(training.evaluations.items())[-1]
    options = training.options
    kind = "linear" if options.model == "linear" else "deep"
    figure = plots.draw_training(
        f"{training.data.name}: {kind} softmax model, fitted by maximum likelihood",
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
