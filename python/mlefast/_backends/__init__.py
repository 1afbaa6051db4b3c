"""Where arrays live and who computes on them: a row for each array library, its backend loaded when first needed.

A backend offers what :class:`Backend` names: checked arguments in, arrays out. To add one: a file here, a row in
:func:`backend_of`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from mlefast._arguments import FloatArray, IntArray, Reduction


class Backend(Protocol):
    """What every backend computes."""

    def softmax(self, task: str, x: FloatArray, axis: int, out: FloatArray | None) -> FloatArray:
        """Run ``"softmax"`` or ``"log_softmax"``."""

    def logsumexp(self, x: FloatArray, axis: int) -> Any:
        """Return the log of the sum of exponentials along an axis."""

    def cross_entropy(
        self,
        logits: FloatArray,
        target: IntArray,
        axis: int,
        *,
        weight: FloatArray | None,
        ignore_index: int,
        reduction: Reduction,
        denominator: float | None,
        gradient: bool,
        upstream: tuple[float, FloatArray | None],
        out: FloatArray | None,
    ) -> tuple[Any, FloatArray | None]:
        """Return the loss and, if asked for, its gradient."""


def _numpy() -> Backend:
    from mlefast._backends import numpy

    return numpy


class DeviceFunctions(Protocol):
    """The functions for arrays that NumPy cannot hold: arguments as the user gave them, answered in kind."""

    def softmax(self, task: str, x: Any, axis: Any, out: Any) -> Any:
        """Run ``"softmax"`` or ``"log_softmax"``."""

    def logsumexp(self, x: Any, axis: Any, keepdims: bool) -> Any:
        """Return the log of the sum of exponentials."""

    def cross_entropy(self, logits: Any, target: Any, *, out: Any, **options: Any) -> tuple[Any, Any]:
        """Return the loss and, if asked for, its gradient."""


def device_functions_of(x: object) -> DeviceFunctions | None:
    """Return the functions for an array on a CUDA device, or None for one in the host's memory."""
    if isinstance(x, (np.ndarray, np.generic, list, tuple)):
        return None
    if type(x).__module__.partition(".")[0] != "cupy":
        device = getattr(x, "__dlpack_device__", None)
        if device is None or int(device()[0]) not in (2, 13):  # CUDA and CUDA managed memory, in DLPack's numbering
            return None
    from mlefast._backends import cupy

    return cupy.FUNCTIONS


def backend_of(x: object) -> tuple[Backend, Callable[[Any], Any]]:
    """Return the backend for an array and a function that turns that backend's result into the array's kind."""
    return _numpy(), _answer_in_kind(x)


def _answer_in_kind(x: object) -> Callable[[Any], Any]:
    """For an array of another library that speaks DLPack: the function that makes its arrays out of NumPy's."""
    if isinstance(x, (np.ndarray, np.generic)) or not hasattr(x, "__dlpack__"):
        return lambda result: result
    library = sys.modules[type(x).__module__.partition(".")[0]]
    from_dlpack = getattr(library, "from_dlpack", None)
    if from_dlpack is None:
        return lambda result: result

    def answer(result: Any) -> Any:
        array = np.asarray(result)
        if array.dtype.name == "bfloat16":  # DLPack has it, NumPy's does not
            return from_dlpack(array.view(np.int16)).view(library.bfloat16)
        return from_dlpack(array)

    return answer
