"""How many threads the matrix products of a fit are worth."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from threadpoolctl import ThreadpoolController

# Multiplications and additions in a product that one thread does in about 0.1 ms. Threads of a BLAS wait for smaller
# ones in busy loops: on a machine that does something else as well, that made a fit forty times slower.
_WORTH_A_THREAD = 2_000_000


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def blas_threads_for(multiply_adds: int) -> AbstractContextManager[Any]:
    """Limit the BLAS to one thread while products of this size are computed, if they are not worth more."""
    if multiply_adds >= _WORTH_A_THREAD:
        return nullcontext()
    limited: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limited
