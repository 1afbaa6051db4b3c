"""What is launched on a CUDA device: which kernel for which shape, its grid, its arguments.

A :class:`Device` compiles and launches. CuPy is one; in the tests a CPU that emulates a GPU is another, so that what is
below is tested as it stands. Nothing here waits for the device.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlefast import _core
from mlefast._arguments import Reduction, quotient

STORAGE = {"float16": "mlefast::Half", "bfloat16": "mlefast::BFloat16", "float32": "float", "float64": "double"}
INTEGERS = {name: i for i, name in enumerate(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
WRITES = {"softmax", "log_softmax", "cross_entropy_and_grad"}
VECTOR = 16  # bytes
ROWS_CHUNK = 16384  # targets, or partial sums, that a block adds up

# Registers: a lane holds 32 numbers of up to 32 bits, or 16 of 64 bits; twice that where a row fills a block of 512.
MOST_VECTORS = {2: 4, 4: 8, 8: 8}
GROUPS = (8, 16, 32, 64, 128, 256, 512)
STREAM_BLOCK = 512
LONGEST_STREAM = 2**19  # classes that one block sums up; more would let rounding errors grow with the row
SHORTEST_SPLIT = 16384  # classes for which a second launch pays
SHORTEST_SEGMENT = 4096
LEAST_ACROSS = 4096  # rows that are worked on by a thread each: with fewer of them, most of a device would be idle
RESERVED_SHARED = 1024  # bytes that the kernels and the system take of a block's shared memory


class Device(Protocol):
    """A place where kernels run."""

    xp: Any  # NumPy or a module that speaks like it
    multiprocessors: int
    shared_memory: int  # bytes that a block may ask for

    def address(self, array: Any) -> int:
        """Return where an array's first element lies."""

    def launch(self, source: str, kernel: str, grid: int, block: int, shared: int, arguments: list[Any]) -> None:
        """Compile the source, unless that was done before, and launch one of its kernels."""

    def to_host(self, array: Any) -> Any:
        """Wait for the device and return a NumPy array."""

    def add_product(self, a: Any, b: Any, out: Any) -> None:
        """Add the product of a's transpose and b to a matrix. All are contiguous, of one dtype."""


# ---- sources


@cache
def _texts() -> dict[str, str]:
    """The headers and kernels by name, as the wheel ships them or as they stand in a checkout."""
    package = Path(__file__).parents[1]
    root = package if (package / "cuda").is_dir() else package.parents[1] / "src"
    return {path.name: path.read_text() for folder in ("rules", "cuda") for path in sorted((root / folder).iterdir())}


def flatten(name: str, texts: dict[str, str]) -> str:
    """Return a file with its includes in place, each once: one text, which alone decides what is compiled."""
    seen: set[str] = set()

    def expand(file: str) -> list[str]:
        seen.add(file)
        lines = [f'#line 1 "{file}"']
        for number, line in enumerate(texts[file].splitlines(), 1):
            include = re.match(r'#include "(?:.*/)?(.+)"', line)
            if include and include[1] not in seen:
                lines += [*expand(include[1]), f'#line {number + 1} "{file}"']
            elif not include and not line.startswith("#pragma once"):
                lines.append(line)
            else:
                lines.append("")
        return lines

    return "\n".join(expand(name)) + "\n"


@cache
def _flat(name: str) -> str:
    return flatten(name, _texts())


@cache
def source_of(file: str, options: tuple[tuple[str, Any], ...]) -> str:
    """Return the text of a module: the definitions that choose what it is compiled for, and everything else."""
    return "".join(f"#define MLEFAST_{name.upper()} {value}\n" for name, value in options) + _flat(file)


# ---- plans


@dataclass(frozen=True)
class Shape:
    """Rows as a kernel sees them; strides in elements."""

    rows: int
    classes: int
    itemsize: int
    x_row: int
    out_row: int
    aligned: bool  # every row of x starts at a multiple of 16 bytes


@dataclass(frozen=True)
class Plan:
    """How a task is computed for one shape."""

    regime: str
    block: int
    grid: int
    shared: int = 0
    options: dict[str, int] = field(default_factory=dict)
    partials: int = 0  # sums of losses that the kernel leaves
    segments: int = 1  # of a row, and their length
    length: int = 0


def vectors_of(shape: Shape) -> int:
    """Return how many 16-byte vectors a row reaches into."""
    lanes = VECTOR // shape.itemsize
    return -(-(shape.classes + (0 if shape.aligned else lanes - 1)) // lanes)


def are_few(rows: int, device: Device) -> bool:
    """Whether blocks for whole rows would leave half of a device idle."""
    return 2 * rows <= device.multiprocessors


def resident_plan(shape: Shape, most: dict[int, int]) -> Plan | None:
    """Keep rows in registers of as few lanes as hold one, `most` vectors each by their number; None if none do."""
    rows, vectors = shape.rows, vectors_of(shape)
    for group, held in most.items():
        if vectors > group * held:
            continue
        options = {"group": group, "vectors": -(-vectors // group)}
        if group > 32:
            return Plan("resident", group, rows, options=options, partials=rows)
        together = 32 // group  # rows of a warp
        return Plan("resident", 128, -(-rows // (4 * together)), options=options, partials=-(-rows // together))
    return None


def split_plan(shape: Shape, wanted: int) -> Plan:
    """Let about so many blocks share each row, and each have a segment that pays."""
    lanes = VECTOR // shape.itemsize
    length = max(-(-shape.classes // wanted), SHORTEST_SEGMENT)
    length = -(-length // lanes) * lanes
    segments = -(-shape.classes // length)
    return Plan("split", STREAM_BLOCK, shape.rows * segments, partials=shape.rows, segments=segments, length=length)


def make_plan(shape: Shape, writes: bool, device: Device) -> Plan:
    """Choose the regime: the fewest bytes moved first, then enough threads to keep the memory busy."""
    rows, classes = shape.rows, shape.classes
    packable = shape.x_row == classes and (not writes or shape.out_row == classes)
    if classes <= 32 and packable:
        return Plan("packed", 128, -(-rows // 128), options={"classes": classes}, partials=-(-rows // 32))

    vectors = vectors_of(shape)
    if not (are_few(rows, device) and classes >= SHORTEST_SPLIT):
        most = {group: MOST_VECTORS[shape.itemsize] * (2 if group == 512 else 1) for group in GROUPS}
        resident = resident_plan(shape, most)
        if resident is not None:
            return resident
        if writes and vectors * VECTOR <= device.shared_memory - RESERVED_SHARED:
            return Plan("staged", STREAM_BLOCK, rows, shared=vectors * VECTOR, partials=rows)
        if classes <= LONGEST_STREAM:
            return Plan("streamed", STREAM_BLOCK, rows, partials=rows)
    return split_plan(shape, max(-(-2 * device.multiprocessors // rows), -(-classes // (LONGEST_STREAM // 2))))


# ---- rows of an array


@dataclass
class Rows:
    """An array seen as evenly spaced rows whose classes are neighbours in memory.

    Or as rows across memory: `inner` of them are neighbours, their classes are `step` elements apart, and `stride` is
    the distance of the next `inner` rows.
    """

    array: Any  # shape (..., C)
    stride: int  # between rows, in elements
    inner: int = 0
    step: int = 1

    @property
    def classes(self) -> int:
        return int(self.array.shape[-1])

    @property
    def count(self) -> int:
        return int(np.prod(self.array.shape[:-1], dtype=np.int64))


def rows_of(array: Any) -> Rows | None:
    """See an array's last axis as classes, if no copy is needed for that."""
    size, shape, strides = array.dtype.itemsize, array.shape, array.strides
    if shape[-1] > 1 and strides[-1] != size:
        return None
    axes = [(n, stride) for n, stride in zip(shape[:-1], strides[:-1]) if n != 1]
    for (_, outer), (n, inner) in itertools.pairwise(axes):
        if outer != n * inner:
            return None
    stride = axes[-1][1] if axes else shape[-1] * size
    return Rows(array, stride // size) if stride % size == 0 else None


def rows_across(array: Any) -> Rows | None:
    """See an array's last axis as classes that are apart, of rows that are neighbours, if that is how it lies.

    Only an array without gaps, so that others can be laid out as it is.
    """
    size, shape = array.dtype.itemsize, array.shape
    axes: list[tuple[int, int]] = []  # lengths and strides of those before the last, neighbours joined
    for n, stride in zip(shape[:-1], array.strides[:-1]):
        if n == 1:
            continue
        if axes and axes[-1][1] == n * stride:
            axes[-1] = axes[-1][0] * n, stride
        else:
            axes.append((n, stride))
    if not 1 <= len(axes) <= 2 or axes[-1][1] != size or shape[-1] >= 2**31 - 64:
        return None
    expected = size
    for n, stride in sorted([*axes, (shape[-1], array.strides[-1])], key=lambda axis: axis[1]):
        if stride != expected:
            return None
        expected *= n
    if math.prod(shape[:-1]) < LEAST_ACROSS:
        return None
    return Rows(array, axes[0][1] // size if len(axes) == 2 else 0, axes[-1][0], array.strides[-1] // size)


def across_plan(x: Rows) -> Plan:
    """A thread for each row."""
    return Plan("across", 128, -(-x.count // 128), partials=-(-x.count // 32))


# ---- launches


@dataclass
class Job:
    """One task over rows, and everything a kernel is told about it."""

    device: Device
    task: str
    x: Rows
    out: Rows | None = None
    target: Any = None
    ignore_index: int = 0
    weight: Any = None
    upstream: Any = None  # one number for each row, or one for all
    scale: float = 1.0
    scale_at: Any = None
    value: Any = None

    def run(self, *, partial: bool = False) -> Any:
        """Launch; return the sums of losses that were asked for."""
        device, x = self.device, self.x
        itemsize = x.array.dtype.itemsize
        writes = self.task in WRITES
        out_row = self.out.stride if self.out else 0
        aligned = device.address(x.array) % VECTOR == 0 and (x.count == 1 or x.stride * itemsize % VECTOR == 0)
        shape = Shape(x.count, x.classes, itemsize, x.stride, out_row, aligned)
        plan = across_plan(x) if x.inner else make_plan(shape, writes, device)
        partials = device.xp.empty(plan.partials, np.float64) if partial else None
        options = {"storage": STORAGE[x.array.dtype.name], "task": _core.TASKS[self.task], "block": plan.block}
        arguments = self._arguments(out_row, partials)
        if plan.regime == "split":
            source = source_of("split.cu", tuple(options.items()))
            parts = device.xp.empty((2, x.count * plan.segments), value_dtype(x.array.dtype))
            logit = device.xp.empty(x.count, value_dtype(x.array.dtype))
            arguments += [parts[0], parts[1], logit, np.int64(plan.length), np.int32(plan.segments)]
            device.launch(source, "mlefast_scan", plan.grid, plan.block, 0, arguments)
            grid = plan.grid if writes else x.count
            device.launch(source, "mlefast_finish", grid, plan.block, 0, arguments)
        else:
            source = source_of("rows.cu", tuple({**options, "regime": plan.regime, **plan.options}.items()))
            arguments += [np.int64(x.inner), np.int64(x.step)]
            device.launch(source, "mlefast_rows", plan.grid, plan.block, plan.shared, arguments)
        return partials

    def _arguments(self, out_row: int, partials: Any) -> list[Any]:
        x = self.x
        return [
            x.array,
            self.out.array if self.out else None,
            np.int64(x.count),
            np.int64(x.classes),
            np.int64(x.stride),
            np.int64(out_row),
            self.target,
            np.int32(0 if self.target is None else INTEGERS[self.target.dtype.name]),
            np.int64(self.ignore_index),
            self.weight,
            self.upstream,
            np.int64(0 if self.upstream is None or self.upstream.ndim == 0 else 1),
            np.float64(self.scale),
            self.scale_at,
            self.value,
            partials,
        ]


class LossJob(Protocol):
    """What reductions need to know of a job."""

    device: Device
    x: Rows
    target: Any
    ignore_index: int
    weight: Any
    scale: float
    scale_at: Any
    value: Any

    def run(self, *, partial: bool = False) -> Any:
        """Launch; return the sums of losses that were asked for."""


def value_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of losses, weights and factors."""
    return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)


def _sums_source(dtype: np.dtype[Any]) -> str:
    return source_of("sums.cu", (("storage", STORAGE[value_dtype(dtype).name]), ("block", 256)))


def weigh(
    device: Device, target: Any, classes: int, ignore_index: int, weight: Any, dtype: np.dtype[Any]
) -> tuple[Any, Any]:
    """Sum up the weights of the targets that count; return the sums and the first wrong positions, by chunk."""
    rows = int(target.size)
    chunks = -(-rows // ROWS_CHUNK)
    sums, wrong = device.xp.empty(chunks, np.float64), device.xp.empty(chunks, np.int64)
    arguments = [
        target,
        np.int32(INTEGERS[target.dtype.name]),
        np.int64(rows),
        np.int64(ROWS_CHUNK),
        np.int64(classes),
        np.int64(ignore_index),
        weight,
        sums,
        wrong,
    ]
    device.launch(_sums_source(dtype), "mlefast_weigh", chunks, 256, 0, arguments)
    return sums, wrong


def add_up(
    device: Device,
    partials: Any,
    dtype: np.dtype[Any],
    *,
    total: Any = None,
    loss: Any = None,
    divisor: float = 1.0,
    divisor_at: Any = None,
    inverse: Any = None,
    numerator: float = 1.0,
) -> None:
    """Add up sums in an order that their number decides; the last level gives what is asked for."""
    source = _sums_source(dtype)
    rest: list[Any] = [None, np.float64(1), None, None, np.float64(1)]
    while partials.size > ROWS_CHUNK:
        chunks = -(-partials.size // ROWS_CHUNK)
        sums = device.xp.empty(chunks, np.float64)
        arguments = [partials, np.int64(partials.size), np.int64(ROWS_CHUNK), sums, *rest]
        device.launch(source, "mlefast_add", chunks, 256, 0, arguments)
        partials = sums
    last = [loss, np.float64(divisor), divisor_at, inverse, np.float64(numerator)]
    arguments = [partials, np.int64(partials.size), np.int64(ROWS_CHUNK), total, *last]
    device.launch(source, "mlefast_add", 1, 256, 0, arguments)


def divide_by_weight(job: LossJob) -> Any:
    """Divide a job's gradient by the weight of the targets that count; return where that weight will stand."""
    total, inverse = job.device.xp.empty((), np.float64), job.device.xp.empty((), np.float64)
    dtype = job.x.array.dtype
    sums, _ = weigh(job.device, job.target, job.x.classes, job.ignore_index, job.weight, dtype)
    add_up(job.device, sums, dtype, total=total, inverse=inverse, numerator=job.scale)
    job.scale, job.scale_at = 1.0, inverse
    return total


def reduce(job: LossJob, reduction: Reduction, denominator: float | None, loss: Any) -> None:
    """Run a loss and reduce it into `loss`, an array of no dimension."""
    device, dtype = job.device, job.x.array.dtype
    if denominator is not None or reduction == "sum":
        divisor = 1.0 if denominator is None else denominator
        job.scale = quotient(job.scale, divisor)
        add_up(device, job.run(partial=True), dtype, loss=loss, divisor=divisor)
    else:  # the gradient is scaled while it is written, so the mean's denominator is found first
        total = divide_by_weight(job)
        add_up(device, job.run(partial=True), dtype, loss=loss, divisor_at=total)
