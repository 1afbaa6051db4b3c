"""Writes docs/accuracy.md: the largest errors of mlefast and its peers, measured in one run.

    python tools/accuracy.py > docs/accuracy.md

Every entry is compared with the same quantity in 80-bit or longer floating point (tests/reference.py), computed from
the very float32 logits that the libraries get. Peers that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import cases
import reference

CLASSES = [2, 3, 10, 100, 1000, 10_000, 100_000, 1_000_000]
KINDS = {
    "ordinary": "normal logits of deviation 3, one in twenty five times as large",
    "confident": "one logit leads by 10 to 80 more than the others' spread",
    "offset": "ordinary, all logits of a row moved by 1e7 or -1e7",
    "masked": "half of the classes at -inf",
    "wide": "deviation 120: probabilities down to denormal numbers and to 0",
}
HEADER = """# Accuracy, measured

Made by `tools/accuracy.py`; float32, on {machine}, instruction set {isa}. The largest error of any entry whose true
value is a normal number, over C = {classes}, in units of 2⁻²³ relative to the true value. "no digit": the error is as
large as the value, for example 0 for 1.4e-11. An entry g behind the largest logit may be off by g/2 units in every
library that rounds that difference; `logsumexp` is measured relative to the larger of max |x| and log Σ exp(x − max).
The best of each line is bold.
"""
Functions = dict[str, Callable[[Any, Any], Any]]


def mlefast() -> Functions:
    import mlefast as mf

    return {
        "logsumexp": lambda x, y: mf.logsumexp(x),
        "softmax": lambda x, y: mf.softmax(x),
        "log_softmax": lambda x, y: mf.log_softmax(x),
        "cross_entropy": lambda x, y: mf.cross_entropy(x, y, reduction="none"),
        "gradient": lambda x, y: mf.cross_entropy_and_grad(x, y, reduction="none")[1],
    }


def torch() -> Functions:
    import torch as library

    functional = library.nn.functional

    def gradient(x: Any, y: Any) -> Any:
        logits = library.from_numpy(x).requires_grad_()
        functional.cross_entropy(logits, library.from_numpy(y), reduction="sum").backward()
        return logits.grad.numpy()

    return {
        "logsumexp": lambda x, y: library.logsumexp(library.from_numpy(x), -1).numpy(),
        "softmax": lambda x, y: library.softmax(library.from_numpy(x), -1).numpy(),
        "log_softmax": lambda x, y: library.log_softmax(library.from_numpy(x), -1).numpy(),
        "cross_entropy": lambda x, y: functional.cross_entropy(
            library.from_numpy(x), library.from_numpy(y), reduction="none"
        ).numpy(),
        "gradient": gradient,
    }


def scipy() -> Functions:
    from scipy import special

    return {
        "logsumexp": lambda x, y: special.logsumexp(x, -1),
        "softmax": lambda x, y: special.softmax(x, -1),
        "log_softmax": lambda x, y: special.log_softmax(x, -1),
        "cross_entropy": lambda x, y: -np.take_along_axis(special.log_softmax(x, -1), y[:, None], -1)[:, 0],
    }


def jax() -> Functions:
    import jax as library
    import optax

    losses = optax.softmax_cross_entropy_with_integer_labels
    gradient = library.jit(library.grad(lambda x, y: losses(x, y).sum()))
    return {
        "logsumexp": lambda x, y: library.jit(library.nn.logsumexp, static_argnums=1)(x, -1),
        "softmax": lambda x, y: library.jit(library.nn.softmax)(x),
        "log_softmax": lambda x, y: library.jit(library.nn.log_softmax)(x),
        "cross_entropy": lambda x, y: library.jit(losses)(x, y),
        "gradient": gradient,
    }


def tensorflow() -> Functions:
    import tensorflow as tf

    losses = tf.nn.sparse_softmax_cross_entropy_with_logits

    def gradient(x: Any, y: Any) -> Any:
        logits = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses(labels=y, logits=logits)
        return tape.gradient(loss, logits)

    return {
        "logsumexp": lambda x, y: tf.reduce_logsumexp(x, -1),
        "softmax": lambda x, y: tf.nn.softmax(x),
        "log_softmax": lambda x, y: tf.nn.log_softmax(x),
        "cross_entropy": lambda x, y: losses(labels=y, logits=x),
        "gradient": gradient,
    }


LIBRARIES = {"mlefast": mlefast, "torch": torch, "scipy": scipy, "jax": jax, "tensorflow": tensorflow}


def references(x: Any, y: Any) -> dict[str, Any]:
    loss, gradient = reference.cross_entropy(x, y)
    return {
        "logsumexp": reference.logsumexp(x),
        "softmax": reference.softmax(x),
        "log_softmax": reference.log_softmax(x),
        "cross_entropy": loss,
        "gradient": gradient,
    }


def error(got: Any, want: Any, function: str, x: Any) -> float:
    """The largest relative error in ULP over the entries whose true value is a normal number."""
    got = np.asarray(got)
    normal = np.isfinite(want) & (np.abs(want) >= np.finfo(np.float32).tiny)
    if function == "logsumexp":  # relative to the larger of its two terms, which may cancel
        want = np.asarray(want)
        scale = np.maximum(np.abs(x.max(-1)).astype(reference.LONG), np.abs(want - x.max(-1)))
        found = np.abs(got.astype(reference.LONG) - want) / (np.maximum(scale, np.abs(want)) * np.finfo(np.float32).eps)
        return float(np.where(np.isnan(found), np.inf, found).max())
    return float(cases.ulps(got, want, np.float32)[normal].max())


def show(value: float | None) -> str:
    if value is None:
        return "–"
    if not np.isfinite(value):
        return "NaN"
    return "no digit" if value >= 2**23 * 0.999 else f"{value:.3g}"


def main() -> None:
    libraries = {}
    for name, make in LIBRARIES.items():
        if importlib.util.find_spec(name):
            libraries[name] = make()
    worst: dict[tuple[str, str], dict[str, float]] = {}
    for kind in KINDS:
        for classes in CLASSES:
            x = cases.rows(kind, max(2, min(2000, 2_000_000 // classes)), classes, np.float32)
            y = cases.targets(x)
            true = references(x, y)
            for name, functions in libraries.items():
                for function, compute in functions.items():
                    found = error(compute(x.copy(), y), true[function], function, x)
                    cell = worst.setdefault((function, kind), {})
                    cell[name] = max(cell.get(name, 0.0), found)
    titles = [f"{name} {__import__(name).__version__}" for name in libraries]
    print(HEADER.format(machine=platform.machine(), isa=isa(), classes=", ".join(map(str, CLASSES))))
    for kind, meaning in KINDS.items():
        print(f"- **{kind}**: {meaning}")
    print("\n| function | rows |", " | ".join(titles), "|")
    print("|---|---|" + "---|" * len(titles))
    for (function, kind), cell in sorted(worst.items()):
        best = min(cell.values())
        shown = [f"**{show(v)}**" if v == best else show(v) for v in (cell.get(name) for name in libraries)]
        print(f"| {function} | {kind} |", " | ".join(shown), "|")


def isa() -> str:
    import mlefast as mf

    return str(mf.show_config()["isa"])


if __name__ == "__main__":
    main()
