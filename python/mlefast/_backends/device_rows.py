"""The functions of rows for arrays on a device: axes put in order, jobs launched.

Written over an array module that speaks like NumPy, which in the tests it is. Nothing here reads an array's numbers,
which would wait for the device, unless ``MLEFAST_CUDA_CHECK=1`` asks for wrong targets to be raised.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefast._arguments import (
    NONE_IGNORED,
    as_axes,
    as_axis,
    as_denominator,
    as_ignore_index,
    as_reduction,
    check_classes,
    quotient,
    wrong_target,
)
from mlefast._backends import array_functions
from mlefast._backends.cuda import (
    Job,
    LossJob,
    Rows,
    divide_by_weight,
    reduce,
    rows_across,
    rows_of,
    value_dtype,
    weigh,
)
from mlefast._backends.cuda_terms import TermJob
from mlefast._backends.device_binary import BinaryFunctions
from mlefast._table import BOTH, DERIVATIVES, Loss, kernel_options

_ROW = Loss(("index",))


@dataclass
class ClassesLast:
    """An array with its class axes joined at the end, and the way back for results."""

    array: Any
    back: Callable[[Any], Any]

    @classmethod
    def of(cls, array: Any, axes: tuple[int, ...]) -> ClassesLast:
        """Move the axes to the end; copies only if several that are no neighbours are joined."""
        order = [*(d for d in range(array.ndim) if d not in axes), *axes]
        moved = array.transpose(order)
        inverse = sorted(range(array.ndim), key=order.__getitem__)
        joined = moved.reshape((*moved.shape[: array.ndim - len(axes)], math.prod(array.shape[d] for d in axes)))
        return cls(joined, lambda result: result.reshape(moved.shape).transpose(inverse))


@dataclass
class Checked:
    """The arguments that every function of a row of logits and a target has, as the jobs want them."""

    logits: Any
    axis: int
    rows: tuple[int, ...]
    target: Any  # integers in the shape of `rows`, or None
    probabilities: Any  # numbers in the shape of the logits, or None
    weight: Any
    ignore_index: int
    options: dict[str, float]
    target_name: str = "target"  # what the caller calls it

    @property
    def classes(self) -> int:
        return int(self.logits.shape[self.axis])

    @property
    def count(self) -> int:
        return math.prod(self.rows)


class RowFunctions(BinaryFunctions):
    """What the API offers of them, for the arrays of one device."""

    # ---- functions of logits alone

    def softmax(self, task: str, x: Any, axis: int | Sequence[int] | None, temperature: float, out: Any) -> Any:
        """Run ``"softmax"`` or ``"log_softmax"``."""
        array = self._logits(x, "x")
        axes = as_axes(axis, array.ndim)
        check_classes(tuple(array.shape), axes, "x")
        into = self._out(out, array, "x")
        if temperature != 1.0:  # halves are divided, and their softmax taken, in float32
            divided = array.astype(value_dtype(array.dtype))
            divided /= temperature
            result = self.softmax(task, divided, axis, 1.0, divided if divided.flags.c_contiguous else None)
            return result.astype(array.dtype, copy=False) if into is None else _copy(result, into)
        if not axes:  # every entry a distribution of its own
            array, axes = array[..., None], (array.ndim,)
            result = self._with_output(array, axes, None, lambda x, to: Job(self.device, task, x, to).run())
            result = result[..., 0]
            return result if into is None else _copy(result, into)
        return self._with_output(array, axes, into, lambda x, to: Job(self.device, task, x, to).run())

    def logsumexp(self, x: Any, axis: int | Sequence[int] | None, keepdims: bool) -> Any:
        """Return the log of the sum of exponentials, of the dtype of losses."""
        array = self._logits(x, "x")
        axes = as_axes(axis, array.ndim)
        check_classes(tuple(array.shape), axes, "x")
        if not axes:
            return array.astype(value_dtype(array.dtype))
        rows = self._rows(ClassesLast.of(array, axes).array)
        value = self.xp.empty(rows.array.shape[:-1], value_dtype(array.dtype))
        if rows.count:
            Job(self.device, "logsumexp", rows, value=value).run()
        return value.reshape([1 if d in axes else n for d, n in enumerate(array.shape)]) if keepdims else value

    # ---- losses of rows with a target

    def loss(
        self,
        name: str,
        row: Loss,
        logits: Any,
        target: Any,
        *,
        axis: Any,
        weight: Any,
        ignore_index: Any,
        reduction: Any,
        denominator: Any,
        gradient: bool,
        upstream: Any,
        out: Any,
        byproducts: tuple[str, ...],
        options: dict[str, Any],
    ) -> tuple[Any, ...]:
        """Return a loss of the table, its gradient (None unless asked for) and the by-products."""
        of = self._check(row, logits, target, axis, weight, ignore_index, options)
        reduced = as_reduction(reduction)
        divisor = as_denominator(denominator, reduced)
        factor, factors = self._upstream(upstream, of.rows if reduced == "none" else (), of.logits.dtype)
        into = self._out(out, of.logits, "logits")
        dtype = value_dtype(of.logits.dtype)
        loss = self.xp.empty(of.rows if reduced == "none" else (), dtype)
        extra: dict[str, Any] = {
            name: self.xp.zeros(of.rows, {"lse": dtype, "hit": np.int32}[name]) for name in byproducts
        }
        if of.target is None and reduced == "mean" and divisor is None and of.count:
            divisor = float(of.count)

        def run(job: LossJob) -> None:
            if reduced == "none":
                job.value = loss
                job.run()
            else:
                reduce(job, reduced, divisor, loss)

        if of.count == 0:
            loss[...] = math.nan if reduced == "mean" and divisor is None else 0
        given = {"upstream": factors, "scale": factor}
        if name == "cross_entropy" and of.target is not None and not byproducts and not of.options:
            dlogits = self._run_task("cross_entropy_and_grad" if gradient else "cross_entropy", of, into, run, **given)
        else:
            given |= {"second_value": extra.get("lse"), "hit": extra.get("hit")}
            dlogits = self._run(name, of, run, writes=gradient, into=into, **given)
        if "hit" in extra:
            extra["hit"] = extra["hit"].astype(np.bool_)
        return loss, dlogits, *(extra[name] for name in byproducts)

    def log_prob(
        self,
        logits: Any,
        index: Any,
        axis: Any,
        *,
        entropy: bool,
        gradient: bool,
        upstream: Any,
        entropy_upstream: Any,
        out: Any,
    ) -> tuple[Any, Any, Any]:
        """Return log-probabilities, entropies (None unless asked for) and the gradient of their weighted sum."""
        of = self._check(_ROW, logits, index, axis, None, NONE_IGNORED, {}, "index")
        dtype = of.logits.dtype
        value = self.xp.empty(of.rows, value_dtype(dtype))
        second = self.xp.empty(of.rows, value_dtype(dtype)) if entropy else None
        scale, factors = self._upstream(upstream, of.rows, dtype)
        second_scale, second_factors = self._upstream(entropy_upstream, of.rows, dtype, "entropy_upstream")
        dlogits = self._run(
            "log_prob",
            of,
            _launch_alone,
            writes=gradient,
            into=self._out(out, of.logits, "logits"),
            value=value,
            second_value=second,
            scale=scale,
            upstream=factors,
            second_scale=second_scale if entropy else 0.0,
            second_upstream=second_factors,
        )
        return value, second, dlogits

    def hessian_product(
        self,
        logits: Any,
        target: Any,
        vector: Any,
        *,
        axis: Any,
        weight: Any,
        ignore_index: Any,
        reduction: Any,
        denominator: Any,
        out: Any,
        options: dict[str, Any],
    ) -> Any:
        """Return the Hessian of a cross-entropy times a vector."""
        of = self._check(DERIVATIVES["cross_entropy_hvp"], logits, target, axis, weight, ignore_index, options)
        reduced = as_reduction(reduction)
        divisor = as_denominator(denominator, reduced)
        along = self._like(self._reals(vector, "vector"), of.logits, "vector", "that of logits")
        if of.target is None and reduced == "mean" and divisor is None:
            divisor = float(of.count)

        def run(job: LossJob) -> None:
            if divisor is not None:
                job.scale = quotient(1.0, divisor)
            elif reduced == "mean":
                divide_by_weight(job)
            job.run()

        into = self._out(out, of.logits, "logits")
        return self._run("cross_entropy_hvp", of, run, writes=True, into=into, v=along)

    def gradient_and_hessian(
        self,
        logits: Any,
        target: Any,
        *,
        axis: Any,
        weight: Any,
        ignore_index: Any,
        sample_weight: Any,
        hessian: Callable[[int], float],
        floor: float,
        options: dict[str, Any],
    ) -> tuple[Any, Any]:
        """Return each row's gradient and the diagonal of its Hessian, times a factor of the number of classes."""
        of = self._check(DERIVATIVES["cross_entropy_grad_hess"], logits, target, axis, weight, ignore_index, options)
        factors = None
        if sample_weight is not None:
            array = self._reals(sample_weight, "sample_weight")
            if tuple(array.shape) != of.rows:
                raise ValueError(
                    f"sample_weight: received shape {tuple(array.shape)}; accepted: {of.rows}, one for each row"
                )
            _, factors = self._upstream(array, of.rows, of.logits.dtype)
        of.options |= {"hessian": hessian(of.classes), "floor": floor}
        last, dtype = ClassesLast.of(of.logits, (of.axis,)), value_dtype(of.logits.dtype)
        diagonal = self.xp.empty(last.array.shape, dtype)

        def run(job: TermJob) -> None:
            nonlocal diagonal
            job.second = self._empty_like(job.x, dtype)
            diagonal = job.second.array
            job.run()

        gradient = self._run("cross_entropy_grad_hess", of, run, writes=True, into=None, upstream=factors)
        return gradient, last.back(diagonal)

    # ---- functions of rows without a target

    def entropy(self, p: Any, axis: Any, *, gradient: bool, upstream: Any, out: Any) -> tuple[Any, Any]:
        """Return the entropy of probabilities and its gradient (None unless asked for)."""
        of = self._check_rows(p, axis, "p")
        value = self.xp.empty(of.rows, value_dtype(of.logits.dtype))
        scale, factors = self._upstream(upstream, of.rows, of.logits.dtype)
        given = {"value": value, "scale": scale, "upstream": factors}
        return value, self._run(
            "entropy", of, _launch_alone, writes=gradient, into=self._out(out, of.logits, "p"), **given
        )

    def product(self, name: str, y: Any, upstream: Any, axis: Any, out: Any) -> Any:
        """Run ``"softmax_vjp"`` or ``"log_softmax_vjp"``."""
        of = self._check_rows(y, axis, "y")
        vector = self._like(self._reals(upstream, "upstream"), of.logits, "upstream", "that of y")
        return self._run(name, of, _launch_alone, writes=True, into=self._out(out, of.logits, "y"), v=vector)

    def information_gain(self, counts: Any) -> Any:
        """Return the mutual information of tables' branches and classes, in float64."""
        array = self._reals(counts, "counts")
        array_functions.check_tables(tuple(array.shape))
        n = array.astype(np.float64)
        if checks_targets() and not bool((n >= 0).all()):
            raise array_functions.negative_count(float(self.device.to_host(n).min()))
        return array_functions.information_gain(self.xp, n)

    # ---- rows

    def _check(
        self,
        loss: Loss,
        logits: Any,
        target: Any,
        axis: Any,
        weight: Any,
        ignore_index: Any,
        options: dict[str, Any],
        target_name: str = "target",
    ) -> Checked:
        of = self._check_rows(logits, axis, "logits")
        if loss.targets == ("index",) or (loss.targets == BOTH and self._is_index_target(target, of.logits)):
            of.target = self._target(target, of.rows, target_name)
        else:
            accepted = "real numbers, a probability for each class"
            of.probabilities = self._like(self._reals(target, target_name, accepted), of.logits, target_name)
        of.weight = self._weight(weight, of.classes, of.logits.dtype)
        of.ignore_index = as_ignore_index(ignore_index)
        of.options = kernel_options(loss, options, of.classes)
        of.target_name = target_name
        return of

    def _check_rows(self, x: Any, axis: Any, name: str) -> Checked:
        array = self._logits(x, name)
        class_axis = as_axis(axis, array.ndim, name)
        shape = tuple(array.shape)
        check_classes(shape, (class_axis,), name)
        return Checked(array, class_axis, shape[:class_axis] + shape[class_axis + 1 :], None, None, None, 0, {})

    def _rows(self, array: Any) -> Rows:
        """See the last axis as classes, through a copy if need be."""
        rows = rows_of(array) or rows_across(array)
        return rows if rows is not None else Rows(self.xp.ascontiguousarray(array), int(array.shape[-1]))

    def _rows_like(self, x: Rows, array: Any) -> Rows:
        """See another array's last axis as the logits' is seen, through a copy if need be."""
        if not x.inner:
            rows = rows_of(array)
            return rows if rows is not None else Rows(self.xp.ascontiguousarray(array), int(array.shape[-1]))
        if not same_layout(x.array, array):
            laid = self.xp.empty_like(x.array, dtype=array.dtype)
            laid[...] = array
            array = laid
        return Rows(array, x.stride, x.inner, x.step)

    def _empty_like(self, x: Rows, dtype: np.dtype[Any]) -> Rows:
        if x.inner:
            return Rows(self.xp.empty_like(x.array, dtype=dtype), x.stride, x.inner, x.step)
        return Rows(self.xp.empty(x.array.shape, dtype), x.classes)

    def _with_output(
        self, array: Any, axes: tuple[int, ...], into: Any, run: Callable[[Rows, Rows | None], Any]
    ) -> Any:
        """Run with an output array like the input: `into` itself where its classes lie as the kernels need them."""
        last = ClassesLast.of(array, axes)
        rows = self._rows(last.array)
        direct = None
        if into is not None:
            moved = ClassesLast.of(into, axes).array
            if self.device.address(moved) == self.device.address(into):
                if not rows.inner:
                    direct = rows_of(moved)
                elif same_layout(rows.array, moved):
                    direct = Rows(moved, rows.stride, rows.inner, rows.step)
            # A copy of the input is read while the input itself is written: nothing overlaps.
        to = direct or self._empty_like(rows, array.dtype)
        if rows.count:
            run(rows, to)
        if direct is not None:
            return into
        result = last.back(to.array)
        return result if into is None else _copy(result, into)

    def _run(
        self,
        name: str,
        of: Checked,
        run: Callable[[TermJob], Any],
        *,
        writes: bool,
        into: Any,
        v: Any = None,
        **given: Any,
    ) -> Any:
        """Run a loss of rules/term_losses.h; return its output, if it writes one."""

        def beside(x: Rows, array: Any) -> Rows | None:
            return None if array is None else self._rows_like(x, ClassesLast.of(array, (of.axis,)).array)

        def launch(x: Rows, to: Rows | None) -> None:
            job = TermJob(self.device, name, x, to, of.target, of.ignore_index, of.weight, **given)
            job.options, job.probabilities, job.v = of.options, beside(x, of.probabilities), beside(x, v)
            self._raise_wrong_target(job, of.target_name)
            run(job)

        return self._launch(of, launch, writes, into)

    def _run_task(self, task: str, of: Checked, into: Any, run: Callable[[LossJob], Any], **given: Any) -> Any:
        """Run a task of rules/losses.h; return its output, if it writes one."""

        def launch(x: Rows, to: Rows | None) -> None:
            job = Job(self.device, task, x, to, of.target, of.ignore_index, of.weight, **given)
            self._raise_wrong_target(job, of.target_name)
            run(job)

        return self._launch(of, launch, task == "cross_entropy_and_grad", into)

    def _launch(self, of: Checked, launch: Callable[[Rows, Rows | None], None], writes: bool, into: Any) -> Any:
        if writes:
            return self._with_output(of.logits, (of.axis,), into, launch)
        if of.count:
            launch(self._rows(ClassesLast.of(of.logits, (of.axis,)).array), None)
        return None

    def _raise_wrong_target(self, job: LossJob, name: str) -> None:
        if job.target is None or not checks_targets():
            return
        self._check_targets(job.target, job.x.classes, job.ignore_index, name)

    def _check_targets(self, target: Any, classes: int, ignore_index: int, name: str = "target") -> None:
        _, wrong = weigh(self.device, target, classes, ignore_index, None, np.dtype(np.float32))
        first = int(self.device.to_host(wrong).min())
        if first < target.size:
            raise wrong_target(self.device.to_host(target), first, classes, ignore_index, name)


def checks_targets() -> bool:
    """Whether wrong targets and counts are to be raised rather than answered by NaN."""
    return os.environ.get("MLEFAST_CUDA_CHECK") == "1"


def same_layout(a: Any, b: Any) -> bool:
    """Whether elements of one index are equally far from the first in both arrays."""
    sizes = a.dtype.itemsize, b.dtype.itemsize
    return all(n < 2 or s * sizes[1] == t * sizes[0] for n, s, t in zip(a.shape, a.strides, b.strides))


def _launch_alone(job: LossJob) -> None:
    job.run()


def _copy(result: Any, into: Any) -> Any:
    into[...] = result
    return into
