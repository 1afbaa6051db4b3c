"""The compiled kernels of mlefast. Private: use the functions of mlefast."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

TASKS: Final[dict[str, int]]
LOSSES: Final[dict[str, int]]
LIMITS: Final[dict[str, str]]
ACTIVATIONS: Final[dict[str, int]]

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

def plain_rows(task: int, x: object, out: object, /) -> Any:
    """The result of a task of TASKS without a target, of plain arguments; None for any others."""

def exp(x: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """exp(x) for x <= 0, by the current instruction set."""

def run_limit(method: str, x: npt.NDArray[np.floating[Any]], out: npt.NDArray[np.floating[Any]] | None) -> float:
    """What memory allows: read x, copy it to out, or update out; the sum of what was read."""

def activate(
    activation: int,
    values: npt.NDArray[np.floating[Any]],
    bias: npt.NDArray[np.floating[Any]],
    slope: npt.NDArray[np.floating[Any]] | None,
    uniform: npt.NDArray[np.floating[Any]] | None,
    rate: float,
) -> None:
    """Write f(values + bias) over values and f' to slope; with uniform numbers, drop both with probability rate."""

def backpropagate(
    error: npt.NDArray[np.floating[Any]],
    slope: npt.NDArray[np.floating[Any]] | None,
    bias_gradient: npt.NDArray[np.floating[Any]],
) -> None:
    """Multiply error by slope in place, and write its column sums."""

def sgd_step(
    parameters: npt.NDArray[np.floating[Any]],
    gradient: npt.NDArray[np.floating[Any]],
    velocity: npt.NDArray[np.floating[Any]],
    n_weights: int,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    l2: float,
    l1: float,
) -> None:
    """Move the parameters by momentum; the first n_weights are penalised."""

def adamw_step(
    parameters: npt.NDArray[np.floating[Any]],
    gradient: npt.NDArray[np.floating[Any]],
    mean: npt.NDArray[np.floating[Any]],
    square: npt.NDArray[np.floating[Any]],
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

def gemm(
    address: int,
    alpha: float,
    a: npt.NDArray[np.floating[Any]],
    b: npt.NDArray[np.floating[Any]],
    beta: float,
    c: npt.NDArray[np.floating[Any]],
    in_tiles: bool,
) -> None:
    """C = alpha a b + beta c, by a BLAS's gemm at this address: in one call, or in tiles that our threads share."""

def linear_loss(
    x: npt.NDArray[np.floating[Any]],
    coef: npt.NDArray[np.floating[Any]],
    intercept: npt.NDArray[np.floating[Any]] | None,
    target: npt.NDArray[np.int64],
    weight: npt.NDArray[np.floating[Any]] | None,
    scale: float,
    coef_gradient: npt.NDArray[np.floating[Any]],
    intercept_gradient: npt.NDArray[np.floating[Any]] | None,
) -> float:
    """Return the weighted sum of the samples' losses; write scale x its gradient."""

def linear_curvature(
    x: npt.NDArray[np.floating[Any]],
    coef: npt.NDArray[np.floating[Any]],
    intercept: npt.NDArray[np.floating[Any]] | None,
    probabilities: npt.NDArray[np.floating[Any]],
    weight: npt.NDArray[np.floating[Any]] | None,
    scale: float,
    coef_gradient: npt.NDArray[np.floating[Any]],
    intercept_gradient: npt.NDArray[np.floating[Any]] | None,
) -> None:
    """Write scale x the product of that sum's Hessian with coef and intercept, where the probabilities are these."""

def linear_logits(
    x: npt.NDArray[np.floating[Any]],
    coef: npt.NDArray[np.floating[Any]],
    intercept: npt.NDArray[np.floating[Any]] | None,
    out: npt.NDArray[np.floating[Any]],
) -> None:
    """Write x coef' + intercept to out."""

def linear_gradient(
    x: npt.NDArray[np.floating[Any]],
    errors: npt.NDArray[np.floating[Any]],
    coef_gradient: npt.NDArray[np.floating[Any]],
    intercept_gradient: npt.NDArray[np.floating[Any]] | None,
) -> None:
    """Write errors' x and the sums of the errors' columns."""

def csr_product(
    indptr: npt.NDArray[np.integer[Any]],
    indices: npt.NDArray[np.integer[Any]],
    data: npt.NDArray[np.floating[Any]],
    dense: npt.NDArray[np.floating[Any]],
    out: npt.NDArray[np.floating[Any]],
    add: bool,
) -> None:
    """Write (or add) the product of a CSR matrix, whose columns are the rows of `dense`, with `dense` to out."""

def csr_transposed_product(
    indptr: npt.NDArray[np.integer[Any]],
    indices: npt.NDArray[np.integer[Any]],
    data: npt.NDArray[np.floating[Any]],
    dense: npt.NDArray[np.floating[Any]],
    out: npt.NDArray[np.floating[Any]],
    add: bool,
) -> None:
    """Write (or add) the product of a CSR matrix's transpose, whose rows are those of out, with `dense` to out."""

def take_rows(x: npt.NDArray[Any], index: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
    """Write the rows x[index] to out."""

def isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def threading_layer() -> str: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
