"""NVRTC compiles every kernel, without a GPU: no spills, registers and shared memory within a recorded budget, 16-byte
accesses in the machine code.

``python -m cuda_tests.test_compile`` in tests/ prints the budget anew.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cuda_tests import nvrtc
from mlefast import _core
from mlefast._backends import cuda, cuda_terms

pytestmark = pytest.mark.skipif(
    nvrtc.LIBRARY is None, reason="no NVRTC here (pip install nvidia-cuda-nvrtc); CI has it"
)

BUDGET = Path(__file__).with_name("budget.json")
ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
REGISTERS_OF_A_MULTIPROCESSOR = 65536
SLACK = 8  # registers by which compilers of other versions may differ


ASKS = ("index", "probabilities", "smooths", "factors", "capped", "vector", "units", "writes", "hits")
EVERY_OPTION = ("probabilities", "smooths", "factors", "capped", "writes", "hits")
TERMS = {  # losses of rules/term_losses.h, and what is asked of them
    "index": ("cross_entropy", ("index", "writes")),
    "smoothed index": ("cross_entropy", ("index", "smooths", "factors", "writes")),
    "capped index": ("cross_entropy", ("index", "capped", "writes")),
    "probabilities": ("cross_entropy", ("probabilities", "writes")),
    "every option": ("cross_entropy", EVERY_OPTION),
    "loss alone": ("cross_entropy", ("index", "smooths", "hits")),
    "focal_loss": ("focal_loss", ("index", "writes")),
    "kl_div": ("kl_div", ("probabilities", "writes")),
    "js_div": ("js_div", ("probabilities", "writes")),
    "log_prob": ("log_prob", ("index", "writes")),
    "hvp": ("cross_entropy_hvp", ("index", "vector", "writes")),
    "hvp, every option": ("cross_entropy_hvp", ("probabilities", "smooths", "factors", "capped", "vector", "writes")),
    "grad_hess": ("cross_entropy_grad_hess", ("probabilities", "smooths", "factors", "writes")),
    "softmax_vjp": ("softmax_vjp", ("vector", "writes")),
    "log_softmax_vjp": ("log_softmax_vjp", ("vector", "writes")),
    "entropy": ("entropy", ("writes",)),
    "binary": ("binary_cross_entropy", ("probabilities", "writes")),
    "binary, every option": (
        "binary_cross_entropy",
        ("probabilities", "smooths", "factors", "vector", "units", "writes"),
    ),
}
Modules = dict[str, tuple[str, tuple[tuple[str, object], ...], int]]


def term_modules(dtype: str, loss: str, asked: tuple[str, ...]) -> Modules:
    """The largest kernel of each regime of a loss of rules/term_losses.h."""
    arrays = 1 + len({"probabilities", "vector", "units"} & set(asked))
    vectors = cuda_terms.most_vectors(ITEMSIZE[dtype], arrays)
    common = {"storage": cuda.STORAGE[dtype], "task": _core.LOSSES[loss]}
    common |= {f"asks_{name}": int(name in asked) for name in ASKS}
    together = {"together": cuda_terms.TOGETHER}

    def terms(regime: str, block: int, **options: int):
        return "terms.cu", tuple({**common, "block": block, "regime": regime, **options}.items()), block

    if loss == "binary_cross_entropy":
        return {"terms, elements": terms("elementwise", 256, **together)}
    block = cuda_terms.groups(ITEMSIZE[dtype])[-1]
    return {
        "terms, warp": terms("resident", 128, group=32, vectors=vectors),
        "terms, block": terms("resident", block, group=block, vectors=vectors),
        "terms, staged": terms("staged", cuda.STREAM_BLOCK, **together),
        "terms, streamed": terms("streamed", cuda.STREAM_BLOCK, **together),
        "terms, across": terms("across", 128, together=cuda_terms.together_across(ITEMSIZE[dtype])),
    }


def modules(dtype: str, task: str) -> Modules:
    """The largest kernel of each regime: its file, options and threads."""
    if task in TERMS:
        return term_modules(dtype, *TERMS[task])
    most = cuda.MOST_VECTORS[ITEMSIZE[dtype]]
    common = {"storage": cuda.STORAGE[dtype], "task": _core.TASKS[task]}

    def rows(regime: str, block: int, **options: int):
        return "rows.cu", tuple({**common, "block": block, "regime": regime, **options}.items()), block

    return {
        "packed 10": rows("packed", 128, classes=10),
        "packed 32": rows("packed", 128, classes=32),
        "lanes": rows("resident", 128, group=8, vectors=most),
        "warp": rows("resident", 128, group=32, vectors=most),
        "block": rows("resident", 256, group=256, vectors=most),
        "large block": rows("resident", 512, group=512, vectors=2 * most),
        "staged": rows("staged", cuda.STREAM_BLOCK),
        "streamed": rows("streamed", cuda.STREAM_BLOCK),
        "across": rows("across", 128),
        "split": ("split.cu", tuple({**common, "block": cuda.STREAM_BLOCK}.items()), cuda.STREAM_BLOCK),
    }


def cases() -> list[tuple[str, str, str]]:
    """Every kernel and storage type on the oldest architecture and on Hopper, a part of the product on the others."""
    one_of_each = ("logsumexp", "log_softmax", "cross_entropy_and_grad")  # by what is written
    full = itertools.product(("sm_75", "sm_90"), ITEMSIZE, one_of_each)
    tasks = itertools.product(("sm_90",), ("float32",), _core.TASKS)
    part = itertools.product(ARCHITECTURES, ("float32", "bfloat16"), ("cross_entropy_and_grad",))
    largest = ("every option", "js_div", "hvp, every option")
    terms = itertools.product(("sm_90",), ("float32", "float64", "bfloat16"), TERMS)
    oldest = itertools.product(("sm_75",), ("float64",), largest)
    part_terms = itertools.product(ARCHITECTURES, ("float32",), largest)
    halves = itertools.product(("sm_75", "sm_90", "sm_120"), ("float16",), largest)
    return sorted({*full, *tasks, *part, *terms, *oldest, *part_terms, *halves})


def compile_all(architecture: str, dtype: str, task: str) -> dict[str, tuple[bytes, dict[str, nvrtc.Usage], int]]:
    def compiled(item):
        name, (file, options, block) = item
        code, report = nvrtc.compile_for(architecture, cuda.source_of(file, options))
        return name, (code, nvrtc.usage(report), block)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(compiled, modules(dtype, task).items()))


@pytest.mark.parametrize(("architecture", "dtype", "task"), cases())
def test_kernels_compile_within_their_budget(architecture, dtype, task):
    budget = json.loads(BUDGET.read_text())
    for name, (code, kernels, block) in compile_all(architecture, dtype, task).items():
        assert code
        for kernel, used in kernels.items():
            where = f"{architecture} {dtype} {task} {name} {kernel}: {used}"
            assert used.spilled == 0, where
            assert used.stack == 0, where
            assert used.registers * block <= REGISTERS_OF_A_MULTIPROCESSOR, where
            registers, shared = budget[f"{name}, {dtype}"]
            assert used.registers <= registers + SLACK, where
            assert used.shared <= shared, where
        if nvrtc.DISASSEMBLER and architecture == "sm_90":
            check_machine_code(code, task, name)


def check_machine_code(code: bytes, task: str, name: str) -> None:
    instructions = nvrtc.disassemble(code)
    assert not [i for i in instructions if i.startswith(("LDL", "STL"))], f"{name}: local memory"
    assert not [i for i in instructions if i.startswith(("ATOM", "RED."))], f"{name}: atomics have no order"
    if "across" in name:  # number by number, a run of memory for each warp
        return
    wide = [i for i in instructions if ".128" in i]
    assert any(i.startswith("LDG") for i in wide), f"{name}: no 16-byte loads"
    if task in cuda.WRITES or "writes" in TERMS.get(task, ("", ()))[1]:
        assert any(i.startswith("STG") for i in wide), f"{name}: no 16-byte stores"


@pytest.mark.skipif(nvrtc.DISASSEMBLER is None, reason="no nvdisasm here (pip install nvidia-cuda-nvdisasm); CI has it")
def test_machine_code_can_be_read():
    """The gate above reads instructions, not nothing."""
    source = cuda.source_of("rows.cu", modules("float32", "softmax")["warp"][1])
    instructions = nvrtc.disassemble(nvrtc.compile_for("sm_90", source)[0])
    assert "EXIT" in instructions
    assert any(i.startswith("LDG.E.128") for i in instructions)
    assert sum(i.startswith("MUFU.EX2") for i in instructions) >= 32  # an exponential for each number that a lane holds


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sums_compile(architecture):
    for storage in ("float", "double"):
        source = cuda.source_of("sums.cu", (("storage", storage), ("block", 256)))
        _, report = nvrtc.compile_for(architecture, source)
        for kernel, used in nvrtc.usage(report).items():
            assert used.spilled == used.stack == 0, (kernel, used)
            assert used.registers <= 64


def test_subnormal_numbers_are_kept():
    """Without -ftz=false the machine code would flush them; see CupyDevice for why this is worth a test."""
    source = 'extern "C" __global__ void add(float* x) { x[0] = x[1] + x[2]; }'
    if nvrtc.DISASSEMBLER is None:
        pytest.skip("no nvdisasm here (pip install nvidia-cuda-nvdisasm); CI has it")
    instructions = nvrtc.disassemble(nvrtc.compile_for("sm_90", source)[0])
    assert "FADD" in instructions
    assert "FADD.FTZ" not in instructions


def print_budget() -> None:
    """The most that any task takes on any architecture that is tested."""
    found: dict[str, list[int]] = {}
    for architecture, dtype, task in cases():
        for name, (_, kernels, _) in compile_all(architecture, dtype, task).items():
            most = found.setdefault(f"{name}, {dtype}", [0, 0])
            for kernel, used in kernels.items():
                if used.spilled or used.stack:
                    sys.stderr.write(f"{architecture} {dtype} {task} {name} {kernel}: {used}\n")
                most[:] = max(most[0], used.registers), max(most[1], used.shared)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(most)}" for name, most in found.items())
    sys.stdout.write(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    print_budget()
