"""The report as drawings: GB/s against C under the limit, the peers, and a roofline.

Figures are made directly, not through pyplot, as those of a fit are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mlefast.bench.results import Report, Result, Series

_COLORS = ("#1f6fb2", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#5b6770", "#17a2a2", "#a0522d")
_FEW = 24
_VARIANTS = ("out", "fresh", "inplace")  # the first that was measured is drawn
_MARKERS = "os^Dv"


def draw_report(report: Report) -> Figure:
    """Draw all three.

    Parameters
    ----------
    report : Report

    Returns
    -------
    Figure
        21 x 7 inches: throughput, peers, roofline.
    """
    figure = Figure(figsize=(21, 7), dpi=120, layout="constrained")
    machine, settings = report.machine, report.settings
    isas = ", ".join(settings["isas"])
    figure.suptitle(f"mlefast bench: {machine['processor']}, {isas}", fontsize=14, parse_math=False)
    throughput, peers, roofline = figure.subplots(1, 3)
    draw_throughput(throughput, report)
    draw_peers(peers, report)
    draw_roofline(roofline, report)
    return figure


def draw_throughput(axes: Axes, report: Report) -> None:
    """Draw the bytes that must be moved per second against the number of classes, and those of the limit, dashed."""
    groups = _by_kernel(report)
    for color, (name, results) in zip(_colors(len(groups)), groups.items()):
        points = sorted((r for r in results if _ours(r) is not None), key=lambda r: r.case.classes)
        classes = [r.case.classes for r in points]
        ours = [_gigabytes(r, _must(_ours(r))) for r in points]
        limits = [_gigabytes(r, _must(r.limit_of(_must(_ours(r))))) for r in points]
        axes.plot(classes, ours, ".-", color=color, label=name, markersize=5, linewidth=1)
        axes.plot(classes, limits, "--", color=color, label=f"{name}: limit", linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(0)
    axes.set(xlabel="classes", ylabel="bytes that must be moved (GB/s)", title="Speed against the limit")
    _finish(axes)


def draw_peers(axes: Axes, report: Report) -> None:
    """Draw how many times longer than mlefast each peer takes, a group of bars for each case."""
    cases = [r for r in report.main() if _ours(r, fresh=True) is not None and any(p.seconds for p in r.of("peer"))]
    names = list(dict.fromkeys(p.name for r in cases for p in r.of("peer") if p.seconds))
    axes.set_title("Peers: time ÷ that of mlefast, fresh output")
    if not cases:
        axes.text(0.5, 0.5, "no peer was measured", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    width = 0.8 / len(names)
    for k, (color, name) in enumerate(zip(_colors(len(names)), names)):
        bars = [(i, p.ratio(_must(_ours(r, fresh=True)))) for i, r in enumerate(cases) for p in r.of("peer")
                if p.name == name and p.seconds]  # fmt: skip
        places = [i + (k - (len(names) - 1) / 2) * width for i, _ in bars]
        axes.bar(places, [ratio for _, ratio in bars], width, color=color, label=name)
    axes.axhline(1, color="#333333", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    crowded = len(cases) > _FEW
    between = " " if crowded else "\n"
    labels = [f"{r.case.kernel}{between}{r.case.dtype} {r.case.rows}x{r.case.classes}" for r in cases]
    style: Any = {"rotation": 90, "fontsize": 5} if crowded else {"rotation": 60, "ha": "right", "fontsize": 8}
    axes.set_xticks(range(len(cases)), labels, parse_math=False, **style)
    axes.set_ylabel("times longer than mlefast")
    _finish(axes)


def draw_roofline(axes: Axes, report: Report) -> None:
    """Draw logits per second against logits per byte that must be moved.

    The slanted roofs are the limits of reading and of copying, as measured; the flat ones are the kernels themselves
    on logits in the second-level cache, times the number of threads. Nothing is assumed of the processor.
    """
    intensities: list[float] = []
    groups = _by_kernel(report)
    for color, (name, results) in zip(_colors(len(groups)), groups.items()):
        drawn = [(r, s) for r in results if r.case.cache == "cold" if (s := _ours(r)) is not None]
        if not drawn:
            continue
        case = drawn[0][0].case
        intensity = case.elements / case.bytes_moved
        bandwidth = 1e9 * float(np.median([_gigabytes(r, _must(r.limit_of(s))) for r, s in drawn]))
        intensities.append(intensity)
        grid = np.geomspace(intensity / 8, intensity * 64, 50)
        peak = _peak(report, case.kernel, case.dtype) * case.threads
        roof = np.minimum(bandwidth * grid, peak) / 1e9 if peak else bandwidth * grid / 1e9
        axes.plot(grid, roof, color=color, linewidth=1, label=f"{name}: roof")
        for marker, (label, points) in zip(_MARKERS, _points(drawn).items()):
            axes.plot([intensity] * len(points), points, marker, color=color, label=f"{name}: {label}", markersize=5,
                      fillstyle="full" if label.startswith("mlefast") else "none", linestyle="none")  # fmt: skip
    axes.set_title("Roofline, cases from memory")
    if not intensities:
        axes.text(0.5, 0.5, "no case streams from memory", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="logits per byte that must be moved", ylabel="logits per second (10⁹)")
    _finish(axes)


def _points(drawn: Sequence[tuple[Result, Series]]) -> dict[str, list[float]]:
    """Logits per second (10⁹) of mlefast and of the best peer of each case."""
    ours = [r.case.elements / s.median / 1e9 for r, s in drawn]
    peers = [[r.case.elements / p.median / 1e9 for p in r.of("peer") if p.seconds] for r, _ in drawn]
    best = [max(each) for each in peers if each]
    return {"mlefast": ours, **({"best peer": best} if best else {})}


def _by_kernel(report: Report) -> dict[str, list[Result]]:
    """Results with the most threads, by kernel and dtype."""
    most = max((r.case.threads for r in report.main()), default=1)
    groups: dict[str, list[Result]] = {}
    for result in report.main():
        if result.case.threads == most:
            groups.setdefault(f"{result.case.kernel} {result.case.dtype}", []).append(result)
    return {name: results for name, results in groups.items() if any(_ours(r) is not None for r in results)}


def _ours(result: Result, *, fresh: bool = False) -> Series | None:
    """The series of mlefast that is drawn, on the first instruction set."""
    order = ("fresh", "out", "inplace") if fresh else _VARIANTS
    series = [each for each in result.of("mlefast") if each.seconds]
    usable = [each for each in series if result.limit_of(each) is not None]
    return min(usable, key=lambda each: order.index(each.kind), default=None)


def _peak(report: Report, kernel: str, dtype: str) -> float:
    """Logits per second of one thread with everything in the second-level cache; 0 if it was not measured."""
    return max(
        (
            result.case.elements / series.median
            for result in report.results
            if (result.case.role, result.case.kernel, result.case.dtype) == ("roof", kernel, dtype)
            for series in result.of("mlefast")
            if series.seconds
        ),
        default=0.0,
    )


def _gigabytes(result: Result, series: Series) -> float:
    return result.bytes_of(series) / series.median / 1e9


def _must(series: Series | None) -> Series:
    if series is None:  # _ours has seen to it
        raise AssertionError
    return series


def _colors(count: int) -> list[Any]:
    """As many colours that differ."""
    if count <= len(_COLORS):
        return list(_COLORS[:count])
    return list(colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    crowded = len(axes.get_legend_handles_labels()[1]) > _FEW
    below: Any = {"fontsize": 5, "ncols": 3, "loc": "upper center", "bbox_to_anchor": (0.5, -0.15)}
    legend: Any = axes.legend(framealpha=0.8, **(below if crowded else {"fontsize": 8}))
    for text in legend.get_texts():
        text.set_parse_math(False)
