"""The emulator as a device of :mod:`mlefast._backends.cuda`: its launch code runs unchanged, on NumPy arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda_emulator.emulator import HERE, EmulatorError, Module, Schedule, Traffic
from mlefast._backends.device_functions import DeviceFunctions
from mlefast._table import LOSSES

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

    def regimes(self) -> set[str]:
        """Which regimes rows were computed in."""
        return {regime or "split" for kernel, regime, *_ in self.launches if kernel in ("mlefast_rows", "mlefast_scan")}


class EmulatedMlefast:
    """The module mlefast as tests call it, on an emulated device."""

    def __init__(self, device: EmulatedDevice | None = None) -> None:
        self.device = device or EmulatedDevice()
        self._functions = DeviceFunctions(self.device)

    def softmax(self, x, axis=-1, *, out=None):
        return self._functions.softmax("softmax", x, axis, out)

    def log_softmax(self, x, axis=-1, *, out=None):
        return self._functions.softmax("log_softmax", x, axis, out)

    def logsumexp(self, x, axis=-1, *, keepdims=False):
        return self._functions.logsumexp(x, axis, keepdims)

    def cross_entropy(self, logits, target, **options):
        return self._cross_entropy(logits, target, gradient=False, **options)[0]

    def cross_entropy_and_grad(self, logits, target, **options):
        return self._cross_entropy(logits, target, gradient=True, **options)[:2]

    def _cross_entropy(
        self,
        logits,
        target,
        *,
        gradient,
        axis=-1,
        weight=None,
        ignore_index=-100,
        reduction="mean",
        denominator=None,
        upstream=None,
        out=None,
    ):
        return self._functions.loss(
            "cross_entropy",
            LOSSES["cross_entropy"],
            logits,
            target,
            axis=axis,
            weight=weight,
            ignore_index=ignore_index,
            reduction=reduction,
            denominator=denominator,
            gradient=gradient,
            upstream=upstream,
            out=out,
            byproducts=(),
            options={},
        )


__all__ = ["EmulatedDevice", "EmulatedMlefast", "EmulatorError", "Schedule", "without_ptx"]
