"""The commands and what is common to them."""

from __future__ import annotations

from typing import Annotated

import typer

import mlefast as mf
from mlefast.cli.bench import bench
from mlefast.cli.evaluate import evaluate
from mlefast.cli.info import info
from mlefast.cli.predict import predict
from mlefast.cli.train import train

app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(bench)
app.command()(info)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlefast {mf.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Maximum likelihood estimation with softmax models."""
