"""Which arrays go to CUDA, what is said where that cannot be, and how CuPy is called: with a stand-in for CuPy."""

from __future__ import annotations

import sys
import types

import mlefast as mf
import numpy as np
import pytest
from mlefast import _backends
from mlefast._backends import cuda
from mlefast._backends import cupy as backend


class Tensor:
    """An array of a library that is not NumPy, on a device of DLPack's numbering."""

    def __init__(self, device: int) -> None:
        self.device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **_: object) -> object:
        raise AssertionError("an array must not be taken before it is known where it lies")


@pytest.mark.parametrize(("device", "on_cuda"), [(1, False), (2, True), (3, False), (13, True)])
def test_arrays_on_a_cuda_device_are_told_by_dlpack(device, on_cuda):
    found = _backends.device_functions_of(Tensor(device))
    assert (found is backend.FUNCTIONS) == on_cuda


@pytest.mark.parametrize("x", [np.zeros(3), np.float32(1), [1.0], (1.0,), 1.0, "x", None])
def test_what_lies_in_memory_stays_with_numpy(x):
    assert _backends.device_functions_of(x) is None


def test_importing_mlefast_imports_no_cupy():
    import subprocess

    code = "import mlefast, sys; mlefast.softmax([1.0]); assert not [m for m in sys.modules if 'cupy' in m]"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # what an absent module looks like to import


@pytest.mark.usefixtures("no_cupy")
@pytest.mark.parametrize(
    "call",
    [
        mf.softmax,
        mf.log_softmax,
        mf.logsumexp,
        mf.information_gain,
        lambda x: mf.cross_entropy(x, [0]),
        lambda x: mf.cross_entropy_and_grad(x, [0], axis=0, upstream=2.0),
    ],
)
def test_without_cupy(call):
    with pytest.raises(ImportError, match=r"^arrays on a CUDA device need CuPy: pip install 'mlefast\[cuda12\]'"):
        call(Tensor(2))


class NVRTCError(Exception):
    pass


class Kernel:
    def __init__(self, name: str) -> None:
        self.name, self.calls, self.max_dynamic_shared_size_bytes = name, [], 48 * 1024

    def __call__(self, grid, block, arguments, *, shared_mem):
        self.calls.append((grid, block, arguments, shared_mem))


def fake_cupy(*, available: bool = True, capability: tuple[int, int] = (9, 0), fails: bool = False):
    """The part of CuPy's interface that is used, recorded; NVRTC gives its source back."""
    cupy = types.ModuleType("cupy")
    cupy.ndarray = type("ndarray", (), {})
    cupy.is_available = lambda: available
    cupy.compiled, cupy.modules = [], []

    def compile_program(program, options):
        cupy.compiled.append((program, options))
        if fails:
            raise NVRTCError

    cupy.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            getDeviceProperties=lambda number: {
                "major": capability[0],
                "minor": capability[1],
                "name": b"Fake",
                "multiProcessorCount": 132,
                "sharedMemPerBlockOptin": 232448,
            }
        ),
        nvrtc=types.SimpleNamespace(
            NVRTCError=NVRTCError,
            getVersion=lambda: (13, 0),
            createProgram=lambda text, name, headers, names: text,
            compileProgram=compile_program,
            getCUBIN=lambda program: b"code of " + program.encode(),
            getProgramLog=lambda program: "the log",
            destroyProgram=lambda program: None,
        ),
    )

    class RawModule:
        def __init__(self, *, path: str) -> None:
            self.kernels = {}
            cupy.modules.append((path, self))

        def get_function(self, name: str) -> Kernel:
            return self.kernels.setdefault(name, Kernel(name))

    cupy.RawModule = RawModule
    return cupy


def test_without_a_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(available=False))
    with pytest.raises(RuntimeError, match="^arrays on a CUDA device need an NVIDIA driver"):
        mf.softmax(Tensor(2))


@pytest.mark.parametrize("capability", [(7, 0), (6, 1)])
def test_an_old_device_is_named(capability):
    with pytest.raises(RuntimeError, match=r"^CUDA device 3: received a Fake of compute capability .*accepted: 7\.5"):
        backend.CupyDevice(fake_cupy(capability=capability), 3)


def test_kernels_are_compiled_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("MLEFAST_CACHE_DIR", str(tmp_path))
    cupy = fake_cupy(capability=(8, 6))
    device = backend.CupyDevice(cupy, 0)
    for _ in range(3):
        device.launch("source", "kernel", 5, 128, 0, [1, None])
    assert cupy.compiled == [("source", ("-arch=sm_86", "-std=c++17", "-ftz=false"))]
    kernel = cupy.modules[0][1].kernels["kernel"]
    assert kernel.calls == [((5,), (128,), (1, 0), 0)] * 3
    assert kernel.max_dynamic_shared_size_bytes == 48 * 1024
    backend.CupyDevice(cupy, 1).launch("source", "other", 1, 32, 0, [])  # another device of the same architecture
    assert len(cupy.compiled) == 1
    assert len(list(tmp_path.iterdir())) == 1
    assert next(tmp_path.iterdir()).read_bytes() == b"code of source"
    device.launch("source, changed", "kernel", 1, 32, 0, [])
    backend.CupyDevice(fake_cupy(capability=(9, 0)), 0).launch("source", "kernel", 1, 32, 0, [])
    assert len(list(tmp_path.iterdir())) == 3


def test_shared_memory_beyond_48_kilobytes_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("MLEFAST_CACHE_DIR", str(tmp_path))
    cupy = fake_cupy()
    device = backend.CupyDevice(cupy, 0)
    for shared in (1000, 100_000, 200_000, 150_000):
        device.launch("source", "kernel", 1, 512, shared, [])
    assert cupy.modules[0][1].kernels["kernel"].max_dynamic_shared_size_bytes == 200_000


def test_what_nvrtc_says_is_passed_on(monkeypatch, tmp_path):
    monkeypatch.setenv("MLEFAST_CACHE_DIR", str(tmp_path))
    device = backend.CupyDevice(fake_cupy(capability=(12, 0), fails=True), 0)
    with pytest.raises(RuntimeError, match=r"^NVRTC \(13, 0\) cannot compile for -arch=sm_120: the log"):
        device.launch("source", "kernel", 1, 32, 0, [])
    assert not list(tmp_path.iterdir())


def test_every_task_of_the_rules_has_its_kernels():
    """A loss that is added to rules::Tasks is launched by its position, and writes what the table says."""
    assert set(cuda.WRITES) <= set(mf._core.TASKS)
