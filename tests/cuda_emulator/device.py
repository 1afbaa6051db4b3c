"""The emulator as a device of :mod:`mlefast._backends.cuda`: its launch code runs unchanged, on NumPy arrays."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import mlefast
import numpy as np
from cuda_emulator.emulator import HERE, EmulatorError, Module, Schedule, Traffic
from mlefast import _backends, _core
from mlefast._backends.device_functions import DeviceFunctions

KERNELS = ("mlefast_rows", "mlefast_scan", "mlefast_terms")
CONVERSIONS = (HERE / "ptx.cuh").read_text().replace("#pragma once", "")


def without_ptx(source: str) -> str:
    """The source with src/cuda/ptx.cuh, the one file in PTX, replaced by the emulator's own."""
    file = re.search(r'#line 1 "ptx\.cuh"\n.*?(?=#line \d+ "storage\.cuh")', source, re.DOTALL)
    assert file is not None
    return source.replace(file[0], CONVERSIONS)


class EmulatedDevice:
    """A GPU with few multiprocessors. `edit` changes a source before it is compiled: to plant a bug."""

    xp = np
    multiprocessors = 4
    shared_memory = 99 * 1024

    def __init__(self, schedule: Schedule | None = None, edit: Callable[[str], str] | None = None) -> None:
        self.schedule = schedule or Schedule()
        self.edit = edit or (lambda source: source)
        self.launches: list[tuple[str, str, int, int, Traffic]] = []
        self._modules: dict[str, Module] = {}

    def address(self, array: Any) -> int:
        return array.ctypes.data

    def launch(self, source: str, kernel: str, grid: int, block: int, shared: int, arguments: list[Any]) -> None:
        if source not in self._modules:
            self._modules[source] = Module(self.edit(without_ptx(source)))
        traffic = self._modules[source].launch(kernel, grid, block, shared, arguments, self.schedule)
        regime = re.search(r"#define MLEFAST_REGIME (\w+)", source)
        self.launches.append((kernel, regime[1] if regime else "", grid, block, traffic))

    def to_host(self, array: Any) -> Any:
        return array

    def add_product(self, a: Any, b: Any, out: Any) -> None:
        assert a.dtype == b.dtype == out.dtype
        assert out.flags.c_contiguous
        out += a.T @ b

    def regimes(self) -> set[str]:
        """Which regimes rows were computed in."""
        return {regime or "split" for kernel, regime, *_ in self.launches if kernel in KERNELS}


class EmulatedMlefast:
    """The module mlefast as users call it, with NumPy arrays that count as an emulated device's."""

    def __init__(self, device: EmulatedDevice | None = None) -> None:
        self.device = device or EmulatedDevice()
        self._functions = DeviceFunctions(self.device)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(mlefast, name)

        def call(*arguments: Any, **options: Any) -> Any:
            _chosen.functions = self._functions
            try:
                return function(*arguments, **options)
            finally:
                _chosen.functions = None

        return call


_chosen = threading.local()  # tests run several devices at once


def _divert() -> None:
    """Send this thread's calls to the device that it has chosen, if any, in every module that looks for one."""
    look_up = _backends.device_functions_of

    def functions_of(x: object) -> Any:
        return getattr(_chosen, "functions", None) or look_up(x)

    def unless_chosen(plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: None if getattr(_chosen, "functions", None) else plain(*arguments)

    diverted = {"device_functions_of": functions_of}
    for name in ("plain_cross_entropy", "plain_rows"):  # they would take the arrays for the host's
        diverted[name] = unless_chosen(getattr(_core, name))
    for module in list(sys.modules.values()):
        if not getattr(module, "__name__", "").startswith("mlefast.") or module is _core:
            continue
        for name in diverted.keys() & vars(module).keys():
            setattr(module, name, diverted[name])


_divert()
__all__ = ["EmulatedDevice", "EmulatedMlefast", "EmulatorError", "Schedule", "without_ptx"]
