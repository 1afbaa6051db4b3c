"""A class axis that is not the last one, as images have it: (samples, classes, pixels), against a copy and PyTorch.

    python benchmarks/class_axis.py [--threads 2] [--offset 16]

`--offset` is how many bytes off a cache line the arrays start; NumPy's own large arrays are 16 bytes off one. What is
compared takes turns; times are medians, in milliseconds, all from memory. The copy is the fastest of those that
`mlefast bench` tries.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import mlefast as mf
import numpy as np
from mlefast.bench.backends import Host
from rich.console import Console
from rich.table import Table

SHAPES = [(3, 10, 1048576), (6, 21, 262144), (13, 150, 16384), (32, 128, 8192), (8, 1000, 4096)]


def array(shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Zeros, float32, that start `offset` bytes behind a cache line."""
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    return memory[start : start + size].view(np.float32).reshape(shape)


def contestants(shape: tuple[int, ...], offset: int, threads: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name, on arrays of its own."""
    random = np.random.default_rng(0)
    x, out, overwritten = (array(shape, offset) for _ in range(3))
    random.standard_normal(out=x, dtype=np.float32)
    overwritten[...] = x
    y = random.integers(0, shape[1], (shape[0], shape[2]))
    host = Host()
    calls: dict[str, Callable[[], object]] = {
        f"copy {method}": lambda method=method: host.run_limit(method, x.reshape(-1), out.reshape(-1))  # type: ignore[misc]
        for method, kind in host.limits().items()
        if kind == "copy"
    }
    calls |= {
        "values": lambda: mf.cross_entropy(x, y, axis=1),
        "gradient": lambda: mf.cross_entropy_and_grad(x, y, axis=1, out=out),
        "in place": lambda: mf.cross_entropy_and_grad(overwritten, y, axis=1, out=overwritten),
        "softmax": lambda: mf.softmax(x, axis=1, out=out),
    }
    try:
        import torch
    except ImportError:
        return calls
    torch.set_num_threads(threads)
    logits, target = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)

    def gradient() -> None:
        logits.grad = None
        torch.nn.functional.cross_entropy(logits, target).backward()  # type: ignore[no-untyped-call]

    return calls | {
        "PyTorch, gradient": gradient,
        "PyTorch, softmax": lambda: torch.softmax(logits.detach(), 1),
    }


def times(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians in milliseconds; the copies' are one, of the fastest."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: 1e3 * statistics.median(each[1:]) for name, each in seconds.items()}
    copies = [name for name in medians if name.startswith("copy ")]
    return {"copy": min(medians.pop(name) for name in copies)} | medians


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--offset", type=int, default=16, choices=range(0, 64, 4), metavar="BYTES")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    mf.set_num_threads(options.threads)
    table = Table(title=f"float32, {options.threads} threads, {options.offset} bytes off a cache line, ms")
    for i, shape in enumerate(SHAPES):
        found = times(contestants(shape, options.offset, options.threads), options.rounds)
        if i == 0:
            for name in ("shape", *found):
                table.add_column(name, justify="right")
        table.add_row(" × ".join(map(str, shape)), *(f"{value:.1f}" for value in found.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
