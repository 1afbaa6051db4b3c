"""``mlefast train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import BadParameter, Context, Option

import mlefast as mf
from mlefast import data as datasets
from mlefast import model_file
from mlefast._files import one_line
from mlefast.cli import report
from mlefast.cli.evaluation import check_labels, evaluate
from mlefast.cli.fitting import Fit, FitOptions, fit, split
from mlefast.cli.options import (
    DATA,
    FIT,
    NETWORK,
    OUTPUT,
    Corrupt,
    Data,
    Json,
    Plot,
    Report,
    Target,
    Threads,
    check_drawings,
    check_not_input,
    image_size,
    layer_sizes,
    not_negative,
    open_data,
    positive,
    share,
    use_threads,
)

_INTERRUPTED = 130  # as the whole command line has it
_BATCH_SIZE = 128  # the estimators' own
_OF_LINEAR_MODELS = {"penalty": "--penalty", "C": "-C", "l1_ratio": "--l1-ratio"}
_OF_NETWORKS = {
    "hidden": "--hidden",
    "activation": "--activation",
    "dropout": "--dropout",
    "weight_decay": "--weight-decay",
}
_OF_DESCENT = {
    "early_stopping": "--early-stopping",
    "schedule": "--schedule",
    "batch_size": "--batch-size",
    "learning_rate": "--learning-rate",
}


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
    corrupt: Corrupt = "fail",
    stream: Annotated[
        bool,
        Option(
            "--stream",
            help="Read the data in parts in every epoch, for data larger than memory: .parquet, .npy, .csv, pictures.",
            rich_help_panel=DATA,
        ),
    ] = False,
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
        Literal["lbfgs", "newton-cg", "sgd", "adamw"] | None,
        Option(help="Minimiser of the objective; lbfgs by default, adamw for mlp and --stream.", rich_help_panel=FIT),
    ] = None,
    penalty: Annotated[
        Literal["l2", "l1", "elasticnet", "none"],
        Option(help="Prior of a linear model: Gaussian, Laplace, both, or none.", rich_help_panel=FIT),
    ] = "l2",
    C: Annotated[
        float, Option("-C", "--C", callback=positive, help="Variance of the prior; large is weak.", rich_help_panel=FIT)
    ] = 1.0,
    l1_ratio: Annotated[
        float, Option(min=0.0, max=1.0, help="Share of l1 in the penalty elasticnet.", rich_help_panel=FIT)
    ] = 0.5,
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
    schedule: Annotated[
        Literal["constant", "cosine", "invscaling", "adaptive"],
        Option(help="How the step size of sgd or adamw changes from epoch to epoch.", rich_help_panel=FIT),
    ] = "constant",
    early_stopping: Annotated[
        bool,
        Option(
            "--early-stopping",
            help="sgd, adamw: set a tenth of the training samples aside and keep what is best for them.",
            rich_help_panel=FIT,
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="Save the state of the fit there after every iteration.", rich_help_panel=FIT),
    ] = None,
    resume: Annotated[
        bool,
        Option("--resume", help="Go on from --checkpoint, if there is one, to the same model.", rich_help_panel=FIT),
    ] = False,
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
    threads: Threads = None,
    save: Annotated[
        Path | None, Option(metavar="MODEL", help="Write the model: .npz or .safetensors.", rich_help_panel=OUTPUT)
    ] = None,
    plot: Plot = None,
    page: Report = None,
    as_json: Json = False,
    quiet: Annotated[bool, Option("--quiet", help="Print only errors and --json.", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Fit a softmax classifier, linear or deep, by maximum likelihood and report how well it explains the labels.

    Ctrl-C ends a fit early: what there is of the model is evaluated and written, and the exit status is 130.
    """
    size = image_size(picture_size)
    if save is not None:
        model_file.check_target(save)
        check_not_input(save, (data, test), "--save")
    check_drawings(plot, page, (data, test))
    options = FitOptions(
        solver or ("lbfgs" if model == "linear" and not stream else "adamw"),
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
        l1_ratio,
        schedule,
    )
    given = {name for name in context.params if _is_given(context, name)}
    _check_options(options, given, stream=stream)
    if resume and checkpoint is None:
        raise BadParameter("is for --checkpoint.", param_hint="--resume")
    with use_threads(threads):
        parts = _load(data, test, 0 if stream else test_size, seed, target, size, corrupt, options if stream else None)
        fitted = _fit(parts["train"], options, checkpoint, resume, show_progress=not (quiet or as_json))
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
        files = {"model": save, "plot": plot, "report": page}
        report.print_json(training, {option: str(path) for option, path in files.items() if path})
    elif not quiet:
        report.print_training(training)
    if plot is not None or page is not None:
        _draw(training, plot, page)
    if fitted.interrupted:
        raise typer.Exit(_INTERRUPTED)


def _is_given(context: Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_options(options: FitOptions, given: set[str], *, stream: bool) -> None:
    """Refuse what would silently do nothing, or cannot be done."""
    wrong, of = (_OF_NETWORKS, "mlp") if options.model == "linear" else (_OF_LINEAR_MODELS, "linear")
    for name in given & wrong.keys():
        raise BadParameter(f"is for --model {of}.", param_hint=wrong[name])
    if options.unit == "iteration":
        if options.model == "mlp":
            message = f"{options.solver} is for --model linear; networks take adamw or sgd."
            raise BadParameter(message, param_hint="--solver")
        if stream:
            message = f"{options.solver} needs all data at once; --stream takes adamw or sgd."
            raise BadParameter(message, param_hint="--solver")
        for name in given & _OF_DESCENT.keys():
            raise BadParameter("is for --solver sgd and adamw.", param_hint=_OF_DESCENT[name])
    if options.solver == "newton-cg" and options.penalty in ("l1", "elasticnet"):
        message = f"newton-cg takes no penalty {options.penalty}, which has kinks; lbfgs, sgd and adamw do."
        raise BadParameter(message, param_hint="--solver")
    if "l1_ratio" in given and options.penalty != "elasticnet":
        raise BadParameter("is for --penalty elasticnet.", param_hint="--l1-ratio")
    if stream and options.early_stopping:
        raise BadParameter("sets samples aside, which --stream does not.", param_hint="--early-stopping")
    if stream and "test_size" in given:
        raise BadParameter("sets samples aside, which --stream does not: use --test.", param_hint="--test-size")


def _load(
    source: str,
    test: str | None,
    test_size: float,
    seed: int,
    target: str | None,
    size: tuple[int, int] | None,
    corrupt: Literal["fail", "skip"],
    streamed: FitOptions | None,
) -> dict[str, datasets.Dataset | datasets.Stream]:
    data: datasets.Dataset | datasets.Stream
    if streamed is not None:
        batch_size = streamed.batch_size or _BATCH_SIZE
        data = datasets.open_stream(source, batch_size=batch_size, target=target, image_size=size, corrupt=corrupt)
    else:
        data = datasets.load(source, target=target, image_size=size, corrupt=corrupt)
        if test is None and test_size > 0:
            return dict(zip(("train", "test"), split(data, test_size, seed), strict=True))
    if test is None:
        return {"train": data}
    test_data = open_data(test, target=target, corrupt=corrupt, like=data)
    check_labels(datasets.training_labels(data), test_data)  # a wrong label is to be found before the fit
    return {"train": data, "test": test_data}


def _fit(
    data: datasets.Dataset | datasets.Stream,
    options: FitOptions,
    checkpoint: Path | None,
    resume: bool,
    *,
    show_progress: bool,
) -> Fit:
    try:
        with report.progress(options, wanted=show_progress) as callback:
            return fit(data, options, callback, checkpoint=checkpoint, resume=resume)
    except FloatingPointError as error:  # descent has diverged; the message says which learning rate was too large
        raise BadParameter(one_line(error), param_hint="--learning-rate") from error


def _draw(training: report.Training, plot: Path | None, page: Path | None) -> None:
    from mlefast.cli import html_report, plots

    part, evaluation = list(training.evaluations.items())[-1]
    options = training.options
    kind = "linear" if options.model == "linear" else "deep"
    drawings = plots.Drawings.of_training(
        f"{training.data.name}: {kind} softmax model, fitted by maximum likelihood",
        training.fit,
        part,
        evaluation,
        unit=options.unit,
        standardized=options.standardize,
    )
    if plot is not None:
        drawings.write(plot)
    if page is not None:
        html_report.Report.of_training(training, drawings).write(page)
