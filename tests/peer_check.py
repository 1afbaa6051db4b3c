"""Run as a program, for one peer: every kernel and dtype on a small case, against ours; a line of JSON for each.

In a process of its own, because these libraries change the process that they are imported into: thread pools, handlers
at forks, defaults of dtypes.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from mlefast.bench import KERNELS, Case
from mlefast.bench.arrays import Pool
from mlefast.bench.backends import Host
from mlefast.bench.kernels import prepare
from mlefast.bench.peers import PEERS, NotOffered


def as_arrays(result):
    return [np.asarray(each) for each in (result if isinstance(result, (tuple, list)) else (result,))]


def check(name: str, kernel: str, dtype: str) -> str:
    case = Case(kernel, 37, 11, dtype, 1, sets=2)
    sets = Pool(Host()).sets(case)
    ours = prepare(case, sets, "fresh")
    try:
        theirs = PEERS[name].prepare(case, sets)
    except NotOffered as reason:
        return f"not offered: {reason}"
    for i in (0, 1, 0):  # the second time must not find what the first has left
        for mine, each in zip(as_arrays(ours(i)), as_arrays(theirs(i)), strict=True):
            if each.dtype != mine.dtype:
                return f"dtype {each.dtype}, not {mine.dtype}"
            tolerance = 3e-5 if dtype == "float32" else 1e-12
            np.testing.assert_allclose(each, mine, rtol=tolerance, atol=1e-7 if dtype == "float32" else 1e-15)
    return "same"


if __name__ == "__main__":
    for kernel in sys.argv[2:] or KERNELS:
        for dtype in ("float32", "float64"):
            try:
                outcome = check(sys.argv[1], kernel, dtype)
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            print(json.dumps([kernel, dtype, outcome]), flush=True)
