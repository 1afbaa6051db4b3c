"""The binary cross-entropy of arrays on a device: elements that know nothing of each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlefast._arguments import as_fraction, as_reduction, quotient
from mlefast._backends.cuda import Rows, add_up, value_dtype
from mlefast._backends.cuda_terms import TermJob
from mlefast._backends.device_arguments import DeviceArguments


class BinaryFunctions(DeviceArguments):
    """What the API offers of it, for the arrays of one device."""

    def binary_cross_entropy(
        self,
        logits: Any,
        target: Any,
        *,
        weight: Any,
        pos_weight: Any,
        label_smoothing: Any,
        reduction: Any,
        gradient: bool,
        upstream: Any,
        out: Any,
    ) -> tuple[Any, Any]:
        """Return the loss and its gradient (None unless asked for)."""
        xp, array = self.xp, self._logits(logits, "logits")
        shape, dtype = tuple(array.shape), value_dtype(array.dtype)
        classes = shape[-1] if shape else 1
        targets = self._array(target)
        if targets.dtype.kind != "b":
            targets = self._reals(targets, "target", "real numbers or bool")
        targets = self._like(targets, array, "target")
        of_elements = of_classes = positive = None
        if weight is not None:
            of_elements, of_classes = self._weights(weight, shape, dtype)
        reduced = as_reduction(reduction)
        scale, factors = self._upstream(upstream, shape if reduced == "none" else (), array.dtype)
        into = self._out(out, array, "logits")
        smoothing = as_fraction(label_smoothing, "label_smoothing")
        if pos_weight is not None:
            positive = self._pos_weight(pos_weight, classes, dtype)

        divisor = float(array.size) if reduced == "mean" else 1.0
        loss = xp.empty(shape if reduced == "none" else (), dtype)
        dlogits = None if not gradient else into if into is not None else xp.empty(shape, array.dtype)
        if array.size == 0:
            loss[...] = math.nan if reduced == "mean" else 0
            return loss, dlogits

        def flat(of: Any) -> Rows | None:
            return None if of is None else Rows(xp.ascontiguousarray(of).reshape(-1), int(array.size))

        x = flat(array)
        assert x is not None
        job = TermJob(self.device, "binary_cross_entropy", x, flat(dlogits), weight=of_classes, positive=positive)
        job.probabilities, job.u, job.scale = flat(targets), flat(of_elements), quotient(scale, divisor)
        if factors is not None and factors.ndim:
            job.v = flat(factors)
        else:
            job.upstream = factors
        job.options = {"keep": 1 - smoothing, "spread": smoothing / 2} if smoothing else {}
        job.period = 1 if of_classes is None and positive is None else classes
        if reduced == "none":
            job.second = flat(loss)
            job.run()
        else:
            add_up(self.device, job.run(partial=True), array.dtype, loss=loss, divisor=divisor)
        return loss, dlogits

    # A weight for each element, or for each class of the last axis.
    def _weights(self, weight: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Any, Any]:
        array = self._reals(weight, "weight").astype(dtype, copy=False)
        try:
            full = self.xp.broadcast_to(array, shape)
        except ValueError:
            raise ValueError(
                f"weight: received shape {tuple(array.shape)}; accepted: one that broadcasts to {shape}"
            ) from None
        if shape and array.ndim and array.shape[-1] == shape[-1] == array.size:
            return None, self.xp.ascontiguousarray(array.reshape(-1))
        return full, None

    # A factor for each class of the last axis, or one for all.
    def _pos_weight(self, pos_weight: Any, classes: int, dtype: np.dtype[Any]) -> Any:
        array = self._reals(pos_weight, "pos_weight").astype(dtype, copy=False)
        if tuple(array.shape) not in ((), (1,), (classes,)):
            raise ValueError(
                f"pos_weight: received shape {tuple(array.shape)}; accepted: () or ({classes},), a number for each "
                "class"
            )
        return self.xp.ascontiguousarray(self.xp.broadcast_to(array, (classes,)))
