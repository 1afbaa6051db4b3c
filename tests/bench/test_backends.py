"""Where arrays live. NumPy under CuPy's names plays the device, so that the calls made to it are tested anywhere."""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
import types

import device_arrays
import numpy as np
import pytest
from mlefast import _core
from mlefast.bench import KERNELS, BenchError, Case, Plan, arrays, run
from mlefast.bench.arrays import Pool
from mlefast.bench.backends import Device, Host, make_backend


class Cuda:
    """What is used of cupy.cuda."""

    def __init__(self, devices):
        self.synchronized = 0
        self.runtime = types.SimpleNamespace(
            getDeviceCount=lambda: devices,
            deviceSynchronize=lambda: setattr(self, "synchronized", self.synchronized + 1),
        )

        class MemoryHook(contextlib.AbstractContextManager):
            active = None

            def __enter__(self):
                MemoryHook.active = self
                return self

            def __exit__(self, *_):
                MemoryHook.active = None

        self.MemoryHook = MemoryHook


@pytest.fixture
def cupy(monkeypatch):
    def install(devices=1):
        module = types.ModuleType("cupy")
        module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        module.cuda, module.asarray = Cuda(devices), np.array
        module.copyto, module.multiply, module.float32 = np.copyto, np.multiply, np.float32
        monkeypatch.setitem(sys.modules, "cupy", module)
        return module

    return install


def test_names():
    assert isinstance(make_backend("numpy"), Host)
    with pytest.raises(BenchError, match="backend: received 'abacus'; accepted: numpy, cupy"):
        make_backend("abacus")


def test_no_device(cupy):
    cupy(devices=0)
    with pytest.raises(BenchError, match="no CUDA device"):
        make_backend("cupy")

    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy().cuda.runtime.getDeviceCount = no_driver
    with pytest.raises(BenchError, match="no CUDA device: cudaErrorInsufficientDriver"):
        make_backend("cupy")


def test_the_clock_waits_for_the_device(cupy):
    module = cupy()
    device = Device()
    assert device.clock() < device.clock()
    assert module.cuda.synchronized == 2


def test_limits_do_what_they_say(cupy):
    cupy()
    device = Device()
    x, out = np.arange(5, dtype=np.float32), np.ones(5, np.float32)
    assert set(device.limits().values()) == {"read", "copy", "update"} == set(Host().limits().values())
    for method, kind in device.limits().items():
        result = device.run_limit(method, x, out)
        if kind == "read":
            assert result == 10
        np.testing.assert_array_equal(out, np.ones(5) if kind == "read" else x)


def test_peak_of_the_devices_memory(cupy):
    hook = cupy().cuda.MemoryHook

    def call():
        for size in (100, 50):
            hook.active.malloc_postprocess(device_id=0, size=size, mem_size=size, mem_ptr=1, pmem_id=1)
        hook.active.free_postprocess(device_id=0, mem_size=100, mem_ptr=1, pmem_id=1)
        hook.active.malloc_postprocess(device_id=0, size=70, mem_size=70, mem_ptr=1, pmem_id=1)

    assert Device().extra_peak(call) == 150


def test_every_kernel_on_a_device(cupy):
    cupy()
    options = {"backend": "cupy", "rounds": 3, "seconds": 0.01, "cache": "warm"}
    report = run(Plan(list(KERNELS), [(20, 30)], ["float32"], [1], [_core.isa()], **options))
    assert [r.case.kernel for r in report.results] == list(KERNELS)
    for result in report.results:
        assert [s.kind for s in result.of("mlefast")] == list(KERNELS[result.case.kernel].variants)
        assert all(len(series.seconds) == 3 for series in result.series)


@pytest.mark.parametrize("kernel", KERNELS)
def test_arrays_are_made_on_the_device(cupy, monkeypatch, kernel):
    """With arrays that refuse the host's: whatever a call is given lies on the device, and holds the host's numbers."""
    module = cupy()
    module.asarray = device_arrays.asarray
    module.copyto = lambda to, values: to.__setitem__(slice(None), values)
    monkeypatch.setattr(arrays, "NORMAL_BLOCK", 100)  # rows are repeated, which slices arrays of the device
    case = Case(kernel, 20, 30, "float32", 1, backend="cupy", sets=2)
    for there, here in zip(Pool(Device()).sets(case), Pool(Host()).sets(case), strict=True):
        on_device, named = there.arguments(KERNELS[kernel])
        on_host, named_on_host = here.arguments(KERNELS[kernel])
        assert list(named) == list(named_on_host)
        on_device += [there.source(KERNELS[kernel]), *(named[name] for name in KERNELS[kernel].named)]
        on_host += [here.source(KERNELS[kernel]), *(named_on_host[name] for name in KERNELS[kernel].named)]
        assert {type(each) for each in on_device} == {device_arrays.ndarray}
        for mine, expected in zip(on_device, on_host, strict=True):
            np.testing.assert_array_equal(mine.memory, expected)
        for field in ("out", "scratch"):
            assert (getattr(there, field) is None) == (getattr(here, field) is None)


def test_a_whole_run_on_a_device(cupy):
    cupy()
    kernels, shapes = ["softmax", "cross_entropy"], [(20, 30)]
    options = {"backend": "cupy", "peers": ["numpy"], "rounds": 3, "seconds": 0.01, "cache": "warm"}
    report = run(Plan(kernels, shapes, ["float32"], [1], [_core.isa()], **options))
    assert report.absent == {"numpy": "not for the backend cupy"}
    assert [r.case.role for r in report.results] == ["main", "main"]
    for result in report.results:
        assert all(len(series.seconds) == 3 for series in result.series)
    assert [s.name for s in report.results[0].series] == [
        "cupy.copyto", "cupy.multiply", "mlefast", "mlefast out=", "mlefast in place",
    ]  # fmt: skip
