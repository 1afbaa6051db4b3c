"""Who computes a fit: the host, by compiled kernels, or a CUDA device, by expressions of its array library.

The losses choose by the type of their arrays. This is what a fit needs besides: products, activations, the steps of the
optimisers, rows of samples. A :class:`Device` is written over any array module that speaks like NumPy, CuPy being the
one that users have; what it computes is what ``src/rules/training.h`` says, and in no step does it wait for the device.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from mlefast import _core
from mlefast.estimators import blas
from mlefast.estimators.activations import ACTIVATIONS

Random = np.random.Generator


class Machine(Protocol):
    """What a fit asks of where its arrays live. Arrays are contiguous, of float32 or float64."""

    xp: Any  # the array module
    waits: bool  # whether it has computed a number when it returns it, so that looking at it costs nothing

    def zeros(self, shape: Any, dtype: Any) -> Any:
        """Make an array of zeros."""

    def empty(self, shape: Any, dtype: Any) -> Any:
        """Make an array of anything."""

    def asarray(self, array: Any) -> Any:
        """Bring an array here; itself if it is here."""

    def to_host(self, array: Any) -> Any:
        """Bring an array of this machine to the host; itself if that is this machine."""

    def product(self, a: Any, b: Any, out: Any, *, add: bool = False) -> Any:
        """``out = a b``, or added to it; return `out`."""

    def activate(self, activation: int, values: Any, bias: Any, slope: Any, uniform: Any, rate: float) -> None:
        """Write f(values + bias) over values and f' to slope; with uniform numbers, drop both with probability rate."""

    def backpropagate(self, error: Any, slope: Any, bias_gradient: Any) -> None:
        """Multiply error by slope in place, and write its column sums."""

    def sgd_step(
        self,
        parameters: Any,
        gradient: Any,
        velocity: Any,
        n_weights: int,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        l2: float,
        l1: float,
    ) -> None:
        """Move the parameters by momentum; the first n_weights are penalised."""

    def adamw_step(
        self,
        parameters: Any,
        gradient: Any,
        mean: Any,
        square: Any,
        n_weights: int,
        learning_rate: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        weight_decay: float,
        l2: float,
        l1: float,
        step: int,
    ) -> None:
        """Move the parameters by AdamW; the first n_weights decay and are penalised."""

    def take_rows(self, x: Any, index: Any, out: Any) -> None:
        """Write the rows x[index] to out."""

    def uniform(self, random: Random, out: Any) -> None:
        """Fill an array with numbers of [0, 1)."""

    def total(self, values: Any, weight: Any = None) -> Any:
        """Sum numbers, each times a weight, in float64. Where the machine does not wait, an array of no dimension."""

    def number(self, value: Any) -> Any:
        """Return a sum in float64, as :meth:`total` does."""

    def one_thread(self) -> AbstractContextManager[Any]:
        """Limit the BLAS to one thread, where products are shared by mlefast's."""


class Host:
    """The host's memory and processors: compiled kernels, and products by SciPy's BLAS."""

    xp: Any = np
    waits = True

    zeros = staticmethod(np.zeros)
    empty = staticmethod(np.empty)
    product = staticmethod(blas.product)
    activate = staticmethod(_core.activate)
    backpropagate = staticmethod(_core.backpropagate)
    sgd_step = staticmethod(_core.sgd_step)
    adamw_step = staticmethod(_core.adamw_step)
    take_rows = staticmethod(_core.take_rows)
    number = staticmethod(float)
    one_thread = staticmethod(blas.blas_on_one_thread)

    def __reduce__(self) -> str:
        return "HOST"  # of this module: there is one

    def asarray(self, array: Any) -> Any:
        """Return the array."""
        return array

    def to_host(self, array: Any) -> Any:
        """Return the array."""
        return array

    def uniform(self, random: Random, out: Any) -> None:
        """Fill an array with the generator's numbers."""
        random.random(dtype=out.dtype.type, out=out)

    def total(self, values: Any, weight: Any = None) -> float:
        """Sum numbers, each times a weight, in float64."""
        if weight is None:
            return float(np.sum(values, dtype=np.float64))
        return float(np.dot(values.astype(np.float64), weight))


class Device:
    """A CUDA device through an array module; its products are the module's, which are cuBLAS's.

    Denormal numbers are not flushed from the moments as the host's kernels do it: they cost a device nothing.
    """

    waits = False

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self.zeros = xp.zeros
        self.empty = xp.empty

    def __reduce__(self) -> tuple[Any, ...]:
        return device_named, (self.xp.__name__,)

    def asarray(self, array: Any) -> Any:
        """Bring an array to the device."""
        return self.xp.asarray(array)

    def to_host(self, array: Any) -> Any:
        """Wait for the device and return a NumPy array."""
        return array if isinstance(array, np.ndarray) else self.xp.asnumpy(array)

    def product(self, a: Any, b: Any, out: Any, *, add: bool = False) -> Any:
        """``out = a b``, or added to it; return `out`."""
        if add:
            out += self.xp.matmul(a, b)
        else:
            self.xp.matmul(a, b, out=out)
        return out

    def activate(self, activation: int, values: Any, bias: Any, slope: Any, uniform: Any, rate: float) -> None:
        """Write f(values + bias) over values and f' to slope; with uniform numbers, drop both with probability rate."""
        values += bias
        _FORMULAS[activation](self.xp, values, slope)
        if uniform is not None:
            kept = (uniform >= rate).astype(values.dtype).reshape(values.shape)
            kept *= 1 / (1 - rate)
            values *= kept
            if slope is not None:
                slope *= kept

    def backpropagate(self, error: Any, slope: Any, bias_gradient: Any) -> None:
        """Multiply error by slope in place, and write its column sums."""
        if slope is not None:
            error *= slope
        bias_gradient[...] = error.sum(axis=0, dtype=np.float64)

    def sgd_step(
        self,
        parameters: Any,
        gradient: Any,
        velocity: Any,
        n_weights: int,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        l2: float,
        l1: float,
    ) -> None:
        """Move the parameters by momentum; the first n_weights are penalised."""
        weights = parameters[:n_weights]
        move = gradient * learning_rate
        if l2:
            move[:n_weights] += weights * (learning_rate * l2)
        velocity *= momentum
        velocity -= move
        if nesterov:
            parameters += velocity * momentum
            parameters -= move
        else:
            parameters += velocity
        if l1:
            threshold = learning_rate * l1 / (1 - momentum)
            weights -= self.xp.clip(weights, -threshold, threshold)

    def adamw_step(
        self,
        parameters: Any,
        gradient: Any,
        mean: Any,
        square: Any,
        n_weights: int,
        learning_rate: float,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        weight_decay: float,
        l2: float,
        l1: float,
        step: int,
    ) -> None:
        """Move the parameters by AdamW; the first n_weights decay and are penalised."""
        xp, weights = self.xp, parameters[:n_weights]
        if l2:
            gradient = gradient.copy()
            gradient[:n_weights] += weights * l2
        mean += (gradient - mean) * (1 - beta_1)
        square += (gradient * gradient - square) * (1 - beta_2)
        size = xp.sqrt(square)
        size *= 1 / math.sqrt(1 - beta_2**step)
        size += epsilon
        if weight_decay:
            weights *= 1 - learning_rate * weight_decay
        parameters -= mean * (learning_rate / (1 - beta_1**step)) / size
        if l1:
            threshold = learning_rate * l1 / size[:n_weights]
            weights -= xp.maximum(xp.minimum(weights, threshold), -threshold)

    def take_rows(self, x: Any, index: Any, out: Any) -> None:
        """Write the rows x[index] to out."""
        self.xp.take(x, index, axis=0, out=out)

    def uniform(self, random: Random, out: Any) -> None:
        """Fill an array with numbers that one number of the generator and their places in the array decide.

        They are SplitMix64's (G. Steele, D. Lea, C. Flood, OOPSLA 2014). So the whole state of a fit is the host's
        generator, which checkpoints hold, and no numbers travel.
        """
        z = self.xp.arange(1, out.size + 1, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z += random.integers(2**64, dtype=np.uint64)
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        digits = 24 if out.dtype == np.float32 else 53
        z >>= np.uint64(64 - digits)
        out[...] = z.reshape(out.shape)  # exact: as many digits as the type has
        out *= out.dtype.type(2.0**-digits)

    def total(self, values: Any, weight: Any = None) -> Any:
        """Sum numbers, each times a weight, in float64, into an array of no dimension."""
        return (values if weight is None else values.astype(np.float64) * weight).sum(dtype=np.float64)

    def number(self, value: Any) -> Any:
        """Return an array of no dimension in float64."""
        return value.astype(np.float64)

    def one_thread(self) -> AbstractContextManager[Any]:
        """Limit nothing."""
        return nullcontext()


HOST = Host()


@functools.cache
def device_named(name: str) -> Device:
    """Return the device of an array module: one object, whichever GPU is the module's current one."""
    return Device(importlib.import_module(name))


def machine_of(x: object) -> Machine:
    """Return the machine on which an array lies; whatever is no CuPy array lies on the host."""
    cupy = None if isinstance(x, np.ndarray) else sys.modules.get("cupy")
    return device_named("cupy") if cupy is not None and isinstance(x, cupy.ndarray) else HOST


def moved(x: Any, machine: Machine) -> Any:
    """Bring an array, or None, to a machine, from wherever it is."""
    here = machine_of(x)
    return x if here is machine or x is None else machine.asarray(here.to_host(x))


def to_host(x: Any) -> Any:
    """Bring an array to the host; whatever is no device's array is returned as it is."""
    return machine_of(x).to_host(x)


# ---- activations: over the values, and their slopes into another array, unless that is None


def _identity(xp: Any, values: Any, slope: Any) -> None:
    if slope is not None:
        slope.fill(1)


def _relu(xp: Any, values: Any, slope: Any) -> None:
    if slope is not None:
        slope[...] = values > 0
    xp.maximum(values, 0, out=values)


def _tanh(xp: Any, values: Any, slope: Any) -> None:
    if slope is not None:  # 1 - tanh^2, without the cancellation
        e = xp.exp(xp.abs(values) * -2)
        slope[...] = e
        e += 1
        slope /= e
        slope /= e
        slope *= 4
    xp.tanh(values, out=values)


# Beyond 40 standard deviations the density and the distribution's tail are 0, in float64 as well: so far the formulas
# are given z, lest an infinity meet a 0.
_FAR = 40


def _gelu(xp: Any, values: Any, slope: Any) -> None:
    below = _special(xp.__name__).ndtr(values)
    xp.maximum(values, -_FAR, out=values)
    if slope is not None:
        near = xp.minimum(values, _FAR)
        slope[...] = near
        near *= near
        near *= -0.5
        slope *= xp.exp(near)
        slope *= 1 / math.sqrt(2 * math.pi)
        slope += below
    values *= below


@functools.cache
def _special(name: str) -> Any:
    return importlib.import_module("cupyx.scipy.special" if name == "cupy" else "scipy.special")


_FORMULAS = {
    ACTIVATIONS["identity"]: _identity,
    ACTIVATIONS["relu"]: _relu,
    ACTIVATIONS["tanh"]: _tanh,
    ACTIVATIONS["gelu"]: _gelu,
}
