"""What `mlefast bench --backend cupy` calls, on the emulator: each kernel in each variant gives the host's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast
from cuda_tests.kernel_cases import needs_emulator
from mlefast.bench import KERNELS, Case, kernels
from mlefast.bench.arrays import Pool
from mlefast.bench.backends import Host
from mlefast.bench.kernels import prepare

pytestmark = needs_emulator


def results(call):
    result = call(0)
    return result if isinstance(result, tuple) else (result,)


@pytest.fixture(scope="module")
def device():
    return EmulatedDevice()


@pytest.mark.parametrize("name", KERNELS)
def test_calls(monkeypatch, device, name):
    case, kernel = Case(name, 9, 30, "float32", 1), KERNELS[name]
    sets = Pool(Host()).sets(case)
    want = results(prepare(case, sets, "fresh"))
    monkeypatch.setattr(kernels, "mf", EmulatedMlefast(device))
    for variant in kernel.variants:
        if variant == "inplace":
            sets[0].scratch[...] = sets[0].source(kernel)
        launches = len(device.launches)
        for mine, expected in zip(results(prepare(case, sets, variant)), want, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-9)
        assert len(device.launches) > launches
