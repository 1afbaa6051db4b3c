#!/usr/bin/env python3
"""Count the instructions of a few fixed calls with callgrind and hold them against those that were recorded.

Times vary with the machine and its mood; this number does not: a kernel that lost its vectors, or an inlined function,
shows at once. It says nothing of memory. Counts belong to a compiler's version; valgrind knows no AVX-512.

    tools/instructions.py            build the program, count, compare; exit status 1 if a count is off by more than 2 %
    tools/instructions.py --record   the same, but replace what was recorded for this compiler
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks/instructions.json"
TOLERANCE = 0.02
VECTORS = {"x86_64": "avx2", "aarch64": "neon"}
JOBS = (("cross_entropy_and_grad", "float32", 512, 1000), ("cross_entropy_and_grad", "float32", 20000, 10))


def build(folder: Path) -> Path:
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DMLEFAST_PYTHON=OFF", "-DMLEFAST_CPP_BENCHMARKS=ON"]
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    for command in (
        ["cmake", "-S", ROOT, "-B", folder, *generator, *options],
        ["cmake", "--build", folder, "--target", "count"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}")
    return folder / "benchmarks/count"


def count(program: Path, job: tuple[str, str, int, int], isa: str, folder: Path) -> tuple[int, str] | None:
    """Return the number of instructions and the compiler; None where valgrind has no such instruction set."""
    out = folder / "callgrind.out"
    watch = ["valgrind", "--tool=callgrind", "--toggle-collect=counted_call", f"--callgrind-out-file={out}"]
    done = subprocess.run([*watch, program, *map(str, job), isa], capture_output=True, text=True, check=False)
    if "no instruction set" in done.stderr:
        return None
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")
    total = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    compiler = re.search(r"^compiler (.+)$", done.stdout, re.MULTILINE)
    if total is None or compiler is None or int(total[1]) == 0:
        sys.exit(f"callgrind counted nothing:\n{done.stdout}{done.stderr}")
    return int(total[1]), compiler[1]


def verdict(name: str, got: int, want: int | None) -> tuple[bool, str]:
    """Tell whether a count is as recorded, and what to say of it."""
    if want is None:
        return True, f"{name}: {got} instructions; nothing was recorded for this compiler (--record does it)"
    change = got / want - 1
    line = f"{name}: {got} instructions, {want} recorded ({change:+.1%})"
    if abs(change) <= TOLERANCE:
        return True, line
    if change > 0:
        return False, f"{line}: more than {TOLERANCE:.0%} above. Find out why, or --record if it is worth it"
    return False, f"{line}: fewer, which is good. --record, so that they stay so"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="replace what was recorded for this compiler")
    parser.add_argument("--build", type=Path, help="folder to build in; a temporary one by default")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not installed (Debian: valgrind)")
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = build(arguments.build or folder / "build")
        for job in JOBS:
            for isa in (VECTORS.get(platform.machine(), "scalar"), "scalar"):
                name = f"{job[0]} {job[1]} {job[2]}x{job[3]} {isa}"
                counted = count(program, job, isa, folder)
                if counted is None:
                    print(f"{name}: not counted, valgrind or this processor lacks it")
                    continue
                got, compiler = counted
                known = record.setdefault(f"{compiler}, {platform.machine()}", {})
                if arguments.record:
                    known[name] = got
                fine, line = verdict(name, got, known.get(name))
                print(line)
                good = good and fine
    if arguments.record:
        RECORD.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
