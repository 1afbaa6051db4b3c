"""Kernels against the machine's limit and against their peers, alternating in one run: what ``mlefast bench`` does.

:mod:`~mlefast.bench.cases` says what is measured, :mod:`~mlefast.bench.limits` what memory allows,
:mod:`~mlefast.bench.peers` who else does the job, :mod:`~mlefast.bench.measure` how samples are taken,
:mod:`~mlefast.bench.run` puts them together; :mod:`~mlefast.bench.results` is what comes out.
"""

from __future__ import annotations

from mlefast.bench.cases import KERNELS, VARIANTS, BenchError, Case
from mlefast.bench.results import Report, Result, Series
from mlefast.bench.run import Plan, run

__all__ = ["KERNELS", "VARIANTS", "BenchError", "Case", "Plan", "Report", "Result", "Series", "run"]
