"""Choice of the instruction set, what an import costs, the compiled module's own exp."""

from __future__ import annotations

import importlib.metadata
import statistics
import subprocess
import sys

import cases
import mlefast as mf
import numpy as np
import pytest
from mlefast import _core
from test_threads import python


def test_show_config():
    config = mf.show_config()
    assert config["isa"] == _core.isa()
    assert config["isas"] == cases.ISAS
    assert config["version"] == mf.__version__ == importlib.metadata.version("mlefast")
    assert config["isas"][-1] == "scalar"


@pytest.mark.parametrize("name", cases.ISAS)
def test_environment_forces_an_instruction_set(name):
    assert python("import mlefast; print(mlefast.show_config()['isa'])", MLEFAST_ISA=name) == name


@pytest.mark.parametrize("name", ["sse9", "AVX2", "neon " if "neon" in cases.ISAS else "neon"])
def test_unknown_or_unsupported_instruction_set_is_refused(name):
    error = python("import mlefast", MLEFAST_ISA=name)
    assert f"ImportError: MLEFAST_ISA: no instruction set '{name}' here" in error
    assert "scalar" in error
    with pytest.raises(ValueError, match="no instruction set"):
        _core.set_isa(name)


def test_import_leaves_heavy_libraries_alone():
    loaded = python("import sys, mlefast; print(sorted(m for m in ('sklearn', 'scipy', 'pandas', 'typer', 'rich', "
                    "'matplotlib', 'torch') if m in sys.modules))")  # fmt: skip
    assert loaded == "[]"


def test_estimators_are_found_when_touched():
    assert python("import mlefast; print(mlefast.SoftmaxClassifier.__module__)").startswith("mlefast.estimators")
    assert "SoftmaxClassifier" in dir(mf)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mf.nothing


def test_import_executes_little_beyond_numpy():
    """Counted in modules: a time would depend on the machine. (The benchmark of the import is in docs.)"""
    count = "import sys, numpy; before = len(sys.modules); import mlefast; print(len(sys.modules) - before)"
    extra = statistics.median(int(python(count)) for _ in range(1))
    assert extra <= 25


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_exp_keeps_its_promise(isa, dtype):
    """At most 1 ULP from the true value for every argument <= 0, denormal results included: here for a sample."""
    r = np.random.default_rng(0)
    lowest = {np.float32: -104.0, np.float64: -746.0}[dtype]
    n = np.arange(0, -lowest / np.log(2), dtype=np.float64)
    borders = -np.concatenate([n * np.log(2), (n + 0.5) * np.log(2)])  # where the reduction of the argument changes
    x = np.concatenate(
        [
            r.uniform(lowest, 0, 200_000),
            -(10.0 ** r.uniform(-40, 3, 100_000)),
            np.nextafter(borders, 0),
            borders,
            np.nextafter(borders, -np.inf),
            [0.0, -0.0, -np.inf, -1e30, -np.finfo(dtype).max, -np.finfo(dtype).smallest_subnormal],
        ]
    ).astype(dtype)
    want = np.exp(x.astype(np.longdouble))
    unit = np.maximum(np.spacing(want.astype(dtype)), np.finfo(dtype).smallest_subnormal).astype(np.longdouble)
    error = np.abs(_core.exp(x) - want) / unit
    assert error.max() <= 1.0
    assert np.isnan(_core.exp(np.array([np.nan], dtype))[0])
    assert _core.exp(np.zeros(1, dtype))[0] == 1


@pytest.mark.exhaustive
def test_exp_keeps_its_promise_for_every_float32(isa):
    worst = 0.0
    for first in range(0, 0x7F800001, 1 << 24):  # the bits of 0 to infinity, with the sign set
        bits = np.arange(first, min(first + (1 << 24), 0x7F800001), dtype=np.uint32) | np.uint32(0x80000000)
        x = bits.view(np.float32)
        if x[0] < -110:  # exactly 0 from here on
            assert not _core.exp(x).any()
            continue
        want = np.exp(x.astype(np.float64))
        unit = np.maximum(np.spacing(want.astype(np.float32)).astype(np.float64), 2.0**-149)
        worst = max(worst, float((np.abs(_core.exp(x) - want) / unit).max()))
    print(f"exp, float32, {isa}: at most {worst:.4f} ULP")
    assert worst <= 1.0


def test_package_is_marked_as_typed_and_ships_its_sources():
    files = {str(f) for f in importlib.metadata.files("mlefast") or []}
    names = {f.rpartition("mlefast/")[2] for f in files}
    if any(f.endswith(("_editable.pth", ".pth")) for f in files):
        pytest.skip("an editable install lists no files")
    assert {"py.typed", "_core.pyi", "rules/state.h", "rules/losses.h"} <= names


def test_help_of_the_module():
    done = subprocess.run([sys.executable, "-c", "help('mlefast')"], capture_output=True, text=True, timeout=60)
    assert "cross_entropy_and_grad" in done.stdout
