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
    are_few,
    resident_plan,
    source_of,
    split_plan,
    vectors_of,
)

# Numbers that a lane holds of all arrays together, by the logits' itemsize. With more of them, what the passes know of
# each would leave room for few warps.
MOST_NUMBERS = {2: 16, 4: 16, 8: 8}
FEW_LANES = (1, 2, 4)  # for rows of one vector for each lane
GROUPS = (8, 16, 32, 64, 128, 256, 512)  # up to 256 in float64, whose passes take more than 128 registers
RESERVED_SHARED = 2048  # bytes that reductions take of a block's shared memory
TOGETHER = 2  # vectors of each array that a thread of a streamed row has under way
SHORTEST_SPLIT = 32768  # classes for which up to four launches in place of one pay
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

# The launches of rows that several blocks share: one for each pass of a loss. `passes` in term_split.cuh says the same,
# and a kernel for which it does not is not compiled.
PASSES = {"extremes": 0, "sums": 1, "later": 2, "outputs": 3}
WITHOUT_SOFTMAX = ("softmax_vjp", "log_softmax_vjp", "entropy")
WITH_LATER = ("kl_div", "js_div", "cross_entropy_hvp")
PART_NUMBERS = 10  # that a block leaves for the next launches


def passes(loss: str) -> list[int]:
    """Return the launches that a loss takes, in order."""
    left_out = {"extremes": loss in WITHOUT_SOFTMAX, "later": loss not in WITH_LATER}
    return [number for name, number in PASSES.items() if not left_out.get(name)]


def most_vectors(itemsize: int, arrays: int) -> int:
    """Return how many 16-byte vectors of logits a lane may hold beside those of other arrays."""
    return max(1, MOST_NUMBERS[itemsize] // arrays * itemsize // VECTOR)


def groups(itemsize: int) -> tuple[int, ...]:
    """Return how many lanes may share a row whose lanes hold several vectors."""
    return GROUPS[:-1] if itemsize == 8 else GROUPS


def make_plan(shape: Shape, arrays: int, device: Device) -> Plan:
    """Choose where a row is kept: in the registers of as few lanes as hold it, in shared memory or nowhere."""
    options = {"together": TOGETHER}
    if are_few(shape.rows, device) and shape.classes >= SHORTEST_SPLIT:
        return replace(split_plan(shape, -(-2 * device.multiprocessors // shape.rows)), options=options)
    most = dict.fromkeys(FEW_LANES, 1)
    most |= dict.fromkeys(groups(shape.itemsize), most_vectors(shape.itemsize, arrays))
    resident = resident_plan(shape, most)
    if resident is not None:
        return resident
    rows, shared = shape.rows, VECTOR * vectors_of(shape)
    if shared <= device.shared_memory - RESERVED_SHARED:
        return Plan("staged", STREAM_BLOCK, rows, shared=shared, options=options, partials=rows)
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
        parts = None
        launches = [0]
        if plan.regime == "split":
            parts, launches = device.xp.empty((plan.grid, PART_NUMBERS), np.float64), passes(self.loss)
        source = source_of("terms.cu", tuple(self._definitions(plan).items()))
        arguments = self._arguments(partials, length)
        arguments += [parts, np.int64(plan.length), np.int32(plan.segments)]
        for number in launches:
            device.launch(source, "mlefast_terms", plan.grid, plan.block, plan.shared, [*arguments, np.int32(number)])
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
            **({"passes": sum(1 << number for number in passes(self.loss))} if plan.regime == "split" else {}),
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
