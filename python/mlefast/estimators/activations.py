"""What hidden units do to their input, and the slope with which their errors flow back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

FloatArray = npt.NDArray[np.floating[Any]]

# Turns inputs into outputs in place; if there is an array for it, writes the derivative there, and may then use a
# second array of the same shape on the way.
Activation = Callable[[FloatArray, "FloatArray | None", "FloatArray | None"], None]


def identity(values: FloatArray, slope: FloatArray | None = None, scratch: FloatArray | None = None) -> None:
    r""":math:`z`: the network stays linear."""
    if slope is not None:
        slope.fill(1)


def relu(values: FloatArray, slope: FloatArray | None = None, scratch: FloatArray | None = None) -> None:
    r""":math:`\max(z, 0)`; the slope at 0 is 0."""
    np.maximum(values, 0, out=values)
    if slope is not None:
        np.greater(values, 0, out=slope)


def tanh(values: FloatArray, slope: FloatArray | None = None, scratch: FloatArray | None = None) -> None:
    r""":math:`\tanh z`."""
    np.tanh(values, out=values)
    if slope is not None:
        np.multiply(values, values, out=slope)
        np.subtract(1, slope, out=slope)


def gelu(values: FloatArray, slope: FloatArray | None = None, scratch: FloatArray | None = None) -> None:
    r""":math:`z \Phi(z)` with the normal distribution function itself (D. Hendrycks, K. Gimpel, 2016)."""
    if slope is None:
        values *= ndtr(values)
        return
    ndtr(values, out=slope)
    density = np.multiply(values, values, out=scratch)
    density *= -0.5
    np.exp(density, out=density)
    density *= 1 / math.sqrt(2 * math.pi)
    density *= values
    values *= slope
    slope += density


ACTIVATIONS: dict[str, Activation] = {"identity": identity, "relu": relu, "tanh": tanh, "gelu": gelu}
