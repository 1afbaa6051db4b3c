"""Options that several commands have, and the checks of their values."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

import mlefast as mf
from mlefast import data as datasets
from mlefast._files import check_writable, one_line, open_atomically

DATA, FIT, NETWORK, OUTPUT = (
    "Data",
    "Fit",
    "Network (--model mlp)",
    "Output",
)  # the groups of options in a command's help

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help=(
            "digits, iris, wine or breast_cancer; a .csv, .parquet, .npy, .npz, .svm or MNIST file; a folder of "
            "pictures."
        ),
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column, array of an .npz file, or file beside an .npy file, that holds the labels.",
        rich_help_panel=DATA,
    ),
]
Corrupt = Annotated[
    Literal["fail", "skip"],
    typer.Option(help="A picture that cannot be read is an error, or is left out and named.", rich_help_panel=DATA),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png",
        help="Draw loss, confusion, reliability and weights: .png, .pdf or .svg.",
        rich_help_panel=OUTPUT,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write tables and plots as one page.", rich_help_panel=OUTPUT),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=OUTPUT)]
Threads = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=2**15, help="Threads; all by default.", rich_help_panel=FIT)
]


def positive(value: float | None) -> float | None:
    """Accept a finite number above 0."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a finite number above 0.")
    return value


def not_negative(value: float) -> float:
    """Accept a finite number from 0."""
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"{value} is not a finite number from 0.")
    return value


def share(value: float) -> float:
    """Accept a number from 0 to 1, but not 1."""
    if not 0 <= value < 1:
        raise typer.BadParameter(f"{value} is not a number from 0 and below 1.")
    return value


def layer_sizes(text: str) -> tuple[int, ...]:
    """Turn ``256,128`` into the sizes of layers; nothing at all is none."""
    sizes = text.split(",") if text.strip() else []
    if not all(re.fullmatch(r"\s*[1-9]\d{0,6}\s*", size) for size in sizes):
        raise typer.BadParameter(f"{text!r} is no list of units such as 256,128.", param_hint="--hidden")
    return tuple(map(int, sizes))


def image_size(text: str | None) -> tuple[int, int] | None:
    """Turn ``WIDTHxHEIGHT``, or one number for both, into height and width."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size such as 28 or 32x24.", param_hint="--image-size")
    width, height = match[1], match[2] or match[1]
    return int(height), int(width)


def open_data(
    source: str,
    *,
    target: str | None = None,
    corrupt: Literal["fail", "skip"] = "fail",
    like: datasets.Layout,
) -> datasets.Dataset | datasets.Stream:
    """Open data for a model that is there: in parts, if they can be read so, however large they are."""
    read = datasets.open_stream if datasets.can_stream(source) else datasets.load
    return read(source, target=target, corrupt=corrupt, like=like)


def check_output(path: Path, suffixes: tuple[str, ...], option: str) -> None:
    """Find out whether a file can be written before there is something to lose."""
    if path.suffix not in suffixes:
        raise typer.BadParameter(f"{path} is none of {', '.join(suffixes)}.", param_hint=option)
    try:
        check_writable(path)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {one_line(error)}.", param_hint=option) from error


def check_drawings(plot: Path | None, report: Path | None, inputs: Iterable[str | Path | None]) -> None:
    """Refuse plots and reports that could not be written at the end."""
    for path, suffixes, option in ((plot, (".png", ".pdf", ".svg"), "--plot"), (report, (".html",), "--report")):
        if path is not None:
            check_output(path, suffixes, option)
            check_not_input(path, inputs, option)
            require("matplotlib", "cli", option)
    if report is not None:
        require("jinja2", "cli", "--report")


def check_not_input(path: Path, inputs: Iterable[str | Path | None], option: str) -> None:
    """Refuse to replace a file that is being read."""
    if path.exists() and any(each and Path(each).exists() and path.samefile(each) for each in inputs):
        raise typer.BadParameter(f"{path} is also read; it would be replaced.", param_hint=option)


def write_output(path: Path, content: bytes, option: str) -> None:
    """Write a file whole or not at all."""
    try:
        with open_atomically(path) as file:
            file.write(content)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {one_line(error)}.", param_hint=option) from error


def require(library: str, extra: str, option: str) -> None:
    """Find out whether an optional library is there before it is needed."""
    if importlib.util.find_spec(library) is None:
        raise typer.BadParameter(f'needs {library}: pip install "mlefast[{extra}]"', param_hint=option)


@contextmanager
def use_threads(threads: int | None) -> Iterator[None]:
    """Limit the kernels, and NumPy's matrix products, to a number of threads."""
    if threads is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    mf.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        mf.set_num_threads(None)
