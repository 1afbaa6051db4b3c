"""CuPy arrays, and arrays of other libraries that lie on a CUDA device.

Loaded when the first such array arrives; importing mlefast imports neither this nor CuPy. Arrays stay on their device
and work is queued on CuPy's current stream. Nothing waits for the device, unless ``MLEFAST_CUDA_CHECK=1`` asks for
wrong targets and negative counts to be raised rather than answered by NaN.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mlefast._backends.device_functions import DeviceFunctions
from mlefast._table import Loss

OLDEST = (7, 5)  # compute capability
OPTIONS = ("-std=c++17", "-ftz=false")  # without fast-math: subnormal numbers are kept, division is exact


class CupyDevice:
    """One GPU as CuPy sees it."""

    def __init__(self, xp: Any, number: int) -> None:
        properties = xp.cuda.runtime.getDeviceProperties(number)
        capability = int(properties["major"]), int(properties["minor"])
        if capability < OLDEST:
            name, has, needs = properties["name"].decode(), ".".join(map(str, capability)), ".".join(map(str, OLDEST))
            raise RuntimeError(
                f"CUDA device {number}: received a {name} of compute capability {has}; accepted: {needs} or later"
            )
        self.xp = xp
        self.multiprocessors = int(properties["multiProcessorCount"])
        self.shared_memory = int(properties["sharedMemPerBlockOptin"])
        self._architecture = f"-arch=sm_{capability[0]}{capability[1]}"
        self._kernels: dict[tuple[str, str], Any] = {}

    def address(self, array: Any) -> int:
        """Return where an array's first element lies."""
        return int(array.data.ptr)

    def launch(self, source: str, kernel: str, grid: int, block: int, shared: int, arguments: list[Any]) -> None:
        """Queue a kernel on CuPy's current stream; its source is compiled once for each architecture."""
        function = self._kernels.get((source, kernel))
        if function is None:
            function = self.xp.RawModule(path=str(self._compiled(source))).get_function(kernel)
            if shared > 48 * 1024:
                function.max_dynamic_shared_size_bytes = shared
            self._kernels[source, kernel] = function
        elif shared > 48 * 1024 and function.max_dynamic_shared_size_bytes < shared:
            function.max_dynamic_shared_size_bytes = shared
        # A null pointer is a number of that width, in every version of CuPy.
        given = tuple(np.uintp(0) if argument is None else argument for argument in arguments)
        function((grid,), (block,), given, shared_mem=shared)

    def to_host(self, array: Any) -> Any:
        """Wait for the device and return a NumPy array."""
        return self.xp.asnumpy(array)

    def add_product(self, a: Any, b: Any, out: Any) -> None:
        """Add the product of a's transpose and b to a matrix. All are contiguous, of one dtype."""
        from cupy import cublas

        cublas.gemm("T", "N", a, b, out=out, beta=1.0)

    def _compiled(self, source: str) -> Path:
        # CuPy's own compilation appends -ftz=true, which would flush subnormal numbers and cannot be overridden. So its
        # binding of NVRTC is called directly, and what it gives is kept by the hash of everything that it depends on.
        nvrtc = self.xp.cuda.nvrtc
        options = (self._architecture, *OPTIONS)
        key = hashlib.sha256(repr((nvrtc.getVersion(), options, source)).encode()).hexdigest()
        path = cache_folder() / f"{key}.cubin"
        if path.exists():
            return path
        program = nvrtc.createProgram(source, "mlefast.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
            code = nvrtc.getCUBIN(program)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program)
            raise RuntimeError(f"NVRTC {nvrtc.getVersion()} cannot compile for {self._architecture}: {log}") from error
        finally:
            nvrtc.destroyProgram(program)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(code)
        part.replace(path)  # at once, so that no other process reads half of it
        return path


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``MLEFAST_CACHE_DIR``, else a folder of the user's cache."""
    chosen = os.environ.get("MLEFAST_CACHE_DIR")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlefast"


def load_cupy() -> Any:
    """Import CuPy and see that it has a device to run on."""
    try:
        import cupy
    except ImportError as error:
        raise ImportError(
            "arrays on a CUDA device need CuPy: pip install 'mlefast[cuda12]' or 'mlefast[cuda13]'"
        ) from error
    if not cupy.is_available():
        raise RuntimeError("arrays on a CUDA device need an NVIDIA driver and a device; CuPy finds none")
    return cupy


@cache
def functions_of(number: int) -> DeviceFunctions:
    """The functions of one device, made when it is first used."""
    return DeviceFunctions(CupyDevice(load_cupy(), number))


class CupyFunctions:
    """The functions for any array on a CUDA device, answered in kind."""

    def softmax(self, task: str, x: Any, axis: Any, temperature: float, out: Any) -> Any:
        """Run ``"softmax"`` or ``"log_softmax"``."""
        return _run(x, out, lambda on, array: (on.softmax(task, array, axis, temperature, out),), 0)[0]

    def logsumexp(self, x: Any, axis: Any, keepdims: bool) -> Any:
        """Return the log of the sum of exponentials."""
        return _run(x, None, lambda on, array: (on.logsumexp(array, axis, keepdims),))[0]

    def loss(self, name: str, row: Loss, logits: Any, target: Any, *, out: Any, **arguments: Any) -> tuple[Any, ...]:
        """Return a loss of the table, its gradient (None unless asked for) and the by-products."""
        return _run(logits, out, lambda on, array: on.loss(name, row, array, target, out=out, **arguments), 1)

    def log_prob(self, logits: Any, index: Any, axis: Any, *, out: Any, **arguments: Any) -> tuple[Any, Any, Any]:
        """Return log-probabilities, entropies (None unless asked for) and the gradient of their weighted sum."""
        value, entropy, gradient = _run(
            logits, out, lambda on, array: on.log_prob(array, index, axis, out=out, **arguments), 2
        )
        return value, entropy, gradient

    def hessian_product(self, logits: Any, target: Any, vector: Any, *, out: Any, **arguments: Any) -> Any:
        """Return the Hessian of a cross-entropy times a vector."""
        return _run(
            logits, out, lambda on, array: (on.hessian_product(array, target, vector, out=out, **arguments),), 0
        )[0]

    def gradient_and_hessian(self, logits: Any, target: Any, **arguments: Any) -> tuple[Any, Any]:
        """Return each row's gradient and the diagonal of its Hessian."""
        gradient, hessian = _run(logits, None, lambda on, array: on.gradient_and_hessian(array, target, **arguments))
        return gradient, hessian

    def entropy(self, p: Any, axis: Any, *, out: Any, **arguments: Any) -> tuple[Any, Any]:
        """Return the entropy of probabilities and its gradient (None unless asked for)."""
        value, gradient = _run(p, out, lambda on, array: on.entropy(array, axis, out=out, **arguments), 1)
        return value, gradient

    def information_gain(self, counts: Any) -> Any:
        """Return the mutual information of tables' branches and classes."""
        return _run(counts, None, lambda on, array: (on.information_gain(array),))[0]

    def product(self, name: str, y: Any, upstream: Any, axis: Any, out: Any) -> Any:
        """Run ``"softmax_vjp"`` or ``"log_softmax_vjp"``."""
        return _run(y, out, lambda on, array: (on.product(name, array, upstream, axis, out),), 0)[0]

    def binary_cross_entropy(self, logits: Any, target: Any, *, out: Any, **arguments: Any) -> tuple[Any, Any]:
        """Return the loss and its gradient (None unless asked for)."""
        loss, gradient = _run(
            logits, out, lambda on, array: on.binary_cross_entropy(array, target, out=out, **arguments), 1
        )
        return loss, gradient

    def linear_cross_entropy(self, x: Any, weight: Any, target: Any, **arguments: Any) -> tuple[Any, Any, Any, Any]:
        """Return the loss of a linear layer and, if asked for, the gradients of x, weight and bias (else None)."""
        loss, dx, dweight, dbias = _run(
            x, None, lambda on, array: on.linear_cross_entropy(array, weight, target, **arguments)
        )
        return loss, dx, dweight, dbias


def _run(
    x: Any, out: Any, call: Callable[[DeviceFunctions, Any], tuple[Any, ...]], written: int = -1
) -> tuple[Any, ...]:
    """Call on the device of `x`; answer in its kind. The result number `written` goes to `out`, if that is given."""
    cupy = load_cupy()
    array = x if isinstance(x, cupy.ndarray) else cupy.from_dlpack(x)
    with cupy.cuda.Device(array.device.id):
        results = call(functions_of(array.device.id), array)

    def in_kind(number: int, result: Any) -> Any:
        if result is None or isinstance(x, cupy.ndarray):
            return result
        if number == written and out is not None:
            return out  # the very object that was given, which shares its memory
        return sys.modules[type(x).__module__.partition(".")[0]].from_dlpack(result)

    return tuple(in_kind(number, result) for number, result in enumerate(results))


FUNCTIONS = CupyFunctions()
