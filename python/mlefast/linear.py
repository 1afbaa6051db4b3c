"""The cross-entropy of a linear layer, without its logits: blocks of rows go from inputs to gradients in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mlefast._arguments import (
    FloatArray,
    IntArray,
    as_denominator,
    as_ignore_index,
    as_logits,
    as_numpy,
    as_real,
    as_reduction,
    as_target,
    as_upstream,
    as_weight,
    check_classes,
    describe,
    is_stored,
    quotient,
)
from mlefast._backends import backend_of, device_functions_of, on_host
from mlefast._backends.numpy import weigh_targets
from mlefast._gemm import gemm, is_readable
from mlefast.losses import cross_entropy, cross_entropy_and_grad

__all__ = ["linear_cross_entropy", "linear_cross_entropy_and_grad"]

# What a call may take besides its gradients. The more rows a block has, the less it matters that each block reads all
# of the weights; measured in docs/linear.md.
_MEMORY = 63 * 2**20
_PART = 8 * 2**20  # of it, for the classes that are converted or gathered at a time
_ROWS_STEP = 16  # rows that the inner kernels of BLAS libraries take at a time, or a multiple of them
_WORTH_GATHERING = 0.5  # of the classes: to gather more of them takes longer than to multiply by all


def linear_cross_entropy(
    x: Any,
    weight: Any,
    target: Any,
    *,
    bias: Any = None,
    class_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
    denominator: float | None = None,
    filter_eps: float | None = None,
) -> Any:
    r"""Cross-entropy of the logits ``x @ weight.T + bias``, which never exist as a whole.

    For a row :math:`x` with the label :math:`y` it is :math:`\log \sum_k e^{w_k x + b_k} - (w_y x + b_y)`: the last
    layer of a classifier or language model and its loss in one.

    Parameters
    ----------
    x : array_like of float16, bfloat16, float32 or float64, shape (..., D)
        Inputs of the layer, with any strides.
    weight : array_like of the same dtypes, shape (C, D)
        A row for each class.
    target : array_like of int, shape (...), or of float, shape (..., C)
        Class indices from 0 to C - 1, or a distribution over the classes for each row.
    bias : array_like, shape (C,), optional
        Added to the logits. -inf masks a class.
    class_weight, ignore_index, label_smoothing, z_loss, softcap, temperature, reduction, denominator
        As for :func:`cross_entropy`, where `class_weight` is called `weight`.
    filter_eps : float, optional
        Of :func:`linear_cross_entropy_and_grad`, so that both take the same options; the loss is exact in any case.

    Returns
    -------
    scalar or ndarray
        The loss, float64 if `x`, `weight` or `bias` is, otherwise float32; with ``reduction="none"`` in the shape of
        the rows, ``x.shape[:-1]``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, or on a CUDA device where `x` is not.
    ValueError
        If a shape or an option does not fit.
    IndexError
        If a target is neither a class nor `ignore_index`. Nothing is computed then.

    See Also
    --------
    linear_cross_entropy_and_grad : the loss and its gradients.

    Notes
    -----
    Blocks of rows, of up to 63 MB of logits, are multiplied by SciPy's BLAS and reduced where they lie. Ignored rows
    enter no product, so they cost nothing and may hold anything. Halves are converted to float32 in parts, and
    computed in it. Results have the same bits run after run, for one number of the BLAS's threads.

    Examples
    --------
    >>> import numpy as np
    >>> import mlefast as mf
    >>> x, weight = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    >>> round(float(mf.linear_cross_entropy(x, weight, [0, 1])), 6)
    0.239545
    >>> round(float(mf.cross_entropy(x @ weight.T, [0, 1])), 6)
    0.239545
    """
    loss, _ = _linear_cross_entropy(
        x,
        weight,
        target,
        bias,
        class_weight,
        ignore_index,
        {"label_smoothing": label_smoothing, "z_loss": z_loss, "softcap": softcap, "temperature": temperature},
        reduction,
        denominator,
        filter_eps,
        gradient=False,
        upstream=None,
    )
    return loss


def linear_cross_entropy_and_grad(
    x: Any,
    weight: Any,
    target: Any,
    *,
    bias: Any = None,
    class_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
    denominator: float | None = None,
    filter_eps: float | None = None,
    upstream: Any = None,
) -> tuple[Any, tuple[Any, Any, Any]]:
    r"""Loss of :func:`linear_cross_entropy` and its gradients with respect to `x`, `weight` and `bias`.

    With the gradient of the logits :math:`G` (for plain labels :math:`u (p - \mathrm{onehot}(y)) / d`, as in
    :func:`cross_entropy_and_grad`) they are :math:`G W`, :math:`G^T X` and the sum of :math:`G` over the rows.

    Parameters
    ----------
    x, weight, target, bias, class_weight, ignore_index, label_smoothing, z_loss, softcap, temperature
        As for :func:`linear_cross_entropy`.
    reduction, denominator
        As for :func:`linear_cross_entropy`.
    filter_eps : float, optional
        Leave classes out of the two products of a block of rows if, in all of its rows, the gradient of their logits
        is smaller than this: of each row's own loss, which neither `denominator` nor `upstream` has scaled, so that
        the entries of :math:`p - \mathrm{onehot}(y)` are compared. Every entry that is left out changes the gradient
        of its row of `x` by less than ``filter_eps * abs(u) / d`` times the class's row of `weight`. Blocks where
        more than half of the classes matter are multiplied as they are. The loss and the gradient of `bias` stay
        exact. Without it, or with 0, nothing is left out; nor is it on a CUDA device, which would have to be waited
        for.
    upstream : float or array_like in the shape of the loss, default 1
        The gradient of what follows with respect to this loss; scales the gradients only. Without it
        ``reduction="none"`` gives each row's own gradient.

    Returns
    -------
    loss : scalar or ndarray
        As :func:`linear_cross_entropy`.
    gradients : tuple (dx, dweight, dbias)
        Each of the dtype and shape of its input; `dbias` is None without a bias. Rows of `dx` that are ignored are
        exactly 0.

    Raises
    ------
    TypeError, ValueError, IndexError
        As :func:`linear_cross_entropy`, and if `upstream` does not fit.

    Notes
    -----
    Beside the gradients at most 64 MB are taken, whatever the number of rows and classes is, as long as a row of
    logits fits in; for weights of float16 or bfloat16, whose gradient is summed up in float32, the size of that
    gradient once more. The idea of never storing the logits, and of filtering gradients, is that of [1]_.

    References
    ----------
    .. [1] E. Wijmans, B. Huval, A. Hertzberg, V. Koltun, P. Krähenbühl, "Cut Your Losses in Large-Vocabulary Language
       Models", 2024, arXiv:2411.09009.

    Examples
    --------
    >>> import numpy as np
    >>> import mlefast as mf
    >>> x, weight = np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)
    >>> loss, (dx, dweight, dbias) = mf.linear_cross_entropy_and_grad(x, weight, [1, 1], bias=np.zeros(4, np.float32))
    >>> dweight[:, 0]
    array([ 0.25, -0.75,  0.25,  0.25], dtype=float32)
    >>> dbias
    array([ 0.25, -0.75,  0.25,  0.25], dtype=float32)
    """
    loss, gradients = _linear_cross_entropy(
        x,
        weight,
        target,
        bias,
        class_weight,
        ignore_index,
        {"label_smoothing": label_smoothing, "z_loss": z_loss, "softcap": softcap, "temperature": temperature},
        reduction,
        denominator,
        filter_eps,
        gradient=True,
        upstream=upstream,
    )
    return loss, cast("tuple[Any, Any, Any]", gradients)


def _linear_cross_entropy(
    x: Any,
    weight: Any,
    target: Any,
    bias: Any,
    class_weight: Any,
    ignore_index: Any,
    options: dict[str, Any],
    reduction: Any,
    denominator: Any,
    filter_eps: Any,
    *,
    gradient: bool,
    upstream: Any,
) -> tuple[Any, tuple[Any, Any, Any] | None]:
    on_device = device_functions_of(x)
    if on_device is not None:
        _as_filter_eps(filter_eps)
        loss, *results = on_device.linear_cross_entropy(
            x,
            weight,
            target,
            bias=bias,
            class_weight=class_weight,
            ignore_index=ignore_index,
            reduction=reduction,
            denominator=denominator,
            gradient=gradient,
            upstream=upstream,
            options=options,
        )
        return loss, (results[0], results[1], results[2]) if gradient else None
    given = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    arrays = {name: _as_host_array(array, name) for name, array in given.items()}
    in_kind = {name: backend_of(array)[1] for name, array in given.items()}
    _check_shapes(**arrays)
    dtype = np.dtype(np.float64 if any(a.dtype.char == "d" for a in arrays.values()) else np.float32)
    rows, classes = arrays["x"].shape[:-1], arrays["weight"].shape[0]
    labels = _as_labels(target, rows, classes)
    factors = as_weight(class_weight, classes, dtype, "class_weight")
    ignored = as_ignore_index(ignore_index)
    reduced = as_reduction(reduction)
    total_weight = as_denominator(denominator, reduced)
    scale, row_upstream = as_upstream(upstream, reduced, rows, dtype)
    threshold = _as_filter_eps(filter_eps)
    options = options | {"weight": factors, "ignore_index": ignored, "reduction": "none"}
    cross_entropy(np.empty((0, classes), dtype), np.empty(0, np.int64), **options)  # says what is wrong with them

    kept, divisor = _rows_that_count(labels, rows, classes, ignored, factors)
    if total_weight is not None:
        divisor = total_weight
    elif reduced != "mean":
        divisor = 1.0
    layer = _Layer(
        arrays["x"], arrays["weight"], arrays.get("bias"), labels, dtype, options, kept, gradient and threshold > 0
    )
    losses = np.zeros(layer.count, dtype) if reduced == "none" else None
    if gradient:
        total, gradients = layer.gradients(losses, quotient(scale, divisor), row_upstream, threshold)
        answer = {
            name: in_kind[name](array) for name, array in zip(("x", "weight", "bias"), gradients) if name in given
        }
    else:
        total = layer.loss(losses)
    loss = cast("Any", dtype.type)(quotient(total, divisor)) if losses is None else losses.reshape(rows)[()]
    return in_kind["x"](loss), (answer["x"], answer["weight"], answer.get("bias")) if gradient else None


# ---- arguments


def _as_host_array(array: Any, name: str) -> FloatArray:
    on_host(array, name)
    return as_logits(array, name)


def _check_shapes(x: FloatArray, weight: FloatArray, bias: FloatArray | None = None) -> None:
    if x.ndim == 0:
        raise ValueError("x: received a scalar; accepted: an array of shape (..., D)")
    if weight.ndim != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(
            f"weight: received shape {weight.shape}; accepted: (C, {x.shape[-1]}), a row of x's length for each class"
        )
    check_classes(weight.shape, (0,), "weight")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: received shape {bias.shape}; accepted: {weight.shape[:1]}, one number for each class")


# Class indices, or floating numbers: a distribution for each row.
def _as_labels(target: Any, rows: tuple[int, ...], classes: int) -> FloatArray | IntArray:
    array = as_numpy(target, "target")
    if not is_stored(array.dtype) or (array.size == 0 and not hasattr(target, "dtype")):
        return as_target(target, rows)
    if array.shape != (*rows, classes):
        raise ValueError(
            f"target: received {describe(array)}; accepted: integers of shape {rows}, or probabilities of shape "
            f"{(*rows, classes)}"
        )
    return array


def _as_filter_eps(filter_eps: Any) -> float:
    if filter_eps is None:
        return 0.0
    number = as_real(filter_eps, "filter_eps")
    if not 0 <= number < math.inf:
        raise ValueError(f"filter_eps: received {number}; accepted: a finite number >= 0, or None")
    return number


# The rows that are not ignored (None: all of them), and what "mean" divides by.
def _rows_that_count(
    labels: FloatArray | IntArray, rows: tuple[int, ...], classes: int, ignored: int, factors: FloatArray | None
) -> tuple[IntArray | None, float]:
    if labels.dtype.kind not in "iu":
        return None, math.prod(rows)
    indices = cast("IntArray", labels)
    counted, weights = weigh_targets(indices, classes, ignored, factors)
    return None if counted == indices.size else np.flatnonzero(indices != ignored), weights


# ---- the blocks

Rows = slice | IntArray


@dataclass
class _Layer:
    """The checked arguments of one call, and its walk over blocks of rows."""

    x: FloatArray
    weight: FloatArray
    bias: FloatArray | None
    labels: FloatArray | IntArray
    dtype: np.dtype[Any]  # of everything that is computed
    options: dict[str, Any]  # of the loss
    kept: IntArray | None  # numbers of the rows that count; None: all of them
    filters: bool

    def __post_init__(self) -> None:
        self.rows, (self.classes, self.features) = self.x.shape[:-1], self.weight.shape
        self.count: int = math.prod(self.rows)
        # Leading axes that might not be seen as one without a copy of everything: rows are looked up one by one.
        touching = self.x.flags.c_contiguous and self.labels.flags.c_contiguous
        if self.kept is None and len(self.rows) > 1 and not touching:
            self.kept = np.arange(self.count)
        self.converts = not is_readable(self.weight, self.dtype)
        self.part = self.classes
        if self.converts:
            self.part = min(self.part, max(1, _PART // (max(self.features, 1) * self.dtype.itemsize)))
            self.converted = np.empty((self.part, self.features), self.dtype)

    def loss(self, losses: FloatArray | None) -> float:
        """Return the sum of the losses, and write each one to `losses`."""
        total = 0.0
        for rows, _, logits, labels in self._blocks():
            total += _collect(cross_entropy(logits, labels, **self.options), rows, losses)
        return total

    def gradients(
        self, losses: FloatArray | None, scale: float, row_upstream: FloatArray | None, threshold: float
    ) -> tuple[float, tuple[FloatArray, FloatArray, FloatArray | None]]:
        """Return the sum of the losses, and the gradients of x, weight and bias."""
        total = 0.0
        dx = np.zeros((self.count, self.features), self.x.dtype)
        dweight = np.zeros(self.weight.shape, self.dtype)
        dbias = np.zeros((1, self.classes), self.dtype)
        in_place = self.kept is None and dx.dtype == self.dtype
        written = threshold > 0  # what no product has written counts as 0
        for rows, x, logits, labels in self._blocks():
            values, _ = cross_entropy_and_grad(logits, labels, out=logits, **self.options)
            total += _collect(values, rows, losses)
            factor = None if row_upstream is None else row_upstream.reshape(-1, 1)[rows]
            scaled = x if factor is None else x * factor
            block_dx = dx[rows] if in_place else np.zeros(x.shape, self.dtype)
            classes = self._classes_that_matter(logits, threshold)
            for part in self._parts() if classes is None else ():
                gemm(scale, logits[:, part], self._weight(part), 1.0, block_dx)
                gemm(scale, logits[:, part].T, scaled, 1.0 if written else 0.0, dweight[part])
            for few in () if classes is None else self._few_at_a_time(classes, len(x)):
                gathered = np.take(logits, few, axis=1)
                gemm(scale, gathered, self.weight[few].astype(self.dtype, order="C", copy=False), 1.0, block_dx)
                sums = np.empty((few.size, self.features), self.dtype)
                gemm(scale, gathered.T, scaled, 0.0, sums)
                dweight[few] += sums
            written = True
            if self.bias is not None:
                ones = np.ones((len(x), 1), self.dtype) if factor is None else factor
                gemm(scale, ones.T, logits, 1.0, dbias)
            if factor is not None:
                block_dx *= factor
            if not in_place:
                dx[rows] = block_dx
        return total, (
            dx.reshape(self.x.shape),
            _narrow(dweight, self.weight.dtype),
            None if self.bias is None else dbias[0].astype(self.bias.dtype, copy=False),
        )

    def _blocks(self) -> Iterator[tuple[Rows, FloatArray, FloatArray, Any]]:
        """Yield rows, their inputs as the BLAS reads them, their logits (to be overwritten) and labels."""
        count = self.count if self.kept is None else int(self.kept.size)
        height = self._height(count)
        memory = np.empty((height, self.classes), self.dtype)
        for start in range(0, count, height):
            stop = min(start + height, count)
            rows = slice(start, stop) if self.kept is None else self.kept[start:stop]
            x = self._take(self.x, rows)
            if not is_readable(x, self.dtype):
                x = np.ascontiguousarray(x, self.dtype)
            logits = memory[: stop - start]
            if self.bias is not None:
                logits[:] = self.bias
            for part in self._parts():
                gemm(1.0, x, self._weight(part).T, 0.0 if self.bias is None else 1.0, logits[:, part])
            yield rows, x, logits, self._take(self.labels, rows)

    def _height(self, count: int) -> int:
        """Return the number of rows in a block: all blocks alike, as few of them as memory allows."""
        numbers = self.classes + 3 * self.features  # logits; converted inputs, scaled ones, their gradient
        if self.labels.dtype.kind not in "iu" and self.labels.dtype != self.dtype:
            numbers += self.classes
        memory: int = _MEMORY - _PART * (self.converts or self.filters)
        most = max(1, memory // int(numbers * self.dtype.itemsize))
        if most > _ROWS_STEP:
            most -= most % _ROWS_STEP
        height = -(-count // max(1, -(-count // most)))
        return max(1, min(most, -(-height // _ROWS_STEP) * _ROWS_STEP, count))

    def _take(self, array: Any, rows: Rows) -> Any:
        if isinstance(rows, slice):
            return array.reshape(self.count, *array.shape[len(self.rows) :])[rows]
        return array[np.unravel_index(rows, self.rows)]

    def _weight(self, part: slice) -> FloatArray:
        if not self.converts:
            return self.weight[part]
        converted = self.converted[: part.stop - part.start]
        converted[...] = self.weight[part]
        return converted

    def _parts(self) -> Iterator[slice]:
        for start in range(0, self.classes, self.part):
            yield slice(start, min(start + self.part, self.classes))

    def _classes_that_matter(self, gradient: FloatArray, threshold: float) -> IntArray | None:
        """Return those whose gradient reaches the threshold in some row, or None for all."""
        if threshold == 0:
            return None
        largest = np.maximum(gradient.max(axis=0), -gradient.min(axis=0))
        classes = np.flatnonzero(~(largest < threshold))  # NaN matters
        return classes if classes.size <= _WORTH_GATHERING * self.classes else None

    def _few_at_a_time(self, classes: IntArray, rows: int) -> Iterator[IntArray]:
        step = max(1, _PART // ((rows + 3 * self.features) * self.dtype.itemsize))  # their gradient, weights and sums
        for start in range(0, classes.size, step):
            yield classes[start : start + step]


def _collect(values: FloatArray, rows: Rows, losses: FloatArray | None) -> float:
    if losses is not None:
        losses[rows] = values
    return float(values.sum(dtype=np.float64))


# A matrix rounded to another dtype, in the memory that it has: there may not be enough for both.
def _narrow(wide: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    if wide.dtype == dtype:
        return wide
    shape, size = wide.shape, wide.size
    wide.resize(size, refcheck=False)
    narrow = wide.view(dtype)[:size]
    step = 2**16
    for start in range(0, size, step):  # never ahead of what is still to be read; NumPy copies where both overlap
        narrow[start : start + step] = wide[start : start + step]
    del narrow
    wide.resize(-(-size * dtype.itemsize // wide.itemsize), refcheck=False)
    return wide.view(dtype)[:size].reshape(shape)
