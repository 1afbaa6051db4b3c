"""How the step size changes from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

# Of the epoch's number, from 1: a factor of the initial step size.
Schedule = Callable[[int], float]

SCHEDULES = ("constant", "cosine", "invscaling", "adaptive")


def make_schedule(name: str | Schedule, max_iter: int) -> Schedule:
    r"""Return a schedule by its name.

    With epoch :math:`t` of :math:`T`: "constant" and "adaptive" (whose steps shrink when nothing improves: see
    `Descent`) are 1, "cosine" is :math:`\tfrac12 (1 + \cos \pi \frac{t-1}{T})` (I. Loshchilov, F. Hutter, ICLR 2017),
    "invscaling" :math:`1 / \sqrt t`. A callable is taken as it is.
    """
    if callable(name):
        return name
    if name == "cosine":
        return lambda epoch: 0.5 * (1 + math.cos(math.pi * (epoch - 1) / max_iter))
    if name == "invscaling":
        return lambda epoch: 1 / math.sqrt(epoch)
    return lambda epoch: 1.0
