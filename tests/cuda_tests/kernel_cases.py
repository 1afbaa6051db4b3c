"""What the CUDA kernels are tested over: regimes whatever the shape, 16-bit storage, and the promised errors there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from unittest import mock

import cases
import ml_dtypes
import numpy as np
import pytest
import reference
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast, Schedule
from cuda_emulator.emulator import COMPILER
from mlefast._backends import cuda, cuda_terms

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16]
REGIMES = ["packed", "resident", "staged", "streamed", "split"]
needs_emulator = pytest.mark.skipif(
    COMPILER is None or shutil.which("readelf") is None, reason="no g++ and readelf here to run CUDA source on the CPU"
)


def name_of(value: Any) -> str:
    return str(value)


def split(shape: cuda.Shape) -> cuda.Plan:
    """Three parts of a row, or as many as it has vectors."""
    lanes = 16 // shape.itemsize
    length = max(lanes, -(-shape.classes // 3 // lanes) * lanes)
    segments = -(-shape.classes // length)
    return cuda.Plan("split", 64, shape.rows * segments, partials=shape.rows, segments=segments, length=length)


def force(regime: str | None) -> contextlib.AbstractContextManager[Any]:
    """Make every shape that the regime can take run in it."""
    if regime is None:
        return contextlib.nullcontext()
    chosen = cuda.make_plan

    def plan(shape: cuda.Shape, writes: bool, device: cuda.Device) -> cuda.Plan:
        lanes = 16 // shape.itemsize
        rows, vectors = shape.rows, -(-(shape.classes + lanes - 1) // lanes)
        if regime == "resident":  # as if rows were too far apart to be packed
            apart = cuda.Shape(rows, shape.classes, shape.itemsize, shape.classes + 1, shape.out_row, False)
            return chosen(apart, writes, device)
        if regime == "staged":
            return cuda.Plan("staged", 64, rows, shared=16 * vectors, partials=rows)
        if regime == "streamed":
            return cuda.Plan("streamed", 64, rows, partials=rows)
        if regime == "split":
            return split(shape)
        return chosen(shape, writes, device)

    chosen_terms = cuda_terms.make_plan

    def term_plan(shape: cuda.Shape, arrays: int, device: cuda.Device) -> cuda.Plan:
        if regime == "split":
            return replace(split(shape), options={"together": 2})
        if regime not in ("staged", "streamed"):
            return chosen_terms(shape, arrays, device)
        lanes = 16 // shape.itemsize
        shared = 16 * -(-(shape.classes + lanes - 1) // lanes) if regime == "staged" else 0
        return cuda.Plan(regime, 64, shape.rows, shared=shared, options={"together": 2}, partials=shape.rows)

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(cuda, "make_plan", plan))
    stack.enter_context(mock.patch.object(cuda_terms, "make_plan", term_plan))
    return stack


def for_all(items: Iterable[Any], check: Callable[[Any], Any]) -> None:
    """Check all items, on all processors: most of the time goes into the compiler, which is a process of its own."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(check, items):
            pass


def rows(kind: str, n: int, classes: int, dtype: np.dtype, seed: int = 0) -> np.ndarray:
    if dtype.itemsize > 2:
        return cases.rows(kind, n, classes, dtype, seed)
    x = cases.rows(kind, n, classes, np.float32, seed)
    if kind == "offset":  # within float16's range
        x = np.where(x > 0, 1, -1) * 3e4 + np.float32(64) * np.round((x - np.sign(x) * 1e7) / 4)
    with np.errstate(over="ignore"):
        return np.clip(x, -60000, 60000, where=np.isfinite(x), out=x.copy()).astype(dtype)


def at_offset(x: np.ndarray, elements: int) -> np.ndarray:
    """A copy whose memory begins so many elements after a multiple of 256 bytes."""
    memory = np.zeros(x.nbytes + 512 + elements * x.itemsize, np.uint8)
    begin = -memory.ctypes.data % 256 + elements * x.itemsize
    copy = memory[begin : begin + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def assert_rounded(got: Any, want: Any, allowed32: Any) -> None:
    """16-bit results: the float32 result, whose error is given in units of float32, rounded once."""
    info = ml_dtypes.finfo(got.dtype)
    eps, tiny = float(info.eps), float(info.smallest_subnormal)
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    with np.errstate(invalid="ignore"):
        slack = np.abs(want) * (0.5 * eps + np.asarray(allowed32) * np.finfo(np.float32).eps) + 0.5 * tiny
        wrong = ~((np.abs(got - want) <= slack * (1 + 1e-3)) | (got == want) | (np.isnan(got) & np.isnan(want)))
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise AssertionError(f"entry {at} is {got[at]!r}, not {want[at]!r} ({wrong.sum()} of {wrong.size} entries)")


def check_rows(mlefast: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Every function against the reference, entry by entry."""
    if x.dtype.itemsize > 2:
        cases.check_rows(x, y, x.dtype, mlefast)
        return
    wide = x.astype(np.float32)
    g = reference.gap(wide)
    m, _, others = reference.parts(wide)
    behind = np.where(np.isneginf(wide), np.inf, g)
    lead = np.sort(behind, axis=-1)[:, 1] if x.shape[-1] > 1 else np.zeros(len(x))
    row = cases.ULP + cases.ULP_PER_GAP * np.where(others < 0.5, np.where(np.isfinite(lead), lead, 0), 0)
    entry = cases.ULP + cases.ULP_PER_GAP * g
    lse = reference.logsumexp(wide)
    with np.errstate(invalid="ignore", divide="ignore"):
        cancelled = np.where(np.isfinite(m), np.maximum(np.abs(m), np.log1p(others)) / np.abs(lse), 1)
    cases.assert_ulps(mlefast.logsumexp(x), lse, np.float32, row * cancelled)
    assert_rounded(mlefast.softmax(x), reference.softmax(wide), entry)
    winner = wide == wide.max(-1, keepdims=True)
    assert_rounded(mlefast.log_softmax(x), reference.log_softmax(wide), np.where(winner, row[:, None], cases.ULP))
    loss, gradient = reference.cross_entropy(wide, y)
    at_winner = np.take_along_axis(winner, y[:, None], -1)[:, 0]
    allowed = np.where(at_winner, row, cases.ULP)
    cases.assert_ulps(mlefast.cross_entropy(x, y, reduction="none"), loss, np.float32, allowed)
    got_loss, got_gradient = mlefast.cross_entropy_and_grad(x, y, reduction="none")
    cases.assert_ulps(got_loss, loss, np.float32, allowed)
    assert got_gradient.dtype == x.dtype
    np.put_along_axis(entry, y[:, None], allowed[:, None], axis=-1)
    assert_rounded(got_gradient, gradient, entry)


__all__ = ["EmulatedDevice", "EmulatedMlefast", "Schedule"]
