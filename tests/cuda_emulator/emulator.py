"""Runs CUDA kernels on the CPU, from the very text that NVRTC gets, and reports what they do wrong.

A kernel's source is compiled by g++ with ``-fsanitize=thread``, whose call at every access to memory ends in our own
runtime: bounds, alignment, races between barriers, reads of shared memory that was never written, divergent barriers,
collectives whose lanes disagree, deadlocks, and the traffic that the accesses make. Each CUDA thread is a fiber; the
order in which they run is chosen, and they can be preempted at any access.

What it cannot tell: times, device arithmetic to the last bit (``ulps`` gives exp and log1p an error instead), caches.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
MOST_SHARED = 227 * 1024
CACHE = Path(os.environ.get("MLEFAST_EMULATOR_CACHE", Path(tempfile.gettempdir()) / f"mlefast-emulator-{os.getuid()}"))

COMMON = ["-std=c++17", "-fPIC", "-g1", "-w", "-fno-gnu-unique", "-fno-extern-tls-init", "-march=native"]
# One call for each access: no vectoriser, and no splitting of a 16-byte vector into its parts.
CHECKED = ["-O1", "-fsanitize=thread", "-fno-tree-sra", "-fno-ipa-sra", "-fno-tree-vectorize", "-ffp-contract=fast"]
CHECKED += ["--param", "tsan-instrument-func-entry-exit=0"]


class EmulatorError(AssertionError):
    """What a kernel did wrong."""


class _Configuration(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("grid", "block", "dynamic", "order", "preempt", "block_count")),
        ("ulps", ctypes.c_float),
        ("seed", ctypes.c_uint64),
        ("budget", ctypes.c_uint64),
        ("blocks", ctypes.POINTER(ctypes.c_uint32)),
    )


@dataclass
class Schedule:
    """In which order threads and blocks run, and how wrong exp and log1p are."""

    order: str = "forward"  # "forward", "backward", "random"
    preempt: int = 0  # of 1024 accesses, how many are followed by a switch to another thread
    ulps: float = 0.0
    seed: int = 0
    budget: int = 0  # accesses until a kernel counts as endless; 0: no limit
    blocks: list[int] | None = None  # those to run; None: all

    def but(self, **changes: Any) -> Schedule:
        """The same with changes."""
        return replace(self, **changes)


@dataclass
class Traffic:
    """What a launch moved: bytes that lanes asked for, 32-byte sectors that warps asked for, by kind of access."""

    requested: dict[str, int] = field(default_factory=dict)  # "global read", "shared write", ...
    wide: dict[str, int] = field(default_factory=dict)  # of them, by 16-byte accesses
    sectors: dict[str, int] = field(default_factory=dict)  # bytes of sectors
    bank_conflict: float = 1.0  # wavefronts of shared memory over the least there could be
    buffers: list[tuple[int, int]] = field(default_factory=list)  # bytes of different sectors read and written


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(" ".join(command) + "\n" + done.stderr)
    return done.stdout


def _span(array: np.ndarray) -> tuple[int, int]:
    """Where an array's memory begins, and how long it is."""
    reach = [(n - 1) * stride for n, stride in zip(array.shape, array.strides)] if array.size else [-array.itemsize]
    below, above = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
    return array.ctypes.data + (below if array.size else 0), above - below + array.itemsize if array.size else 0


@cache
def _runtime() -> tuple[list[str], str]:
    """The runtime's object files and a hash of all that modules depend on but their own source."""
    assert COMPILER is not None
    texts = [path.read_bytes() for path in sorted(HERE.iterdir()) if path.is_file()]
    processor = _run([COMPILER, "-march=native", "-Q", "--help=target"])
    key = hashlib.sha256(b"".join(texts) + processor.encode()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    objects = []
    for name in ("runtime.cpp", "memory.cpp"):
        made = CACHE / f"{name}-{key}.o"
        if not made.exists():
            part = made.with_suffix(f".{os.getpid()}")
            _run([COMPILER, *COMMON, "-O2", "-c", str(HERE / name), "-o", str(part)])
            part.replace(made)
        objects.append(str(made))
    return objects, key


@cache
def _header() -> Path:
    """A copy of device.h with its precompiled form beside it, which halves the time that a module takes."""
    assert COMPILER is not None
    header = CACHE / f"device-{_runtime()[1]}.h"
    compiled = header.with_suffix(".h.gch")
    if not compiled.exists():
        header.write_bytes((HERE / "device.h").read_bytes())
        part = compiled.with_suffix(f".{os.getpid()}")
        _run([COMPILER, *COMMON, *CHECKED, "-x", "c++-header", str(header), "-o", str(part)])
        part.replace(compiled)
    return header


def _thread_locals(path: Path) -> list[tuple[str, bool, int, int]]:
    """Names of a file's thread-local symbols, whether they are defined there, their offsets and sizes."""
    found = []
    for line in _run(["readelf", "-sW", str(path)]).splitlines():
        part = line.split()
        if len(part) >= 8 and part[3] == "TLS":
            found.append((part[7], part[6] != "UND", int(part[1], 16), int(part[2], 0)))
    return sorted(set(found))


def build(source: str) -> Path:
    """Compile a translation unit; return the shared library. Unchanged sources are compiled once."""
    assert COMPILER is not None
    objects, key = _runtime()
    name = hashlib.sha256((key + source).encode()).hexdigest()[:24]
    library = CACHE / f"{name}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        unit, made = Path(folder) / "unit.cpp", Path(folder) / "unit.o"
        kernels = re.findall(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)', source)
        entries = "".join(
            f'static const emulator::Registered registered_{k}("{k}", emulator::enter<{k}>);\n' for k in kernels
        )
        touch = (
            'extern "C" __attribute__((no_sanitize("thread"))) void emulator_touch_shared() '
            "{ static thread_local volatile char any; any = 0; }\n"
        )
        unit.write_text(f"{source}\n{entries}{touch}")
        _run([COMPILER, *COMMON, *CHECKED, "-include", str(_header()), "-c", str(unit), "-o", str(made)])
        parts = [str(made)]
        for symbol in [name for name, defined, _, _ in _thread_locals(made) if not defined]:
            # extern __shared__ T name[]: as much as any device has
            dynamic = Path(folder) / "dynamic.cpp"
            dynamic.write_text(
                f'alignas(256) thread_local char dynamic[{MOST_SHARED}] asm("{symbol}");\n'
                'extern "C" void* emulator_dynamic_shared() { return dynamic; }\n'
            )
            parts.append(str(dynamic))
        part = Path(folder) / "library.so"
        _run([COMPILER, *COMMON, "-shared", *parts, *objects, "-o", str(part)])
        part.replace(library)
    return library


_locks: dict[Path, threading.Lock] = {}


class Module:
    """A compiled source; its kernels are launched by name."""

    def __init__(self, source: str) -> None:
        self.library = build(source)
        self._calls = ctypes.CDLL(str(self.library))
        self._calls.emulator_errors.restype = ctypes.c_char_p
        self._calls.emulator_module_base.restype = ctypes.c_size_t
        hidden = ("emulator_touch_shared", "dynamic")
        # One launch at a time: the machine is the library's, which is loaded once.
        self._lock = _locks.setdefault(self.library, threading.Lock())
        self._arrays = [
            (offset, size)
            for symbol, defined, offset, size in _thread_locals(self.library)
            if defined and not any(h in symbol for h in hidden) and size != MOST_SHARED
        ]

    def launch(
        self,
        kernel: str,
        grid: int,
        block: int,
        shared: int,
        arguments: list[Any],
        schedule: Schedule | None = None,
    ) -> Traffic:
        """Launch and report. Arrays are buffers, read-only ones may not be written; None is a null pointer.

        Raises
        ------
        EmulatorError
            With the kinds of errors, and where in the source they happened.
        """
        with self._lock:
            return self._launch(kernel, grid, block, shared, arguments, schedule or Schedule())

    def _launch(
        self, kernel: str, grid: int, block: int, shared: int, arguments: list[Any], schedule: Schedule
    ) -> Traffic:
        calls = self._calls
        calls.emulator_clear()
        for offset, size in self._arrays:
            calls.emulator_add_shared_array(ctypes.c_size_t(offset), ctypes.c_size_t(size))
        keep: list[Any] = []
        known: set[tuple[int, int]] = set()
        for i, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                span = _span(argument)
                writable = int(argument.flags.writeable)
                keep.append(ctypes.c_void_p(argument.ctypes.data))
                if span not in known:
                    known.add(span)
                    at, size = ctypes.c_size_t(span[0]), ctypes.c_size_t(span[1])
                    calls.emulator_add_buffer(at, size, writable, f"argument {i}".encode())
            elif argument is None:
                keep.append(ctypes.c_void_p(0))
            elif isinstance(argument, np.generic):
                keep.append(np.ctypeslib.as_ctypes_type(argument.dtype)(argument.item()))
            else:
                raise TypeError(f"argument {i}: received {argument!r}; accepted: arrays, NumPy scalars, None")
        pointers = (ctypes.c_void_p * len(keep))(*(ctypes.cast(ctypes.pointer(k), ctypes.c_void_p) for k in keep))
        c = _Configuration(grid, block, shared, {"forward": 0, "backward": 1, "random": 2}[schedule.order])
        c.preempt, c.ulps, c.seed, c.budget = schedule.preempt, schedule.ulps, schedule.seed + 1, schedule.budget
        if schedule.blocks is not None:
            c.blocks = (ctypes.c_uint32 * len(schedule.blocks))(*schedule.blocks)
            c.block_count = len(schedule.blocks)
        count = calls.emulator_launch(kernel.encode(), pointers, ctypes.byref(c))
        if count:
            text = calls.emulator_errors().decode() or f"no kernel {kernel}"
            raise EmulatorError(f"{kernel}: {count} errors\n{self._with_lines(text)}")
        return self._traffic(len(known))

    def _with_lines(self, errors: str) -> str:
        base = self._calls.emulator_module_base()

        def line_of(match: re.Match[str]) -> str:
            code = int(match.group(1), 16)
            if not code:
                return ""
            frames = _run(["addr2line", "-e", str(self.library), "-s", "-i", hex(code - base - 1)]).split("\n")
            return "at " + next((f for f in frames if f and not f.startswith("device")), "?")

        return re.sub(r"code=([0-9a-f]+)", line_of, errors).replace(" line=0", "")

    def _traffic(self, buffers: int) -> Traffic:
        rows = (ctypes.c_uint64 * (9 * 4096))()
        n = self._calls.emulator_traffic(rows, 4096)
        found = Traffic()
        wavefronts = ideal = 0
        for i in range(n):
            _, size, write, shared, _, requested, sectors, passes, least = rows[9 * i : 9 * i + 9]
            kind = ("shared " if shared else "global ") + ("write" if write else "read")
            found.requested[kind] = found.requested.get(kind, 0) + requested
            found.wide[kind] = found.wide.get(kind, 0) + (requested if size == 16 else 0)
            found.sectors[kind] = found.sectors.get(kind, 0) + 32 * sectors
            wavefronts, ideal = wavefronts + passes, ideal + least
        found.bank_conflict = wavefronts / ideal if ideal else 1.0
        for i in range(buffers):
            read, written = ctypes.c_uint64(), ctypes.c_uint64()
            self._calls.emulator_footprint(i, ctypes.byref(read), ctypes.byref(written))
            found.buffers.append((read.value, written.value))
        return found
