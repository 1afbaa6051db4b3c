"""Which kernel is launched for which shape, and what it moves: bytes counted against the least that there are."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast
from cuda_tests.kernel_cases import DTYPES, at_offset, name_of, needs_emulator
from mlefast._backends import cuda


class Hopper:
    """The limits of an H100."""

    multiprocessors, shared_memory = 132, 227 * 1024


def shape(rows: int, classes: int, itemsize: int, aligned: bool = True) -> cuda.Shape:
    return cuda.Shape(rows, classes, itemsize, classes, classes, aligned)


@pytest.mark.parametrize(
    ("rows", "classes", "itemsize", "writes", "regime"),
    [
        (65536, 10, 4, True, "packed"),
        (65536, 32, 2, True, "packed"),
        (65536, 33, 4, True, "resident"),
        (8192, 1000, 4, True, "resident"),
        (1024, 32000, 4, True, "resident"),
        (1024, 32768, 2, True, "resident"),
        (1024, 50257, 4, True, "staged"),
        (1024, 50257, 4, False, "streamed"),
        (256, 128256, 4, True, "streamed"),
        (1024, 65536, 2, True, "staged"),
        (1, 128256, 2, True, "split"),
        (16, 32000, 4, False, "split"),
        (4096, 2**20, 4, True, "split"),
        (1, 1000, 4, True, "resident"),
    ],
)
def test_regimes(rows, classes, itemsize, writes, regime):
    assert cuda.make_plan(shape(rows, classes, itemsize), writes, Hopper()).regime == regime


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("aligned", [True, False])
def test_plans_cover_their_rows(itemsize, aligned):
    lanes = 16 // itemsize
    for rows in (1, 7, 64, 67, 100_000):
        for classes in (*range(33, 5000, 37), 8192, 16384, 32767, 2**17, 2**21 + 1):
            plan = cuda.make_plan(shape(rows, classes, itemsize, aligned), True, Hopper())
            needed = -(-(classes + (0 if aligned else lanes - 1)) // lanes)
            if plan.regime == "resident":
                group, vectors = plan.options["group"], plan.options["vectors"]
                assert group * vectors >= needed
                assert group * (vectors - 1) < needed
                assert plan.grid * (plan.block // group) >= rows > (plan.grid - 1) * (plan.block // group)
                assert plan.partials == (rows if group >= 32 else -(-rows // (32 // group)))
            if plan.regime == "split":
                assert plan.length % lanes == 0
                assert (plan.segments - 1) * plan.length < classes <= plan.segments * plan.length
                assert plan.length < 2**31
            if plan.regime == "staged":
                assert needed * 16 <= plan.shared <= Hopper.shared_memory - 1024


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ((48, 4), 12),
        ((64, 4), 16),
        ((0, 4), 0),
        ((-48, 4), -12),
        ((48, 8), None),
        ((48, -4), None),
        ((50, 4), None),
    ],
)
def test_rows_of_an_array(strides, expected):
    array = np.lib.stride_tricks.as_strided(np.zeros(400, np.float32)[200:], (4, 12), strides)
    rows = cuda.rows_of(array)
    assert (None if rows is None else rows.stride) == expected


def test_rows_of_several_axes():
    x = np.zeros((3, 4, 5), np.float32)
    assert cuda.rows_of(x).stride == 5
    assert cuda.rows_of(x.transpose(1, 0, 2)) is None
    assert cuda.rows_of(x[:, :1]).stride == 20
    assert cuda.rows_of(x[:, ::2]).stride == 10
    assert cuda.rows_of(x[:, ::3]) is None
    assert cuda.rows_of(x[::2, :1]).stride == 40


def test_a_source_is_one_text_with_everything_in_it_once():
    text = cuda.source_of("rows.cu", (("storage", "float"),))
    assert text.startswith("#define MLEFAST_STORAGE float\n")
    assert "#include" not in text
    for once in ("struct Window", "class Window", "struct State", "struct CrossEntropyGrad", "void resident_rows"):
        assert text.count(once + " ") + text.count(once + "(") <= 1
    assert cuda.source_of("rows.cu", (("storage", "double"),)) != text


# ---- traffic

TASKS = ["logsumexp", "softmax", "log_softmax", "cross_entropy", "cross_entropy_and_grad"]


def traffic(task: str, x: np.ndarray):
    device = EmulatedDevice()
    mlefast = EmulatedMlefast(device)
    y = np.arange(len(x)) % x.shape[1]
    if task.startswith("cross_entropy"):
        getattr(mlefast, task)(x, y, reduction="none")
    else:
        getattr(mlefast, task)(x)
    assert len(device.launches) == (2 if device.regimes() == {"split"} else 1)
    return device, device.launches[-1][-1]


@needs_emulator
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@pytest.mark.parametrize(
    ("classes", "regime"), [(10, "packed"), (32, "packed"), (64, "resident"), (1000, "resident"), (8192, "resident")]
)
def test_each_byte_is_read_once_and_written_once(task, dtype, classes, regime):
    """Requested bytes are the least possible but for targets, their logits and losses; 16-byte accesses carry them."""
    rows = 64 if classes <= 64 else 8
    x = at_offset(np.zeros((rows, classes), dtype), 0)
    device, seen = traffic(task, x)
    assert device.regimes() == {regime}
    lanes = max(32, device.launches[-1][3])  # at most so many ask for their row's target and its logit
    beside = rows * lanes * (8 + 8 + x.itemsize) * task.startswith("cross")
    assert x.nbytes <= seen.requested["global read"] <= x.nbytes + beside
    assert seen.wide["global read"] == x.nbytes
    straddled = rows * 64  # sectors that two rows, or two warps, share
    assert seen.sectors["global read"] <= x.nbytes + straddled + rows * 96 * (lanes // 32) * task.startswith("cross")
    written = seen.requested.get("global write", 0)
    if task in cuda.WRITES:
        value = rows * 8 + rows * x.itemsize  # the loss, and the target's entry
        assert x.nbytes <= written <= x.nbytes + value * task.startswith("cross")
        assert seen.wide["global write"] == x.nbytes
    else:
        assert written == rows * (8 if x.itemsize == 8 else 4)
    assert seen.buffers[0] == (x.nbytes, 0)
    assert seen.bank_conflict <= (2.1 if regime == "packed" else 1.1)


@needs_emulator
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_rows_of_odd_length_are_read_in_vectors_too(dtype):
    """Rows that begin anywhere: all but a head and a tail of each in 16-byte accesses, and still once."""
    x = at_offset(np.zeros((8, 1001), dtype), 3)
    _, seen = traffic("softmax", x)
    assert seen.requested["global read"] == seen.requested["global write"] == x.nbytes
    assert seen.wide["global read"] >= x.nbytes - 8 * 32


@needs_emulator
@pytest.mark.parametrize(("regime", "reads"), [("staged", 1), ("streamed", 2)])
def test_what_does_not_fit_in_registers(regime, reads):
    """A staged row is read once, a streamed one twice; each is written once."""
    x = at_offset(
        np.zeros((3, 40000 if regime == "staged" else 30000), np.float16 if regime == "staged" else np.float64), 0
    )
    device, seen = traffic("softmax", x)
    assert device.regimes() == {regime}
    assert seen.requested["global read"] == reads * x.nbytes == seen.wide["global read"]
    assert seen.requested["global write"] == x.nbytes
    assert seen.buffers[0] == (x.nbytes, 0)
    assert x.nbytes <= seen.buffers[1][1] <= x.nbytes + 32  # the output begins anywhere
