"""NVRTC compiles every kernel, without a GPU: no spills, registers and shared memory within a recorded budget, 16-byte
accesses in the machine code.

``python -m cuda_tests.test_compile`` in tests/ prints the budget anew.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
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
DISASSEMBLED = "sm_90"
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
TERMS |= {  # the value alone
    f"{name}, alone": (TERMS[name][0], tuple(what for what in TERMS[name][1] if what != "writes"))
    for name in ("every option", "focal_loss", "kl_div", "js_div", "log_prob", "entropy", "binary, every option")
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
        "terms, split": terms(
            "split", cuda.STREAM_BLOCK, **together, passes=sum(1 << number for number in cuda_terms.passes(loss))
        ),
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


Case = tuple[str, str, str]  # architecture, dtype, task


def cases() -> list[Case]:
    """The whole product: every loss, with and without its output, storage type and architecture."""
    return list(itertools.product(ARCHITECTURES, ITEMSIZE, (*_core.TASKS, *TERMS)))


# Whose PTX differs: test_architectures_of_a_kind_have_the_same_ptx.
KINDS = {"sm_75": [], "sm_90": ["sm_80", "sm_86", "sm_89"], "sm_120": ["sm_100"]}
HEAVIEST = ("cross_entropy_and_grad", "every option", "js_div", "hvp, every option")
LARGEST = (  # of each loss
    *HEAVIEST,
    *("logsumexp", "log_softmax", "focal_loss", "kl_div", "log_prob", "grad_hess", "softmax_vjp", "log_softmax_vjp"),
    *("entropy", "binary, every option"),
)


def is_usual(case: Case) -> bool:
    """Whether a case is tried without asking for it: together they take two processors a few minutes."""
    architecture, dtype, task = case
    if task in HEAVIEST:
        return architecture in KINDS or dtype == "float32" or (dtype, task) == ("bfloat16", "cross_entropy_and_grad")
    if dtype == "float16":  # but for conversions, bfloat16's kernels
        return architecture in ("sm_75", "sm_90") and task in ("logsumexp", "log_softmax")
    return architecture == "sm_90" or (architecture in KINDS and task in LARGEST)


Reports = dict[str, tuple[nvrtc.Report, int]]  # by regime; the threads of a block


def compile_case(case: Case) -> Reports:
    architecture, dtype, task = case
    disassembled = nvrtc.DISASSEMBLER is not None and architecture == DISASSEMBLED
    chosen = modules(dtype, task)
    sources = [cuda.source_of(file, options) for file, options, _ in chosen.values()]
    reports = nvrtc.report_on(architecture, sources, disassembled=disassembled)
    return {name: (report, block) for (name, (_, _, block)), report in zip(chosen.items(), reports)}


def processes() -> ProcessPoolExecutor:
    """NVRTC compiles one program at a time in a process, whatever its threads."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> Iterator[dict[Case, Future[Reports]]]:
    """What was chosen of the cases, compiled on all processors while tests wait for it."""
    chosen = [
        item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_kernels_compile_within_their_budget"
    ]
    pool = processes()
    yield {case: pool.submit(compile_case, case) for case in chosen}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=" ".join(case), marks=() if is_usual(case) else pytest.mark.exhaustive) for case in cases()],
)
def test_kernels_compile_within_their_budget(case, compiled):
    architecture, dtype, task = case
    budget = json.loads(BUDGET.read_text())
    for name, (report, block) in compiled[case].result().items():
        assert report.kernels
        for kernel, used in report.kernels.items():
            where = f"{architecture} {dtype} {task} {name} {kernel}: {used}"
            assert used.spilled == 0, where
            assert used.stack == 0, where
            assert used.registers * block <= REGISTERS_OF_A_MULTIPROCESSOR, where
            registers, shared = budget[f"{name}, {dtype}"]
            assert used.registers <= registers + SLACK, where
            assert used.shared <= shared, where
        if nvrtc.DISASSEMBLER and architecture == DISASSEMBLED:
            check_machine_code(report.instructions, task, name)


def atomics(instructions: list[str]) -> list[str]:
    """Also those without a result; REDUX, a reduction over the lanes of a warp, is none."""
    return [i for i in instructions if re.match("ATOM|RED(?!UX)", i)]


def check_machine_code(instructions: list[str], task: str, name: str) -> None:
    assert "EXIT" in instructions
    assert not [i for i in instructions if i.startswith(("LDL", "STL"))], f"{name}: local memory"
    assert not atomics(instructions), f"{name}: atomics have no order"
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
    code = nvrtc.compile_for("sm_90", source)[0]
    other = 'extern "C" __global__ void add(double* x) { x[0] = x[1] + x[2]; }'
    instructions, others = nvrtc.disassemble("sm_90", code, nvrtc.compile_for("sm_90", other)[0])
    assert "EXIT" in instructions
    assert "DADD" in others
    assert "DADD" not in instructions
    assert any(i.startswith("LDG.E.128") for i in instructions)
    assert sum(i.startswith("MUFU.EX2") for i in instructions) >= 32  # an exponential for each number that a lane holds


@pytest.mark.skipif(nvrtc.DISASSEMBLER is None, reason="no nvdisasm here (pip install nvidia-cuda-nvdisasm); CI has it")
@pytest.mark.parametrize("add", ["atomicAdd(x, 1)", "x[1] = atomicAdd(x, 1)", "__shared__ int s; atomicAdd(&s, x[0])"])
def test_atomics_are_found(add):
    source = f'extern "C" __global__ void add(int* x) {{ {add}; x[2] = __reduce_max_sync(-1, x[3]); }}'
    (instructions,) = nvrtc.disassemble("sm_90", nvrtc.compile_for("sm_90", source)[0])
    assert atomics(instructions)
    assert "REDUX.MAX.S32" in instructions
    assert "REDUX.MAX.S32" not in atomics(instructions)


@pytest.mark.parametrize("kind", [kind for kind, others in KINDS.items() if others])
@pytest.mark.parametrize(
    ("dtype", "task", "name"),
    [
        ("bfloat16", "cross_entropy_and_grad", "streamed"),
        ("float32", "js_div", "terms, block"),
        ("float64", "hvp, every option", "terms, warp"),
    ],
)
def test_architectures_of_a_kind_have_the_same_ptx(kind, dtype, task, name):
    """So what is tried of each kind says of the others all but what their assembler makes of it."""
    source = cuda.source_of(*modules(dtype, task)[name][:2])
    text = nvrtc.ptx_for(kind, source)
    assert "mlefast_" in text
    for other in KINDS[kind]:
        assert nvrtc.ptx_for(other, source) == text, other


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
    (instructions,) = nvrtc.disassemble("sm_90", nvrtc.compile_for("sm_90", source)[0])
    assert "FADD" in instructions
    assert "FADD.FTZ" not in instructions


def print_budget() -> None:
    """The most that any task takes on any architecture."""
    found: dict[str, list[int]] = {}
    with processes() as pool:
        for case, reports in zip(cases(), pool.map(compile_case, cases())):
            for name, (report, _) in reports.items():
                most = found.setdefault(f"{name}, {case[1]}", [0, 0])
                for kernel, used in report.kernels.items():
                    if used.spilled or used.stack:
                        sys.stderr.write(f"{case} {name} {kernel}: {used}\n")
                    most[:] = max(most[0], used.registers), max(most[1], used.shared)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(most)}" for name, most in found.items())
    sys.stdout.write(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    print_budget()
