"""Every loss of the family against the machine's copy and PyTorch, in one run: the table of docs/performance.md.

    python benchmarks/losses.py [--rows 8192] [--classes 1000] [--threads 2] [--repeats 15]

Each line is a value and its gradient (or what the function returns). mlefast, PyTorch and a copy of the logits take
turns; times are medians. The limit of a line is what it must move at the copy's bytes per second.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlefast as mf
import numpy as np
import torch
from mlefast import _core

functional = torch.nn.functional
torch.manual_seed(0)


@dataclass
class Line:
    """A function, how many arrays of the logits' size it reads and writes, and what PyTorch's users write."""

    name: str
    arrays: int
    ours: Callable[[], Any]
    theirs: Callable[[], Any]


def lines(rows: int, classes: int) -> list[Line]:
    """Return the calls, on arrays of one shape."""
    r = np.random.default_rng(0)
    x = r.standard_normal((rows, classes), dtype=np.float32)
    t = mf.softmax(r.standard_normal((rows, classes), dtype=np.float32))
    v = r.standard_normal((rows, classes), dtype=np.float32)
    y = r.integers(0, classes, rows)
    weight = r.uniform(0.5, 2, classes).astype(np.float32)
    out = np.ones_like(x)
    tx, tt, tv, ty, tw = (torch.from_numpy(a) for a in (x, t, v, y, weight))
    tx.requires_grad_()
    binary = (t > 1 / classes).astype(np.float32)
    tb = torch.from_numpy(binary)

    def gradient(loss: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(loss(), tx)

    def js() -> Any:
        log_p = torch.log_softmax(tx, -1)
        middle = ((log_p.exp() + tt) / 2).log()
        return (
            functional.kl_div(middle, tt, reduction="batchmean")
            + functional.kl_div(middle, log_p, log_target=True, reduction="batchmean")
        ) / 2

    def policy() -> Any:
        categorical = torch.distributions.Categorical(logits=tx, validate_args=False)
        return (categorical.log_prob(ty) + 0.01 * categorical.entropy()).sum()

    def focal() -> Any:
        nll = functional.cross_entropy(tx, ty, reduction="none")
        return ((1 - torch.exp(-nll)) ** 2 * nll).mean()

    def capped() -> Any:
        z = 30 * torch.tanh(tx / 30)
        return functional.cross_entropy(z, ty)

    def with_z_loss() -> Any:
        return functional.cross_entropy(tx, ty) + 1e-4 * torch.logsumexp(tx, -1).pow(2).mean()

    def product() -> Any:
        (first,) = torch.autograd.grad(functional.cross_entropy(tx, ty), tx, create_graph=True)
        return torch.autograd.grad(first, tx, tv)

    p = torch.softmax(tx.detach(), -1)
    log_p = torch.log_softmax(tx.detach(), -1)
    our_p, our_log_p = p.numpy(), log_p.numpy()
    ce, both = functional.cross_entropy, mf.cross_entropy_and_grad
    return [
        Line("cross_entropy, indices", 2, lambda: both(x, y, out=out), gradient(lambda: ce(tx, ty))),
        Line("… weight", 2, lambda: both(x, y, weight=weight, out=out), gradient(lambda: ce(tx, ty, weight=tw))),
        Line(
            "… label_smoothing",
            2,
            lambda: both(x, y, label_smoothing=0.1, out=out),
            gradient(lambda: ce(tx, ty, label_smoothing=0.1)),
        ),
        Line("… z_loss", 2, lambda: both(x, y, z_loss=1e-4, out=out), gradient(with_z_loss)),
        Line("… softcap", 2, lambda: both(x, y, softcap=30.0, out=out), gradient(capped)),
        Line("cross_entropy, probabilities", 3, lambda: both(x, t, out=out), gradient(lambda: ce(tx, tt))),
        Line("focal_loss", 2, lambda: mf.focal_loss_and_grad(x, y, out=out), gradient(focal)),
        Line(
            "kl_div",
            3,
            lambda: mf.kl_div_and_grad(t, x, out=out),
            gradient(lambda: functional.kl_div(torch.log_softmax(tx, -1), tt, reduction="batchmean")),
        ),
        Line("js_div", 3, lambda: mf.js_div_and_grad(t, x, out=out), gradient(js)),
        Line(
            "log_prob and entropy",
            2,
            lambda: mf.log_prob_and_entropy_and_grad(x, y, entropy_upstream=0.01, out=out),
            gradient(policy),
        ),
        Line(
            "binary_cross_entropy",
            3,
            lambda: mf.binary_cross_entropy_and_grad(x, binary, out=out),
            gradient(lambda: functional.binary_cross_entropy_with_logits(tx, tb)),
        ),
        Line("entropy (value)", 1, lambda: mf.entropy(t), lambda: torch.special.entr(tt).sum(-1)),
        Line("cross_entropy_hvp", 3, lambda: mf.cross_entropy_hvp(x, y, v, out=out), product),
        Line(
            "softmax_vjp",
            3,
            lambda: mf.softmax_vjp(our_p, v, out=out),
            lambda: torch.ops.aten._softmax_backward_data(tv, p, -1, torch.float32),
        ),
        Line(
            "log_softmax_vjp",
            3,
            lambda: mf.log_softmax_vjp(our_log_p, v, out=out),
            lambda: torch.ops.aten._log_softmax_backward_data(tv, log_p, -1, torch.float32),
        ),
    ]


def timed(call: Callable[[], Any]) -> float:
    """Return how long a call takes, in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    mf.set_num_threads(given.threads)
    torch.set_num_threads(given.threads)
    source = np.ones(given.rows * given.classes, np.float32)
    sink = np.ones_like(source)
    copies = [name for name, kind in _core.LIMITS.items() if kind == "copy"]
    print(f"{mf.show_config()}, PyTorch {torch.__version__}, float32, {given.rows} x {given.classes}\n")
    print("| value and gradient | arrays moved | time | share of the limit | PyTorch |\n|---|---|---|---|---|")
    for line in lines(given.rows, given.classes):
        line.ours(), line.theirs()
        ours, theirs, copy = [], [], []
        for _ in range(given.repeats):
            ours.append(timed(line.ours))
            theirs.append(timed(line.theirs))
            copy.append(min(timed(lambda name=name: _core.run_limit(name, source, sink)) for name in copies))
        time_, limit = statistics.median(ours), statistics.median(copy) / 2 * line.arrays
        print(
            f"| {line.name} | {line.arrays} | {1e3 * time_:.2f} ms | {limit / time_:.2f} | "
            f"{statistics.median(theirs) / time_:.1f} × as long |",
            flush=True,
        )


if __name__ == "__main__":
    main()
