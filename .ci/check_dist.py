"""What is shipped, checked file by file: check_dist.py FILE..., from the root of a checkout.

A wheel holds the module, its types, the rules' and CUDA sources, and the kernels of every instruction set; an sdist
holds tracked files and its metadata, nothing that happened to lie about.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tarfile
import zipfile

SETS = {"x86_64": ("Avx512", "Avx2", "Scalar"), "aarch64": ("Neon", "Scalar")}


def check_wheel(path: str) -> None:
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        core = [n for n in names if n.startswith("mlefast/_core.") and n.endswith(".so")]
        assert len(core) == 1, core
        needs = ("py.typed", "_core.pyi", "rules/state.h", "rules/losses.h", "cli/report.html")
        for needed in (f"mlefast/{name}" for name in needs):
            assert needed in names, needed
        assert any(n.startswith("mlefast/cuda/") for n in names)
        binary = wheel.read(core[0])
        for isa in SETS[platform.machine()]:
            assert isa.lower().encode() in binary, isa
        print(f"{path}: {len(names)} files, module of {len(binary) / 1e6:.1f} MB")


def check_sdist(path: str) -> None:
    tracked = set(subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines())
    with tarfile.open(path) as sdist:
        names = {member.name.partition("/")[2] for member in sdist.getmembers() if not member.isdir()}
    stray = names - tracked - {"PKG-INFO"}
    assert not stray, f"{path} holds files that are not tracked: {sorted(stray)[:5]}"
    for needed in ("CMakeLists.txt", "src/rules/state.h", "python/mlefast/__init__.py", "tests/reference.py"):
        assert needed in names, needed
    print(f"{path}: {len(names)} files")


for path in sys.argv[1:]:
    (check_wheel if path.endswith(".whl") else check_sdist)(path)
