"""What kernels are given: each kind of array, how large it is, and the numbers in it.

A row for each kind in ``OPERANDS``; it is a field of :class:`~mlefast.bench.arrays.Arrays` under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import mlefast as mf

NORMAL_BLOCK = 1 << 22
"""Normal numbers that are drawn at once; larger arrays repeat them, because drawing is slow."""


Kind = Literal["stored", "computed", "index"]


@dataclass(frozen=True)
class Operand:
    """A kind of array.

    Attributes
    ----------
    size : {"logits", "classes", "rows"}
        (rows, classes), or a number for each class or row. Only the first counts as moved.
    dtype : {"stored", "computed", "index"}
        That of the logits; the one that they are computed in (float32 for halves), which the functions take without a
        copy; or int64.
    draw : callable
        Of size "logits": makes some rows of it from as many rows of normal float32 numbers, in the dtype it is given.
        Else: draws `count` numbers by a generator, and is told the number of classes.
    """

    size: Literal["logits", "classes", "rows"]
    dtype: Kind
    draw: Callable[..., Any]


OPERANDS = {
    "logits": Operand("logits", "stored", lambda normal, dtype: normal.astype(dtype)),
    "softmax": Operand("logits", "stored", lambda normal, dtype: mf.softmax(normal.astype(dtype))),
    "log_softmax": Operand("logits", "stored", lambda normal, dtype: mf.log_softmax(normal.astype(dtype))),
    "probabilities": Operand("logits", "computed", lambda normal, dtype: mf.softmax(normal[::-1].astype(dtype))),
    "binary": Operand("logits", "computed", lambda normal, dtype: (normal[::-1] > 0).astype(dtype)),
    "vector": Operand("logits", "computed", lambda normal, dtype: normal[::-1].astype(dtype)),
    "target": Operand("rows", "index", lambda random, count, classes: random.integers(0, classes, count)),
    "weight": Operand("classes", "computed", lambda random, count, classes: random.uniform(0.5, 2, count)),
}


def as_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a name; bfloat16 is known once ml_dtypes is imported."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    return np.dtype(name)


def dtype_of(kind: Kind, logits: str) -> str:
    """Return the name of the dtype of an array of a kind, beside logits of a dtype."""
    if kind == "index":
        return "int64"
    return "float32" if kind == "computed" and logits in ("float16", "bfloat16") else logits


def itemsize(dtype: str) -> int:
    """Return the bytes of a number; of bfloat16 without ml_dtypes, too."""
    return 2 if dtype in ("float16", "bfloat16") else np.dtype(dtype).itemsize
