"""Every kernel of the benchmark on a real GPU: its numbers are the host's, and a run measures it in each variant."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast import _core
from mlefast.bench import KERNELS, Case, Plan, run
from mlefast.bench.arrays import Pool
from mlefast.bench.backends import Device, Host
from mlefast.bench.kernels import prepare

try:
    import cupy
except ImportError:  # conftest.py skips all of them and says so
    cupy = None


def results(call):
    result = call(1)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("kernel", KERNELS)
def test_calls(kernel):
    case = Case(kernel, 37, 300, "float32", 1, sets=2)
    on_host, on_device = Pool(Host()).sets(case), Pool(Device()).sets(case)
    want = results(prepare(case, on_host, "fresh"))
    for variant in KERNELS[kernel].variants:
        if variant == "inplace":
            cupy.copyto(on_device[1].scratch, on_device[1].source(KERNELS[kernel]))
        for mine, expected in zip(results(prepare(case, on_device, variant)), want, strict=True):
            np.testing.assert_allclose(cupy.asnumpy(mine), expected, rtol=1e-4, atol=1e-9)


def test_a_run_of_all():
    options = {"backend": "cupy", "rounds": 3, "seconds": 0.01, "cache": "warm", "peers": ["cupyx"]}
    report = run(Plan(list(KERNELS), [(20, 30)], ["float32"], [1], [_core.isa()], **options))
    assert [r.case.kernel for r in report.results] == list(KERNELS)
    for result in report.results:
        assert [s.kind for s in result.of("mlefast")] == list(KERNELS[result.case.kernel].variants)
        for series in result.series:
            assert len(series.seconds) == 3 or series.error == f"has no {result.case.kernel}"
