"""What is launched for the losses of ``src/rules/term_losses.h``: their regimes, grids and arguments, as in cuda.py."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mlefast import _core
from mlefast._backends.cuda import (
    INTEGERS,
    STORAGE,
    STREAM_BLOCK,
    VECTOR,
    Device,
    Plan,
    Rows,
    Shape,
    across_plan,
    source_of,
)

# Numbers that a lane holds of all arrays together, by the logits' itemsize. With more of them, what the passes know of
# each would leave room for few warps.
MOST_NUMBERS = {2: 16, 4: 16, 8: 8}
FEW_LANES = (1, 2, 4)  # for rows of one vector for each lane
GROUPS = (8, 16, 32, 64, 128, 256, 512)  # up to 256 in float64, whose passes take more than 128 registers
RESERVED_SHARED = 2048  # bytes that reductions take of a block's shared memory
TOGETHER = 2  # vectors of each array that a thread of a streamed row has under way
ELEMENTS = 8192  # of an elementwise loss, that a block takes at least

OPTIONS = {  # rules::Options and what turns them off
    "keep": 1.0,
    "spread": 0.0,
    "z_loss": 0.0,
    "softcap": 0.0,
    "inverse_temperature": 1.0,
    "gamma": 0.0,
    "hessian": 1.0,
    "floor": 0.0,
}


def most_vectors(itemsize: int, arrays: int) -> int:
    """Return how many 16-byte vectors of logits a lane may hold beside those of other arrays."""
    return max(1, MOST_NUMBERS[itemsize] // arrays * itemsize // VECTOR)


def groups(itemsize: int) -> tuple[int, ...]:
    """Return how many lanes may share a row whose lanes hold several vectors."""
    return GROUPS[:-1] if itemsize == 8 else GROUPS


def make_plan(shape: Shape, arrays: int, device: Device) -> Plan:
    """Choose where a row is kept: in the registers of as few lanes as hold it, in shared memory or nowhere."""
    rows, lanes = shape.rows, VECTOR // shape.itemsize
    vectors = -(-(shape.classes + (0 if shape.aligned else lanes - 1)) // lanes)
    for group in (*FEW_LANES, *groups(shape.itemsize)):
        most = 1 if group in FEW_LANES else most_vectors(shape.itemsize, arrays)
        if vectors > group * most:
            continue
        options = {"group": group, "vectors": -(-vectors // group)}
        if group > 32:
            return Plan("resident", group, rows, options=options, partials=rows)
        together = 32 // group  # rows of a warp
        return Plan("resident", 128, -(-rows // (4 * together)), options=options, partials=-(-rows // together))
    options = {"together": TOGETHER}
    if vectors * VECTOR <= device.shared_memory - RESERVED_SHARED:
        return Plan("staged", STREAM_BLOCK, rows, shared=vectors * VECTOR, options=options, partials=rows)
    return Plan("streamed", STREAM_BLOCK, rows, options=options, partials=rows)


def make_element_plan(elements: int, period: int) -> tuple[Plan, int]:
    """Choose how many elements a block takes: whole periods of the classes' factors."""
    length = period * -(-ELEMENTS // period)
    grid = -(-elements // length)
    return Plan("elementwise", 256, grid, options={"together": TOGETHER}, partials=grid), length


def together_across(itemsize: int) -> int:
    """Return how many vectors of each array a thread of a row across memory has under way: of halves, eight numbers."""
    return 1 if itemsize == 2 else TOGETHER


@dataclass
class TermJob:
    """One loss over rows, and everything a kernel is told about it."""

    device: Device
    loss: str
    x: Rows
    out: Rows | None = None
    target: Any = None  # contiguous integers
    ignore_index: int = 0
    weight: Any = None
    upstream: Any = None  # one number for each row, or one for all
    scale: float = 1.0
    scale_at: Any = None
    value: Any = None
    options: dict[str, float] = field(default_factory=dict)
    probabilities: Rows | None = None
    v: Rows | None = None
    u: Rows | None = None
    positive: Any = None
    second: Rows | None = None
    second_upstream: Any = None
    second_scale: float = 1.0
    second_value: Any = None
    hit: Any = None
    period: int = 0  # of an elementwise loss: its classes; x is one row of all elements

    def run(self, *, partial: bool = False) -> Any:
        """Launch; return the sums of losses that were asked for."""
        device, x = self.device, self.x
        itemsize = x.array.dtype.itemsize
        length = 0
        if self.period:
            plan, length = make_element_plan(x.classes, self.period)
        elif x.inner:
            plan = replace(across_plan(x), options={"together": together_across(itemsize)})
        else:
            aligned = device.address(x.array) % VECTOR == 0 and (x.count == 1 or x.stride * itemsize % VECTOR == 0)
            out_row = self.out.stride if self.out else 0
            arrays = 1 + sum(a is not None for a in (self.probabilities, self.v, self.u))
            plan = make_plan(Shape(x.count, x.classes, itemsize, x.stride, out_row, aligned), arrays, device)
        partials = device.xp.empty(plan.partials, np.float64) if partial else None
        source = source_of("terms.cu", tuple(self._definitions(plan).items()))
        device.launch(source, "mlefast_terms", plan.grid, plan.block, plan.shared, self._arguments(partials, length))
        return partials

    def _definitions(self, plan: Plan) -> dict[str, Any]:
        smooths = self.options.get("spread", 0.0) != 0
        spreads = self.probabilities is not None or smooths  # every class has a target
        asks = {
            "index": self.target is not None,
            "probabilities": self.probabilities is not None,
            "smooths": smooths,
            "factors": self.positive is not None or (self.weight is not None and spreads),
            "capped": self.options.get("softcap", 0.0) != 0,
            "vector": self.v is not None,
            "units": self.u is not None,
            "writes": self.out is not None,
            "hits": self.hit is not None,
        }
        return {
            "storage": STORAGE[self.x.array.dtype.name],
            "task": _core.LOSSES[self.loss],
            "block": plan.block,
            "regime": plan.regime,
            **plan.options,
            **{f"asks_{name}": int(asked) for name, asked in asks.items()},
        }

    def _arguments(self, partials: Any, length: int) -> list[Any]:
        x = self.x
        arrays = (self.out, self.second, self.probabilities, self.v, self.u)
        upstreams = (self.upstream, self.second_upstream)
        return [
            x.array,
            *(None if a is None else a.array for a in arrays),
            np.int64(x.classes if length else x.count),
            np.int64(length or x.classes),
            np.int64(x.stride),
            *(np.int64(0 if a is None else a.stride) for a in arrays),
            np.int64(x.inner),
            np.int64(x.step),
            self.target,
            np.int32(0 if self.target is None else INTEGERS[self.target.dtype.name]),
            np.int64(self.ignore_index),
            self.weight,
            self.positive,
            np.int64(self.period),
            *upstreams,
            *(np.int64(0 if u is None or u.ndim == 0 else 1) for u in upstreams),
            np.float64(self.scale),
            np.float64(self.second_scale),
            self.scale_at,
            *(np.float64(self.options.get(name, off)) for name, off in OPTIONS.items()),
            self.value,
            self.second_value,
            self.hit,
            partials,
        ]
