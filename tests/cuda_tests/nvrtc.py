"""NVIDIA's run-time compiler from its wheel: compiles for any architecture without a GPU or a driver."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlefast._backends.cupy import OPTIONS


def _find(pattern: str) -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders for path in sorted(Path(folder).glob(pattern))), None)


_path = _find("**/libnvrtc.so.*")
LIBRARY = ctypes.CDLL(str(_path)) if _path else None
DISASSEMBLER = _find("**/bin/nvdisasm")


def compile_for(architecture: str, source: str, headers: dict[str, str] | None = None) -> tuple[bytes, str]:
    """Compile to machine code; return it and the assembler's report of registers and spills."""
    nvrtc, program, headers = LIBRARY, ctypes.c_void_p(), headers or {}
    assert nvrtc is not None
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p

    def check(result: int) -> None:
        if result:
            raise RuntimeError(nvrtc.nvrtcGetErrorString(result).decode())

    def fetch(what: str) -> bytes:
        size = ctypes.c_size_t()
        check(getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        check(getattr(nvrtc, f"nvrtcGet{what}")(program, text))
        return text.raw

    names = (ctypes.c_char_p * len(headers))(*(name.encode() for name in headers))
    texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"test.cu", len(headers), texts, names))
    options = [f"-arch={architecture}", *OPTIONS, "--ptxas-options=-v"]
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
    log = fetch("ProgramLog").rstrip(b"\0").decode()
    if failed:
        raise RuntimeError(log)
    return fetch("CUBIN"), log


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


def disassemble(code: bytes) -> list[str]:
    """The machine instructions of a compiled module."""
    assert DISASSEMBLER is not None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        text = subprocess.run([DISASSEMBLER, "-c", file.name], capture_output=True, text=True, check=True).stdout
    return re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", text)
