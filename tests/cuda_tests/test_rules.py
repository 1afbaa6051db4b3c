"""The rules of one row, unchanged, compile for a GPU: for every task, storage type and architecture, without spills."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from cuda_tests import nvrtc

pytestmark = pytest.mark.skipif(
    nvrtc.LIBRARY is None, reason="no NVRTC here (pip install nvidia-cuda-nvrtc); CI has it"
)

ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]

KERNEL = r"""
#include "cuda/ops.cuh"
using namespace mlefast;

// Two threads' parts of a row are merged; each task's formulas are written out.
template <class T> __device__ void all(const T* x, T* y) {
  using Ops = Thread<T>;
  const int i = threadIdx.x * 8;
  rules::State<Ops> a{x[i], x[i + 1]}, b{x[i + 2], x[i + 3]};
  const auto row = rules::merge(a, b);
  y[i] = rules::LogSumExp::value(row, x[i + 4]);
  y[i + 1] = rules::Softmax::factor(row, x[i + 5]);
  y[i + 2] = rules::LogSoftmax::log_total(row);
  y[i + 3] = rules::CrossEntropy::value(row, x[i + 4]);
  const T factor = rules::CrossEntropyGrad::factor(row, x[i + 5]);
  y[i + 4] = rules::CrossEntropyGrad::at_target(row, x[i + 4], factor);
}
extern "C" __global__ void all_float(const float* x, float* y) { all(x, y); }
extern "C" __global__ void all_double(const double* x, double* y) { all(x, y); }
"""


def sources() -> dict[str, str]:
    """The headers as the wheel ships them, or as they stand in a checkout."""
    shipped = Path(str(files("mlefast")))
    root = shipped if (shipped / "rules").is_dir() else Path(__file__).parents[2] / "src"
    found = {
        str(path.relative_to(root)): path.read_text()
        for folder in ("rules", "cuda")
        for path in (root / folder).iterdir()
    }
    return {
        **found,
        **{f"../{name}": text for name, text in found.items()},
        **{Path(n).name: t for n, t in found.items()},
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rules_compile_for_a_gpu(architecture):
    code, report = nvrtc.compile_for(architecture, KERNEL, sources())
    assert code
    assert report.count("0 bytes spill stores, 0 bytes spill loads") == 2, report
