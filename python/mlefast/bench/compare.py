"""Telling a regression from noise.

A kernel is called slower than before if the Mann-Whitney test says so of its times with a margin, the least effect that
counts: the new times against the old ones multiplied by 1 + effect. It must hold of the times themselves and of the
times relative to the limit that was measured in the same rounds: a machine that is slower today moves the first, one
whose memory is faster today the second, a slower kernel both (an intersection-union test, whose level is that of its
parts). Over all series, p-values are adjusted after Benjamini and Hochberg (1995), so that of all verdicts "slower" and
"faster" a share of no more than `rate` is to be expected wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np

from mlefast.bench.cases import BenchError, Case
from mlefast.bench.results import Report, Result, Series

RATE = 0.01
EFFECT = 0.05


@dataclass(frozen=True)
class Comparison:
    """One kernel, then and now.

    Attributes
    ----------
    case : Case
    name : str
    old, new : float
        Median seconds.
    change, relative_change : float
        New time over old time, less 1: of the times, and of the times relative to the limit.
    p : float
        The smaller of the two adjusted p-values, for "slower" and for "faster".
    verdict : {"slower", "faster", "no difference", "too few samples"}
    """

    case: Case
    name: str
    old: float
    new: float
    change: float
    relative_change: float
    p: float
    verdict: str


def compare(new: Report, old: Report, *, effect: float = EFFECT, rate: float = RATE) -> list[Comparison]:
    """Compare all series of mlefast that two reports have in common.

    Parameters
    ----------
    new, old : Report
    effect : float, default 0.05
        The least relative change that counts.
    rate : float, default 0.01
        The false discovery rate.

    Returns
    -------
    list of Comparison

    Raises
    ------
    BenchError
        If the reports are of different processors, or have nothing in common.
    """
    from scipy.stats import false_discovery_control

    if new.machine["processor"] != old.machine["processor"]:
        raise BenchError(
            f"the old file was measured on {old.machine['processor']}, the new one on {new.machine['processor']}"
        )
    theirs = {(_job(result.case), s.name, s.isa): (result, s) for result in old.results for s in result.of("mlefast")}
    pairs = [
        (result, series, *theirs[key])
        for result in new.results
        for series in result.of("mlefast")
        if (key := (_job(result.case), series.name, series.isa)) in theirs and series.seconds and theirs[key][1].seconds
    ]
    if not pairs:
        raise BenchError("the old file and this run have no measurement in common")
    p_values = [p_change(_views(r, s), _views(their_r, their_s), effect) for r, s, their_r, their_s in pairs]
    adjusted = false_discovery_control(np.ravel(p_values)).reshape(-1, 2)
    return [
        _comparison(pair, float(slower), float(faster), rate)
        for pair, (slower, faster) in zip(pairs, adjusted, strict=True)
    ]


def p_change(new: Sequence[Sequence[float]], old: Sequence[Sequence[float]], effect: float) -> tuple[float, float]:
    """p-values for "slower" and "faster", by more than `effect`, in every one of several views of the same samples."""
    from scipy.stats import mannwhitneyu

    slower, faster = 0.0, 0.0
    for ours, theirs in zip(new, old, strict=True):
        scaled = np.asarray(theirs)
        slower = max(slower, mannwhitneyu(ours, scaled * (1 + effect), alternative="greater").pvalue)
        faster = max(faster, mannwhitneyu(ours, scaled / (1 + effect), alternative="less").pvalue)
    return float(slower), float(faster)


def _job(case: Case) -> Case:
    return replace(case, sets=1)  # how many sets there are follows from the caches


def _views(result: Result, series: Series) -> list[list[float]]:
    """The times, and the times relative to those of the limit in the same rounds."""
    limit = result.limit_of(series)
    if limit is None:
        return [series.seconds, series.seconds]
    at = dict(zip(limit.rounds, limit.seconds))
    relative = [seconds / at[number] for number, seconds in zip(series.rounds, series.seconds) if number in at]
    return [series.seconds, relative or series.seconds]


def _comparison(pair: tuple[Result, Series, Result, Series], slower: float, faster: float, rate: float) -> Comparison:
    result, series, their_result, their_series = pair
    (ours, ours_relative), (theirs, theirs_relative) = _views(result, series), _views(their_result, their_series)
    # What the test could say at best of so few samples.
    if 1 / comb(len(ours) + len(theirs), len(ours)) > rate:
        verdict = "too few samples"
    elif slower <= rate:
        verdict = "slower"
    elif faster <= rate:
        verdict = "faster"
    else:
        verdict = "no difference"
    return Comparison(
        result.case,
        series.name,
        their_series.median,
        series.median,
        series.median / their_series.median - 1,
        float(np.median(ours_relative) / np.median(theirs_relative)) - 1,
        min(slower, faster),
        verdict,
    )
