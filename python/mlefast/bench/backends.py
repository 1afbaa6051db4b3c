"""Where arrays live and how time and memory are measured there: the host, or a CUDA device through CuPy."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mlefast import _core
from mlefast.bench import memory
from mlefast.bench.cases import BenchError


class Backend(Protocol):
    """What the rest of the benchmark asks of a place for arrays."""

    name: str

    def from_numpy(self, array: Any) -> Any:
        """Return the array there."""

    def clock(self) -> int:
        """Return nanoseconds, once all work that was begun is done."""

    def extra_peak(self, call: Callable[[], Any]) -> int | None:
        """Call a function and return the peak of what it allocated, in bytes."""

    def limits(self) -> dict[str, str]:
        """Return the methods that may be the fastest at a kind of limit: name to "read", "copy" or "update"."""

    def run_limit(self, method: str, x: Any, out: Any) -> Any:
        """Read `x`, copy it to `out`, or update `out`."""

    def overwrite(self, to: Any, values: Any) -> None:
        """Copy values into an array."""


class Host:
    """NumPy arrays."""

    name = "numpy"
    clock = staticmethod(time.perf_counter_ns)
    extra_peak = staticmethod(memory.extra_peak)

    def from_numpy(self, array: Any) -> Any:
        """Return the array itself."""
        return array

    def limits(self) -> dict[str, str]:
        """Return the methods of the compiled module."""
        return dict(_core.LIMITS)

    def run_limit(self, method: str, x: Any, out: Any) -> Any:
        """Run one of them; 16-bit numbers are moved as pairs."""
        return _core.run_limit(method, _as_words(x), None if _core.LIMITS[method] == "read" else _as_words(out))

    def overwrite(self, to: Any, values: Any) -> None:
        """Copy values into an array."""
        np.copyto(to, values)


class Device:
    """CuPy arrays on the current CUDA device. Raises BenchError if there is none."""

    name = "cupy"

    def __init__(self) -> None:
        if importlib.util.find_spec("cupy") is None:
            raise BenchError('the backend cupy needs CuPy, which is not installed; pip install "mlefast[cuda12]"')
        self.cupy: Any = importlib.import_module("cupy")
        try:
            count = self.cupy.cuda.runtime.getDeviceCount()
        except Exception as error:  # CuPy raises its own types, and ImportError where the driver is absent
            raise BenchError(f"the backend cupy found no CUDA device: {error}") from error
        if count == 0:
            raise BenchError("the backend cupy found no CUDA device")

    def from_numpy(self, array: Any) -> Any:
        """Return a copy on the device."""
        return self.cupy.asarray(array)

    def clock(self) -> int:
        """Return nanoseconds, once the device has nothing left to do."""
        self.cupy.cuda.runtime.deviceSynchronize()
        return time.perf_counter_ns()

    def extra_peak(self, call: Callable[[], Any]) -> int | None:
        """Return the peak of what CuPy's and PyTorch's allocators handed out during a call."""
        torch: Any = sys.modules.get("torch")
        with_torch = torch is not None and torch.cuda.is_available()
        if with_torch:
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if with_torch else 0
        meter = _peak_hook(self.cupy)
        with meter:
            result = call()
            self.cupy.cuda.runtime.deviceSynchronize()
        del result
        after = torch.cuda.max_memory_allocated() if with_torch else 0
        return int(meter.peak + after - before)

    def limits(self) -> dict[str, str]:
        """Return CuPy's own reduction, copy and multiplication."""
        return {"cupy.sum": "read", "cupy.copyto": "copy", "cupy.multiply": "update"}

    def run_limit(self, method: str, x: Any, out: Any) -> Any:
        """Run one of them on the current stream."""
        if method == "cupy.sum":
            return x.sum(dtype=self.cupy.float32 if x.dtype.itemsize == 2 else None)
        if method == "cupy.copyto":
            return self.cupy.copyto(out, x)
        return self.cupy.multiply(out, 1, out=out)

    def overwrite(self, to: Any, values: Any) -> None:
        """Copy values into an array."""
        self.cupy.copyto(to, values)


def make_backend(name: str) -> Backend:
    """Return a backend by name. Raises BenchError if it is not there."""
    if name == "numpy":
        return Host()
    if name == "cupy":
        return Device()
    raise BenchError(f"backend: received {name!r}; accepted: numpy, cupy")


def _as_words(array: Any) -> Any:
    flat = array.reshape(-1)
    if flat.dtype.itemsize > 2:
        return flat
    return flat[: flat.size // 2 * 2].view(np.float32)


def _peak_hook(cupy: Any) -> Any:
    class Peak(cupy.cuda.MemoryHook):  # type: ignore[misc]
        name = "mlefast peak"

        def __init__(self) -> None:
            self.now = self.peak = 0

        def malloc_postprocess(self, **event: Any) -> None:
            self.now += event["mem_size"]
            self.peak = max(self.peak, self.now)

        def free_postprocess(self, **event: Any) -> None:
            self.now -= event["mem_size"]

    return Peak()
