"""``mlefast bench``."""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import BadParameter, Exit, Option

import mlefast as mf
from mlefast._files import one_line, open_atomically
from mlefast.cli.options import OUTPUT, check_not_input, check_output, require
from mlefast.cli.report import new_console

if TYPE_CHECKING:
    from mlefast.bench import Plan, Report

WHAT, HOW = "What", "How"  # groups of options in the help
_PLOT_SUFFIXES = (".png", ".pdf", ".svg")
_KERNELS = "cross_entropy_and_grad,cross_entropy"
_SHAPES = "1000000x10,8192x1000,1024x32000,256x128256"
_SWEEP = "2..1000000"
_SWEEP_ELEMENTS = 1 << 23
_REGRESSION = 1  # exit status


def bench(
    kernel: Annotated[
        str,
        Option(
            metavar="NAMES",
            help="Functions, separated by commas; also patterns such as '*_and_grad', or all.",
            rich_help_panel=WHAT,
        ),
    ] = _KERNELS,
    shape: Annotated[
        str, Option(metavar="NxC,...", help="Rows x classes of the logits.", rich_help_panel=WHAT)
    ] = _SHAPES,
    sweep: Annotated[
        bool, Option("--sweep", help=f"Many numbers of classes, {_SWEEP}, in place of shapes.", rich_help_panel=WHAT)
    ] = False,
    classes: Annotated[
        str | None, Option(metavar="LOW..HIGH", help="Range of --sweep, which it implies.", rich_help_panel=WHAT)
    ] = None,
    dtype: Annotated[
        str, Option(metavar="NAMES", help="Dtypes of the logits; or all.", rich_help_panel=WHAT)
    ] = "float32",
    variant: Annotated[
        str,
        Option(metavar="NAMES", help="Where results go: fresh, out, inplace, or all.", rich_help_panel=WHAT),
    ] = "all",
    peers: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help="Libraries to compare with: names, all or none. Those installed; with --sweep none.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    threads: Annotated[
        str | None, Option(metavar="N,...", help="Threads, for peers as well; all by default.", rich_help_panel=HOW)
    ] = None,
    isa: Annotated[
        str | None, Option(metavar="NAMES", help="Instruction sets of the kernels; or all.", rich_help_panel=HOW)
    ] = None,
    backend: Annotated[
        Literal["numpy", "cupy"], Option(help="Where the arrays are: cupy is a CUDA device.", rich_help_panel=HOW)
    ] = "numpy",
    cache: Annotated[
        Literal["auto", "warm", "cold"],
        Option(help="Arrays in cache or in memory; auto: in cache if they fit well.", rich_help_panel=HOW),
    ] = "auto",
    samples: Annotated[int, Option(min=3, max=10_000, help="The most of each contestant.", rich_help_panel=HOW)] = 30,
    seconds: Annotated[
        float, Option(min=0.01, max=3600, help="About how long a case may take.", rich_help_panel=HOW)
    ] = 2.0,
    json: Annotated[
        Path | None, Option(metavar="FILE", help="Write everything, with every sample.", rich_help_panel=OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None, Option(metavar="FILE.png", help="Draw it: .png, .pdf or .svg.", rich_help_panel=OUTPUT)
    ] = None,
    compare: Annotated[
        Path | None,
        Option(metavar="OLD.json", help="Tell regressions from noise; exit status 1 if any.", rich_help_panel=OUTPUT),
    ] = None,
    effect: Annotated[
        float, Option(min=0, max=100, help="Least change that counts, in percent.", rich_help_panel=OUTPUT)
    ] = 5.0,
    load: Annotated[
        Path | None, Option(metavar="FILE.json", help="Measure nothing: show a file.", rich_help_panel=OUTPUT)
    ] = None,
    quiet: Annotated[
        bool, Option("--quiet", help="Print only errors and regressions.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Measure kernels against the machine's limit and against other libraries, by turns in one run."""
    from mlefast.bench import BenchError, Report, run

    _check_files(json, plot, (compare, load))
    try:
        old = None if compare is None else Report.load(compare)
        if load is not None:
            report = Report.load(load)
        else:
            plan = _plan(
                kernel, shape, sweep, classes, dtype, variant, peers, threads, isa, backend, cache, samples, seconds
            )
            with _progress(wanted=not quiet) as progress:
                report = run(plan, progress)
    except BenchError as error:
        raise BadParameter(one_line(error)) from error
    if json is not None:
        _save(report, json)
    if not quiet:
        _print(report)
    if plot is not None:
        _draw(report, plot)
    if old is not None and _compare(report, old, effect / 100, quiet=quiet):
        raise Exit(_REGRESSION)


def _plan(
    kernel: str,
    shape: str,
    sweep: bool,
    classes: str | None,
    dtype: str,
    variant: str,
    peers: str | None,
    threads: str | None,
    isa: str | None,
    backend: str,
    cache: str,
    samples: int,
    seconds: float,
) -> Plan:
    from mlefast._arguments import STORAGE
    from mlefast.bench import KERNELS, VARIANTS, Plan
    from mlefast.bench.machine import available_cpus
    from mlefast.bench.peers import PEERS

    config = mf.show_config()
    isas = config["isas"] if isinstance(config["isas"], list) else []
    sweeping = sweep or classes is not None
    default_peers = "none" if sweeping else "all"
    chosen_peers = _names(peers or default_peers, (*PEERS, "none"), "--peers")
    chosen_peers = [name for name in chosen_peers if name != "none"]
    if peers not in (None, "all"):  # asked for by name: then it must be there
        for name in chosen_peers:
            reason = PEERS[name].absence(backend)
            if reason is not None:
                raise BadParameter(f"{name}: {reason}.", param_hint="--peers")
    return Plan(
        kernels=_names(kernel, KERNELS, "--kernel"),
        shapes=_sweep_shapes(classes or _SWEEP) if sweeping else _shapes(shape),
        dtypes=_names(dtype, STORAGE, "--dtype"),
        threads=[_thread_count(each) for each in threads.split(",")] if threads else [_default_threads(available_cpus)],
        isas=_names(isa, isas, "--isa") if isa else [str(config["isa"])],
        backend=backend,
        peers=chosen_peers,
        variants=_names(variant, VARIANTS, "--variant"),
        cache=cache,
        rounds=samples,
        seconds=seconds,
    )


def _default_threads(available: Callable[[], Sequence[int]]) -> int:
    return min(mf.get_num_threads(), len(available()))


def _names(text: str, accepted: Iterable[str], option: str) -> list[str]:
    """Choose names: by themselves, by patterns with * and ?, or all."""
    accepted = list(accepted)
    if text == "all":
        return [name for name in accepted if name != "none"]
    chosen: list[str] = []
    for each in text.split(","):
        name = each.strip()
        found = fnmatch.filter(accepted, name) if set(name) & set("*?") else [name]
        if not found or found[0] not in accepted:
            raise BadParameter(f"{name!r} is none of {', '.join(accepted)}, all.", param_hint=option)
        chosen += found
    return list(dict.fromkeys(chosen))


def _shapes(text: str) -> list[tuple[int, int]]:
    shapes = []
    for each in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d{0,9})x([1-9]\d{0,9})\s*", each)
        if match is None:
            raise BadParameter(f"{each!r} is no shape such as 1024x32000.", param_hint="--shape")
        rows, classes = int(match[1]), int(match[2])
        _check_size(rows, classes, "--shape")
        shapes.append((rows, classes))
    return list(dict.fromkeys(shapes))


def _check_size(rows: int, classes: int, option: str) -> None:
    if rows * classes > 1 << 33:
        raise BadParameter(f"{rows}x{classes} has more than 2^33 logits.", param_hint=option)


def _sweep_shapes(text: str) -> list[tuple[int, int]]:
    from mlefast.bench.run import sweep_classes

    match = re.fullmatch(r"\s*(\d{1,10})\.\.(\d{1,10})\s*", text)
    if match is None or not 2 <= int(match[1]) <= int(match[2]):
        raise BadParameter(f"{text!r} is no range such as {_SWEEP}.", param_hint="--classes")
    _check_size(1, int(match[2]), "--classes")
    return [(max(1, _SWEEP_ELEMENTS // each), each) for each in sweep_classes(int(match[1]), int(match[2]))]


def _thread_count(text: str) -> int:
    if not re.fullmatch(r"\s*[1-9]\d{0,3}\s*", text):
        raise BadParameter(f"{text!r} is no number of threads from 1 to 9999.", param_hint="--threads")
    return int(text)


def _check_files(json: Path | None, plot: Path | None, inputs: tuple[Path | None, ...]) -> None:
    """Refuse what could not be written at the end, before the time for a run is spent."""
    if json is not None:
        check_output(json, (".json",), "--json")
        check_not_input(json, inputs, "--json")
    if plot is not None:
        check_output(plot, _PLOT_SUFFIXES, "--plot")
        require("matplotlib", "cli", "--plot")


@contextmanager
def _progress(*, wanted: bool) -> Iterator[Callable[[str, int, int], None]]:
    if not (wanted and sys.stderr.isatty()):
        yield lambda what, done, total: None
        return
    with new_console(stderr=True).status("") as status:
        yield lambda what, done, total: status.update(f"{done + 1}/{total} {what}")


def _print(report: Report) -> None:
    from mlefast.bench.report import tables

    console = new_console()
    if not console.is_terminal:
        console.width = 140  # lines in a file need not be folded
    for each in tables(report):
        console.print(each)


def _save(report: Report, path: Path) -> None:
    try:
        report.save(path)
    except OSError as error:
        raise BadParameter(f"{path} cannot be written: {one_line(error)}.", param_hint="--json") from error


def _draw(report: Report, path: Path) -> None:
    from mlefast.bench import plots

    figure = plots.draw_report(report)
    try:
        with open_atomically(path) as file:
            figure.savefig(file, format=path.suffix[1:])
    except OSError as error:
        raise BadParameter(f"{path} cannot be written: {one_line(error)}.", param_hint="--plot") from error


def _compare(new: Report, old: Report, effect: float, *, quiet: bool) -> bool:
    """Print the comparison; tell whether anything became slower."""
    from mlefast.bench import BenchError
    from mlefast.bench.compare import RATE, compare
    from mlefast.bench.report import comparison_table

    try:
        comparisons = compare(new, old, effect=effect)
    except BenchError as error:
        raise BadParameter(f"{one_line(error)}.", param_hint="--compare") from error
    shown = [each for each in comparisons if each.verdict == "slower"] if quiet else comparisons
    if shown:
        console = new_console()
        if not console.is_terminal:
            console.width = 160
        console.print(comparison_table(shown, effect=effect, rate=RATE))
    return any(each.verdict == "slower" for each in comparisons)
