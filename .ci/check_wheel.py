"""A wheel holds the module, its types, the rules' and CUDA sources, and the kernels of every instruction set."""

from __future__ import annotations

import platform
import sys
import zipfile

SETS = {"x86_64": ("Avx512", "Avx2", "Scalar"), "aarch64": ("Neon", "Scalar")}

for path in sys.argv[1:]:
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        core = [n for n in names if n.startswith("mlefast/_core.") and n.endswith(".so")]
        assert len(core) == 1, core
        for needed in ("mlefast/py.typed", "mlefast/_core.pyi", "mlefast/rules/state.h", "mlefast/rules/losses.h"):
            assert needed in names, needed
        assert any(n.startswith("mlefast/cuda/") for n in names)
        binary = wheel.read(core[0])
        for isa in SETS[platform.machine()]:
            assert isa.lower().encode() in binary, isa
        print(f"{path}: {len(names)} files, module of {len(binary) / 1e6:.1f} MB")
