"""Where arrays live and who computes on them: NumPy's backend in the host's memory, CuPy's functions on a device.

A backend offers what :class:`Backend` names: checked arguments in, arrays out. Another library's arrays in the host's
memory are seen as NumPy's; to add a library with a memory of its own: a file here, a branch in
:func:`device_functions_of`, which loads it when first needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlefast._arguments import FloatArray, Reduction

if TYPE_CHECKING:
    from mlefast._table import Checked, Loss


Factors = tuple[float, "FloatArray | None"]  # of the gradient: one for all rows, one for each


class Backend(Protocol):
    """What every backend computes."""

    def softmax(self, task: str, x: FloatArray, axis: int, out: FloatArray | None) -> FloatArray:
        """Run ``"softmax"`` or ``"log_softmax"``."""

    def logsumexp(self, x: FloatArray, axis: int) -> Any:
        """Return the log of the sum of exponentials along an axis."""

    def loss(
        self,
        name: str,
        of: Checked,
        *,
        reduction: Reduction,
        denominator: float | None,
        gradient: bool,
        upstream: Factors,
        out: FloatArray | None,
        byproducts: tuple[str, ...],
    ) -> tuple[Any, ...]:
        """Return a loss of the table, its gradient (None unless asked for) and the by-products."""

    def hessian_product(
        self,
        of: Checked,
        vector: FloatArray,
        *,
        reduction: Reduction,
        denominator: float | None,
        out: FloatArray | None,
    ) -> FloatArray:
        """Return the Hessian of a cross-entropy times a vector."""

    def gradient_and_hessian(
        self, of: Checked, row_weight: FloatArray | None, hessian: float, floor: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return each row's gradient and the diagonal of its Hessian."""

    def log_prob(
        self,
        of: Checked,
        *,
        entropy: bool,
        gradient: bool,
        upstream: Factors,
        entropy_upstream: Factors,
        out: FloatArray | None,
    ) -> tuple[Any, Any, FloatArray | None]:
        """Return log-probabilities, entropies (None unless asked for) and the gradient of their weighted sum."""

    def row_function(
        self,
        name: str,
        x: FloatArray,
        axis: int,
        *,
        v: FloatArray | None = None,
        upstream: Factors = (1.0, None),
        gradient: bool = False,
        out: FloatArray | None = None,
        value: FloatArray | None = None,
    ) -> tuple[float, FloatArray | None]:
        """Run a function of rows without a target; return the sum of its values and its output."""

    def binary_cross_entropy(
        self,
        logits: FloatArray,
        target: FloatArray,
        *,
        weight: FloatArray | None,
        element_weight: FloatArray | None,
        pos_weight: FloatArray | None,
        smoothing: float,
        gradient: bool,
        scale: float,
        upstream: FloatArray | None,
        losses: bool,
        out: FloatArray | None,
    ) -> tuple[float, FloatArray | None, FloatArray | None]:
        """Return the sum of all losses, each of them if asked for, and the gradient."""


def _numpy() -> Backend:
    from mlefast._backends import numpy

    return numpy


class DeviceFunctions(Protocol):
    """The functions for arrays that NumPy cannot hold: arguments as the user gave them, answered in kind."""

    def softmax(self, task: str, x: Any, axis: Any, temperature: float, out: Any) -> Any:
        """Run ``"softmax"`` or ``"log_softmax"``."""

    def logsumexp(self, x: Any, axis: Any, keepdims: bool) -> Any:
        """Return the log of the sum of exponentials."""

    def loss(self, name: str, row: Loss, logits: Any, target: Any, *, out: Any, **arguments: Any) -> tuple[Any, ...]:
        """Return a loss of the table, its gradient (None unless asked for) and the by-products."""

    def log_prob(self, logits: Any, index: Any, axis: Any, *, out: Any, **arguments: Any) -> tuple[Any, Any, Any]:
        """Return log-probabilities, entropies (None unless asked for) and the gradient of their weighted sum."""

    def hessian_product(self, logits: Any, target: Any, vector: Any, *, out: Any, **arguments: Any) -> Any:
        """Return the Hessian of a cross-entropy times a vector."""

    def gradient_and_hessian(self, logits: Any, target: Any, **arguments: Any) -> tuple[Any, Any]:
        """Return each row's gradient and the diagonal of its Hessian."""

    def entropy(self, p: Any, axis: Any, *, out: Any, **arguments: Any) -> tuple[Any, Any]:
        """Return the entropy of probabilities and its gradient (None unless asked for)."""

    def information_gain(self, counts: Any) -> Any:
        """Return the mutual information of tables' branches and classes."""

    def product(self, name: str, y: Any, upstream: Any, axis: Any, out: Any) -> Any:
        """Run ``"softmax_vjp"`` or ``"log_softmax_vjp"``."""

    def binary_cross_entropy(self, logits: Any, target: Any, *, out: Any, **arguments: Any) -> tuple[Any, Any]:
        """Return the loss and its gradient (None unless asked for)."""

    def linear_cross_entropy(self, x: Any, weight: Any, target: Any, **arguments: Any) -> tuple[Any, Any, Any, Any]:
        """Return the loss of a linear layer and, if asked for, the gradients of x, weight and bias (else None)."""


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


def on_host(x: object, name: str) -> None:
    """Refuse an array on a CUDA device, for arguments or functions that have no kernels there."""
    if device_functions_of(x) is not None:
        raise TypeError(f"{name}: received an array on a CUDA device; accepted: arrays in the host's memory")


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
