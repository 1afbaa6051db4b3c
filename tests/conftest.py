"""Fixtures that every test may use, and a header that says on what the tests ran."""

from __future__ import annotations

import bench_reports
import cases
import mlefast as mf
import pytest
from mlefast import _core


def pytest_report_header() -> str:
    return f"mlefast: {mf.show_config()}"


@pytest.fixture(params=cases.ISAS)
def isa(request):
    """Each instruction set that this machine has, in turn."""
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture
def threads():
    """A function that sets the number of threads until the test's end."""
    yield mf.set_num_threads
    mf.set_num_threads(None)


@pytest.fixture
def make_report():
    """A function that makes a report of the benchmark up."""
    return bench_reports.make_report
