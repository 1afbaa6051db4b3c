"""NVIDIA's run-time compiler from its wheel: compiles for any architecture without a GPU or a driver."""

from __future__ import annotations

import bisect
import ctypes
import hashlib
import importlib.util
import itertools
import json
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mlefast._backends.cupy import OPTIONS


def _find(pattern: str) -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders for path in sorted(Path(folder).glob(pattern))), None)


REPORT = ("--ptxas-options=-v",)
_path = _find("**/libnvrtc.so.*")
LIBRARY = ctypes.CDLL(str(_path)) if _path else None
DISASSEMBLER = _find("**/bin/nvdisasm")
CACHE = Path(os.environ.get("MLEFAST_NVRTC_CACHE", Path(tempfile.gettempdir()) / f"mlefast-nvrtc-{os.getuid()}"))


def compile_for(architecture: str, source: str, headers: dict[str, str] | None = None) -> tuple[bytes, str]:
    """Compile to machine code; return it and the assembler's report of registers and spills."""
    return _compile("CUBIN", [f"-arch={architecture}", *OPTIONS, *REPORT], source, headers or {})


def ptx_for(architecture: str, source: str) -> str:
    """Compile to what the assembler of an architecture is given; without what names the architecture, and comments."""
    text = _compile("PTX", [f"-arch={architecture.replace('sm', 'compute')}", *OPTIONS], source, {})[0]
    return re.sub(r"(?m)^\.(?:target|version) .*$|//.*$", "", text.decode())


def _compile(result: str, options: list[str], source: str, headers: dict[str, str]) -> tuple[bytes, str]:
    nvrtc, program = LIBRARY, ctypes.c_void_p()
    assert nvrtc is not None
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p

    def check(failed: int) -> None:
        if failed:
            raise RuntimeError(nvrtc.nvrtcGetErrorString(failed).decode())

    def fetch(what: str) -> bytes:
        size = ctypes.c_size_t()
        check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        check(getattr(nvrtc, f"nvrtcGet{what}")(program, text))
        return text.raw

    names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
    texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"test.cu", len(headers), texts, names))
    try:
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
        log = fetch("ProgramLog").rstrip(b"\0").decode()
        if failed:
            raise RuntimeError(log)
        return fetch(result), log
    finally:
        check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))


def version() -> tuple[int, int]:
    """NVRTC's version."""
    assert LIBRARY is not None
    major, minor = ctypes.c_int(), ctypes.c_int()
    LIBRARY.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


@dataclass(frozen=True)
class Usage:
    """What one kernel takes, as the assembler reports it."""

    registers: int
    shared: int
    stack: int
    spilled: int


def usage(report: str) -> dict[str, Usage]:
    """By kernel, from the report of :func:`compile_for`."""
    found = {}
    for part in re.split(r"Compiling entry function", report)[1:]:
        name = re.search(r"'(\w+)'", part)
        registers = re.search(r"Used (\d+) registers", part)
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        shared = re.search(r"(\d+) bytes smem", part)
        assert name is not None, part
        assert registers is not None, part
        assert stack is not None, part
        found[name[1]] = Usage(
            int(registers[1]), int(shared[1]) if shared else 0, int(stack[1]), int(stack[2]) + int(stack[3])
        )
    return found


def machine_code(cubin: bytes) -> bytes:
    """The code of all kernels of a module: an ELF file's sections .text."""
    at, size, count, names = struct.unpack_from("<Q10xHHH", cubin, 0x28)
    headers = [struct.unpack_from("<I20xQQ", cubin, at + k * size) for k in range(count)]  # name, offset, size
    _, start, length = headers[names]
    texts = cubin[start : start + length]
    return b"".join(cubin[begin : begin + n] for name, begin, n in headers if texts[name:].startswith(b".text."))


def disassemble(architecture: str, *cubins: bytes) -> list[list[str]]:
    """The machine instructions of each compiled module. All are read at once: nvdisasm takes half a second to start."""
    assert DISASSEMBLER is not None
    codes = [machine_code(cubin) for cubin in cubins]
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        command = [DISASSEMBLER, "-ndf", "-b", architecture.replace("_", "").upper(), file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ends = list(itertools.accumulate(map(len, codes)))
    found: list[list[str]] = [[] for _ in codes]
    for address, instruction in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", text):
        found[bisect.bisect_right(ends, int(address, 16))].append(instruction)
    return found


@dataclass(frozen=True)
class Report:
    """What there is to know of a compiled module."""

    kernels: dict[str, Usage]
    instructions: list[str]  # the different ones, if they were asked for


def report_on(architecture: str, sources: Sequence[str], *, disassembled: bool) -> list[Report]:
    """Compile what was not compiled before: reports are kept in CACHE by a hash of all that they depend on."""
    depends = version(), DISASSEMBLER and str(DISASSEMBLER), architecture, OPTIONS, REPORT, disassembled
    paths = [CACHE / f"{hashlib.sha256(repr((*depends, source)).encode()).hexdigest()[:32]}.json" for source in sources]
    absent = {path: compile_for(architecture, source) for path, source in zip(paths, sources) if not path.exists()}
    codes = [code for code, _ in absent.values()]
    instructions = disassemble(architecture, *codes) if disassembled and codes else [[] for _ in codes]
    CACHE.mkdir(parents=True, exist_ok=True)
    for (path, (_, text)), found in zip(absent.items(), instructions):
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(Report(usage(text), sorted(set(found))))))
        part.replace(path)
    kept = [json.loads(path.read_text()) for path in paths]
    return [
        Report({name: Usage(**used) for name, used in report["kernels"].items()}, report["instructions"])
        for report in kept
    ]
