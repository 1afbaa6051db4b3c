"""The compiled kernels of mlefast. Private: use the functions of mlefast."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

TASKS: Final[dict[str, int]]
LOSSES: Final[dict[str, int]]
LIMITS: Final[dict[str, str]]

def run(
    task: int,
    logits: npt.NDArray[np.floating[Any]],
    axis: int,
    out: npt.NDArray[np.floating[Any]] | None,
    value: npt.NDArray[np.floating[Any]] | None,
    target: npt.NDArray[np.integer[Any]] | None,
    ignore_index: int,
    weight: npt.NDArray[np.floating[Any]] | None,
    upstream: npt.NDArray[np.floating[Any]] | None,
    scale: float,
) -> float:
    """Run a task over every row; the sum of its values."""

def run_loss(loss: int, logits: npt.NDArray[np.floating[Any]], axis: int, **kwargs: Any) -> float:
    """Run a loss of LOSSES over every row, with the arrays and options given; the sum of its values."""

def check_targets(
    target: npt.NDArray[np.integer[Any]],
    classes: int,
    ignore_index: int,
    weight: npt.NDArray[np.floating[Any]] | None,
) -> tuple[int, int, float]:
    """(position of the first target that is out of range or -1, rows not ignored, sum of their weights)."""

def plain_cross_entropy(
    logits: object,
    target: object,
    ignore_index: object,
    reduction: object,
    denominator: object,
    gradient: bool,
    out: object,
    /,
) -> Any:
    """The loss, or (loss, gradient), of plain arguments; None for any others."""

def exp(x: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """exp(x) for x <= 0, by the current instruction set."""

def run_limit(method: str, x: npt.NDArray[np.floating[Any]], out: npt.NDArray[np.floating[Any]] | None) -> float:
    """What memory allows: read x, copy it to out, or update out; the sum of what was read."""

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def threading_layer() -> str: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
