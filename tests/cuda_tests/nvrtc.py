"""NVIDIA's run-time compiler from its wheel: compiles for any architecture without a GPU or a driver."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path


def _library() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("**/libnvrtc.so.*")):
            return ctypes.CDLL(str(path))
    return None


LIBRARY = _library()


def compile_for(architecture: str, source: str, headers: dict[str, str]) -> tuple[bytes, str]:
    """Compile to machine code; return it and the assembler's report of registers and spills."""
    nvrtc, program = LIBRARY, ctypes.c_void_p()
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
    options = [f"-arch={architecture}", "-std=c++17", "--ptxas-options=-v"]
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
    log = fetch("ProgramLog").rstrip(b"\0").decode()
    if failed:
        raise RuntimeError(log)
    return fetch("CUBIN"), log
