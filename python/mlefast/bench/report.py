"""The report as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING

from mlefast.bench.cases import KERNELS, Case
from mlefast.bench.compare import Comparison
from mlefast.bench.results import Report, Result, Series

if TYPE_CHECKING:
    from rich.table import Table

_LABELS = {"fresh": "÷ mlefast", "out": "÷ out=", "inplace": "÷ in place"}


def tables(report: Report) -> Iterator[Table | str]:
    """Make tables and lines of text: the machine, a table for each case, what was absent."""
    yield _machine(report)
    for result in report.main():
        yield f"{result.case}{_where(result.case)}, {_moved(result.case)}"
        yield _table(result)
        yield from (f"  {each.name}: {each.error}" for each in result.series if each.error)
    roofs = [result for result in report.results if result.case.role == "roof"]
    if roofs:
        yield _roofs(roofs)
    for name, reason in report.absent.items():
        yield f"absent: {name} ({reason})"


def _machine(report: Report) -> Table:
    from rich import box
    from rich.table import Table

    machine, config = report.machine, report.machine["mlefast"]
    table = Table("", "", title="mlefast bench", title_justify="left", show_header=False, box=box.SIMPLE)
    caches = machine["caches"]
    sizes = f"{_bytes(caches['l1'])}, {_bytes(caches['l2'])}, {_bytes(caches['last'])}"
    table.add_row("processor", f"{machine['processor']}, {machine['cpus']} available")
    table.add_row("caches", f"{sizes} (L1, L2, last level{'; assumed' if caches['assumed'] else ''})")
    table.add_row("instruction set", ", ".join(report.settings["isas"]) or str(config["isa"]))
    table.add_row("versions", ", ".join(f"{name} {version}" for name, version in _versions(report).items()))
    load = machine["load"]
    if load is not None:
        quiet = load < 0.2 * machine["cpus"]
        table.add_row("load at start", f"{load:.2f}{'' if quiet else ': the machine is not quiet, quote ratios only'}")
    table.add_row("ratios", "time ÷ mlefast's, round by round; ± half the interquartile range; memory: peak, extra")
    return table


def _versions(report: Report) -> dict[str, str]:
    machine = report.machine
    return {"mlefast": machine["mlefast"]["version"], "python": machine["python"], **machine["versions"]}


def _table(result: Result) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    table.add_column("")
    references = _references(result)
    headings = ["time", "±", "GB/s", "of limit", *(_LABELS[each.kind] for each in references), "memory"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for series in result.series:
        if not series.seconds:
            table.add_row(series.name, "none", *[""] * (len(headings) - 1))
            continue
        is_limit = series.group == "limit"
        share = "" if is_limit else _number(result.share(series), "{:.2f}")
        ratios = [_number(series.ratio(each), "{:.2f}") for each in references]
        table.add_row(
            f"{series.kind} limit: {series.name}" if is_limit else series.name,
            _time(series.median),
            f"{100 * series.spread:.0f} %",
            f"{result.bytes_of(series) / series.median / 1e9:.1f}",
            share,
            *ratios,
            "" if is_limit else _extra(series.extra_bytes),
            style="bold" if series.group == "mlefast" else "dim" if is_limit else None,
        )
    return table


def _references(result: Result) -> list[Series]:
    """The variants of mlefast on its best instruction set."""
    ours = [each for each in result.of("mlefast") if each.seconds]
    return [each for each in ours if each.isa == ours[0].isa]


def _where(case: Case) -> str:
    if case.cache == "warm":
        return " (in cache)"
    return " (from memory)" if case.sets == 1 else f" (from memory: {case.sets} sets of arrays by turns)"


def _moved(case: Case) -> str:
    kernel = KERNELS[case.kernel]
    arrays = len(kernel.reads) + len(kernel.writes)
    return f"{arrays} array{'s' * (arrays != 1)} moved"


def _roofs(results: Sequence[Result]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title="logits in the second-level cache, one thread", title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for heading in ("logits", "time", "±", "ns per 16 logits"):
        table.add_column(heading, justify="right")
    for result in results:
        case = result.case
        for series in result.of("mlefast"):
            if series.seconds:
                table.add_row(
                    f"{case.kernel} {case.dtype}{f' ({series.isa})' if series.isa else ''}",
                    f"{case.rows}x{case.classes}",
                    _time(series.median),
                    f"{100 * series.spread:.0f} %",
                    f"{series.median / case.elements * 16e9:.2f}",
                )
    return table


def comparison_table(comparisons: Sequence[Comparison], *, effect: float, rate: float) -> Table:
    """Make a table of what became slower or faster."""
    from rich import box
    from rich.table import Table

    title = f"compared with the old file: changes above {100 * effect:g} %, false discovery rate {100 * rate:g} %"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("")
    table.add_column("")
    for heading in ("old", "new", "time", "of limit", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    styles = {"slower": "bold red", "faster": "green", "too few samples": "yellow"}
    for each in comparisons:
        kernel = "in L2: " if each.case.role == "roof" else ""
        table.add_row(
            f"{kernel}{each.case}",
            each.name,
            _time(each.old),
            _time(each.new),
            f"{100 * each.change:+.1f} %",
            f"{100 * each.relative_change:+.1f} %",
            f"{each.p:.1g}",
            each.verdict,
            style=styles.get(each.verdict),
        )
    return table


def _number(value: float, text: str) -> str:
    return text.format(value) if isfinite(value) else "-"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else f"{seconds * scale:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def _bytes(size: float) -> str:
    for unit, scale in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"


def _extra(size: int | None) -> str:
    if size is None:
        return "unknown"
    return "< 1 MB" if size < 1 << 20 else f"{size / (1 << 20):.0f} MB"
