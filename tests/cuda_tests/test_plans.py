"""Which kernel is launched for which shape, and what it moves: bytes counted against the least that there are."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast
from cuda_tests.kernel_cases import DTYPES, at_offset, name_of, needs_emulator
from mlefast import _core
from mlefast._backends import cuda, cuda_terms


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
    ("rows", "classes", "itemsize", "arrays", "regime"),
    [
        (65536, 10, 4, 1, "resident"),
        (1, 8192, 4, 1, "resident"),
        (1024, 32000, 4, 1, "staged"),
        (1, 32000, 4, 1, "staged"),  # launches would cost more than they spare
        (1024, 128256, 4, 1, "streamed"),
        (1024, 2**21, 2, 2, "streamed"),
        (66, 32768, 2, 2, "split"),
        (67, 32768, 2, 2, "staged"),
        (67, 128256, 4, 1, "streamed"),
        (1, 2**21 + 1, 8, 3, "split"),
    ],
)
def test_regimes_of_the_family(rows, classes, itemsize, arrays, regime):
    assert cuda_terms.make_plan(shape(rows, classes, itemsize), arrays, Hopper()).regime == regime


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("aligned", [True, False])
def test_plans_of_the_family_cover_their_rows(itemsize, aligned):
    lanes = 16 // itemsize
    for rows in (1, 2, 7, 66, 67, 100_000):
        for classes in (*range(1, 5000, 37), 8192, 16384, 32768, 32769, 2**17, 2**21 + 1):
            for arrays in (1, 2, 3):
                plan = cuda_terms.make_plan(shape(rows, classes, itemsize, aligned), arrays, Hopper())
                needed = -(-(classes + (0 if aligned else lanes - 1)) // lanes)
                if plan.regime == "resident":
                    group, vectors = plan.options["group"], plan.options["vectors"]
                    assert group * (vectors - 1) < needed <= group * vectors
                    assert vectors == 1 or vectors <= cuda_terms.most_vectors(itemsize, arrays)
                    assert plan.grid * (plan.block // group) >= rows > (plan.grid - 1) * (plan.block // group)
                    assert plan.partials == (rows if group >= 32 else -(-rows // (32 // group)))
                if plan.regime == "split":
                    assert plan.length % lanes == 0
                    assert plan.length >= cuda.SHORTEST_SEGMENT
                    assert (plan.segments - 1) * plan.length < classes <= plan.segments * plan.length
                    assert plan.grid == rows * plan.segments <= 3 * Hopper.multiprocessors
                    assert plan.partials == rows
                if plan.regime == "staged":
                    assert needed * 16 <= plan.shared <= Hopper.shared_memory - cuda_terms.RESERVED_SHARED


def test_launches_of_split_rows():
    """The least that a loss takes, in order; that they are the right ones, the kernel's own assertion says."""
    assert cuda_terms.passes("cross_entropy") == [0, 1, 3]
    assert cuda_terms.passes("kl_div") == [0, 1, 2, 3]
    assert cuda_terms.passes("entropy") == [1, 3]
    assert {*cuda_terms.WITHOUT_SOFTMAX, *cuda_terms.WITH_LATER} < {*_core.LOSSES}


@needs_emulator
def test_launches_that_a_loss_does_not_take_are_not_compiled():
    from cuda_emulator.device import without_ptx
    from cuda_emulator.emulator import Module
    from cuda_tests.test_compile import TERMS, term_modules

    for name, passes in (("focal_loss", 15), ("js_div", 11), ("entropy", 11)):
        file, options, _ = term_modules("float32", *TERMS[name])["terms, split"]
        source = cuda.source_of(file, tuple({**dict(options), "passes": passes}.items()))
        with pytest.raises(RuntimeError, match="launches that the loss does not take"):
            Module(without_ptx(source))


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
