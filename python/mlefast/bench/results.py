"""What a run gives, as it is kept in a JSON file: every sample, and what must be known to judge it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlefast._files import one_line, open_atomically
from mlefast.bench.cases import KERNELS, BenchError, Case

_FORMAT = 1
GROUPS = ("limit", "mlefast", "peer")


@dataclass(eq=False)
class Series:
    """The samples of one contestant.

    Attributes
    ----------
    name : str
        Of a limit: its method; of mlefast: the variant; else the peer.
    group : {"limit", "mlefast", "peer"}
    kind : str
        Of a limit: "read", "copy" or "update"; of mlefast: the variant.
    isa : str
        The instruction set that the kernel ran on; of mlefast only.
    seconds, rounds : list
        Of each sample: the time of a call, and the round of the alternation.
    calls : int
        Calls in each sample.
    extra_bytes : int or None
        Peak memory beyond what was in use before the call; None if it could not be found out.
    error : str or None
        Why there are no samples.
    """

    name: str
    group: str
    kind: str = ""
    isa: str = ""
    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    calls: int = 1
    extra_bytes: int | None = None
    error: str | None = None

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return float(np.median(self.seconds)) if self.seconds else float("nan")

    @property
    def spread(self) -> float:
        """Half of the interquartile range, relative to the median."""
        if not self.seconds:
            return float("nan")
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float((high - low) / 2 / self.median)

    def ratio(self, other: Series) -> float:
        """Median, over the rounds that both took part in, of this time over the other one: drift cancels."""
        theirs = dict(zip(other.rounds, other.seconds))
        quotients = [s / theirs[r] for r, s in zip(self.rounds, self.seconds) if r in theirs]
        return float(np.median(quotients)) if quotients else float("nan")


@dataclass(eq=False)
class Result:
    """A case and its contestants."""

    case: Case
    series: list[Series]

    def of(self, group: str) -> list[Series]:
        """Contestants of one group, in the order of their turns."""
        return [each for each in self.series if each.group == group]

    def limit_of(self, series: Series) -> Series | None:
        """Return the limit that a contestant is held against: for in-place calls the faster of copy and update."""
        limits = {each.kind: each for each in self.of("limit") if each.seconds}
        if not KERNELS[self.case.kernel].writes:
            return limits.get("read")
        kinds = ("copy", "update") if series.kind == "inplace" else ("copy",)
        return min((limits[kind] for kind in kinds if kind in limits), key=lambda each: each.median, default=None)

    def bytes_of(self, series: Series) -> int:
        """Return what a contestant moves: of a limit one array or two, which may be fewer than the kernel must move."""
        if series.group != "limit":
            return self.case.bytes_moved
        return self.case.logits_bytes * (1 if series.kind == "read" else 2)

    def share(self, series: Series) -> float:
        """Bytes per second relative to those of the limit, round by round."""
        limit = self.limit_of(series)
        if limit is None:
            return float("nan")
        return limit.ratio(series) * self.bytes_of(series) / self.bytes_of(limit)


@dataclass(eq=False)
class Report:
    """A run: the machine, what was asked for, the results, and the peers that were not there (with the reason)."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    results: list[Result]
    absent: dict[str, str] = field(default_factory=dict)

    def main(self) -> list[Result]:
        """Return the results without those that only serve as a roof."""
        return [each for each in self.results if each.case.role == "main"]

    def save(self, path: Path | str) -> None:
        """Write a JSON file. Raises OSError if that fails; a file that is there is then left as it is."""
        with open_atomically(Path(path)) as file:
            file.write(json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode())

    @classmethod
    def load(cls, path: Path | str) -> Report:
        """Read a file that :meth:`save` wrote. Raises BenchError, naming the file, if it is none."""
        try:
            record = json.loads(Path(path).read_bytes())
            if record["format"] != _FORMAT:
                raise BenchError(f"{path}: format {record['format']!r}; accepted: {_FORMAT}")
            results = [
                Result(Case(**each["case"]), [Series(**series) for series in each["series"]])
                for each in record["results"]
            ]
            report = cls(record["machine"], record["settings"], results, record["absent"])
            report._check()
        except OSError as error:
            raise BenchError(f"{path} cannot be read: {one_line(error)}") from error
        except BenchError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise BenchError(f"{path} is no file of mlefast bench --json: {one_line(error)}") from error
        return report

    def _check(self) -> None:
        str(self.machine["processor"])
        for result in self.results:
            if result.case.kernel not in KERNELS:
                raise ValueError(f"kernel {result.case.kernel!r}")
            for series in result.series:
                if series.group not in GROUPS or len(series.seconds) != len(series.rounds):
                    raise ValueError(f"series {series.name!r}")
                if not all(isinstance(each, float) and 0 < each < float("inf") for each in series.seconds):
                    raise ValueError(f"times of {series.name!r}")
