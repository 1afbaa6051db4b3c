"""Measures linear_cross_entropy_and_grad for docs/linear.md.

    python tools/linear.py time 2048,512,32000 --rounds 5 >> linear.jsonl
    python tools/linear.py memory 2048,512,32000 >> linear.jsonl
    python tools/linear.py train trained.npz
    python tools/linear.py filter trained.npz >> linear.jsonl
    python tools/linear.py report linear.jsonl > docs/linear.md

The floor are the three matrix products alone, by the same BLAS, into memory that was touched before: they and all
methods take turns. Peak memory is what a process of its own takes at most, less what it took before the call.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlefast as mf
import numpy as np
from mlefast import linear
from mlefast._gemm import gemm

METHODS = ["mlefast", "torch", "torch chunked"]
FILTERS = [2.0**-28, 1e-6, 1e-5, 1e-4, 2.0**-12, 1e-3]  # among them eps/32 of float32 and of bfloat16
Problem = tuple[Any, Any, Any]


def problem(shape: str) -> Problem:
    n, features, classes = map(int, shape.split(","))
    r = np.random.default_rng(0)
    x = r.standard_normal((n, features), dtype=np.float32)
    weight = r.standard_normal((classes, features), dtype=np.float32) / np.float32(np.sqrt(features))
    return x, weight, r.integers(0, classes, n)


def method(name: str, x: Any, weight: Any, y: Any) -> Callable[[], Any]:
    if name == "mlefast":
        return lambda: mf.linear_cross_entropy_and_grad(x, weight, y)
    import torch

    options = torch.nn.LinearCrossEntropyOptions() if name == "torch chunked" else None
    inputs, weights = (torch.from_numpy(a).requires_grad_() for a in (x, weight))
    target = torch.from_numpy(y)

    def run() -> Any:
        inputs.grad = weights.grad = None
        loss = torch.nn.functional.linear_cross_entropy(inputs, weights, target, options=options)
        loss.backward()
        return loss.detach().numpy(), (inputs.grad.numpy(), weights.grad.numpy(), None)

    return run


def floor(x: Any, weight: Any) -> Callable[[], None]:
    logits = np.zeros((len(x), len(weight)), np.float32)
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)

    def run() -> None:
        gemm(1.0, x, weight.T, 0.0, logits)
        gemm(1.0, logits, weight, 0.0, dx)
        gemm(1.0, logits.T, x, 0.0, dweight)

    return run


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure_time(shape: str, rounds: int) -> dict[str, Any]:
    x, weight, y = problem(shape)
    functions = {"floor": floor(x, weight)} | {name: method(name, x, weight, y) for name in METHODS}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return {"kind": "time", "shape": shape, "threads": mf.get_num_threads(), "times": times}


def measure_memory(shape: str) -> dict[str, Any]:
    peaks = {}
    for name in METHODS:
        command = [sys.executable, __file__, "peak", shape, "--method", name]
        peaks[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    n, features, classes = map(int, shape.split(","))
    return {"kind": "memory", "shape": shape, "peaks": peaks, "gradients": 4 * features * (n + classes) / 2**20}


def peak(shape: str, name: str) -> float:
    """The extra memory of a call, in MB, after one that starts the threads of the libraries and fills their buffers."""
    method(name, *problem("512,512,60000"))()
    x, weight, y = problem(shape)
    function = method(name, x, weight, y)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = status("VmRSS")
    function()
    return (status("VmHWM") - before) / 1024


def status(field: str) -> int:
    """A number of Linux's account of this process, in KiB."""
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


# ---- the filter, on a model that was trained


def words(most: int) -> tuple[Any, int]:
    """The words and signs of Python's own library, by rank: the text that every machine with Python has."""
    library = Path(sysconfig.get_paths()["stdlib"])
    text: list[str] = []
    for path in sorted(library.rglob("*.py")):
        if "site-packages" not in path.parts:
            text += re.findall(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]", path.read_text(errors="ignore"))
    ranks = {word: rank for rank, (word, _) in enumerate(Counter(text).most_common(most - 1))}
    return np.array([ranks.get(word, most - 1) for word in text]), min(most, len(ranks) + 1)


def train(
    stream: Any, classes: int, steps: int, features: int = 128, batch: int = 1024
) -> tuple[Any, Any, list[float]]:
    """Three words before, embedded, through a hidden layer of tanh; Adam. Return what the last layer gets."""
    features, batch = 128, 1024
    r = np.random.default_rng(0)
    embedding = 0.3 * r.standard_normal((classes, features), dtype=np.float32)
    mix = r.standard_normal((3 * features, features), dtype=np.float32) / np.float32(np.sqrt(3 * features))
    weight = r.standard_normal((classes, features), dtype=np.float32) / np.float32(np.sqrt(features))
    parameters = [embedding, mix, weight]
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    losses = []

    def hidden(at: Any) -> tuple[Any, Any]:
        context = embedding[stream[at[:, None] + np.arange(3)]].reshape(len(at), -1)
        return context, np.tanh(context @ mix) * np.float32(4)

    for step in range(1, steps + 1):
        at = r.integers(0, len(stream) - 4 - 50_000, batch)
        context, h = hidden(at)
        loss, (dh, dweight, _) = mf.linear_cross_entropy_and_grad(h, weight, stream[at + 3])
        losses.append(float(loss))
        da = dh * (4 - h * h / 4)
        dembedding = np.zeros_like(embedding)
        np.add.at(dembedding, stream[at[:, None] + np.arange(3)], (da @ mix.T).reshape(len(at), 3, features))
        rate = 3e-3 * (1 - step / (steps + 1))
        for p, (m, v), g in zip(parameters, moments, (dembedding, context.T @ da, dweight)):
            m += 0.1 * (g - m)
            v += 0.02 * (g * g - v)
            p -= np.float32(rate) * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.98**step)) + np.float32(1e-8))
    held_out = np.arange(len(stream) - 50_000, len(stream) - 50_000 + 2048)
    return hidden(held_out)[1], weight, losses


def save_trained(steps: int, file: str) -> None:
    stream, classes = words(32_000)
    x, weight, losses = train(stream, classes, steps)
    y = stream[len(stream) - 50_000 + 3 :][: len(x)]
    np.savez(file, x=x, weight=weight, y=y, losses=losses, words=len(stream))


def measure_filter(file: str, rounds: int) -> dict[str, Any]:
    with np.load(file) as trained:
        x, weight, y, losses, count = (trained[name] for name in ("x", "weight", "y", "losses", "words"))
    classes = len(weight)
    exact_loss, exact = mf.linear_cross_entropy_and_grad(x, weight, y)
    times: dict[str, list[float]] = {"exact": []} | {str(eps): [] for eps in FILTERS}
    rows = []
    for _ in range(rounds):
        for name, samples in times.items():
            eps = None if name == "exact" else float(name)
            samples.append(seconds(lambda: mf.linear_cross_entropy_and_grad(x, weight, y, filter_eps=eps)))  # noqa: B023
    shares = []
    find = linear._Layer._classes_that_matter

    def watch(layer: Any, gradient: Any, threshold: float) -> Any:
        found = find(layer, gradient, threshold)
        shares.append(1.0 if found is None else found.size / classes)
        return found

    linear._Layer._classes_that_matter = watch  # type: ignore[method-assign]
    for eps in FILTERS:
        shares.clear()
        _, got = mf.linear_cross_entropy_and_grad(x, weight, y, filter_eps=eps)
        errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(got[:2], exact[:2])]
        rows.append({"eps": eps, "dx": errors[0], "dweight": errors[1], "multiplied": statistics.mean(shares)})
    return {
        "kind": "filter",
        "shape": [len(x), x.shape[1], classes],
        "words": int(count),
        "steps": len(losses),
        "training loss": [float(losses[0]), float(losses[-50:].mean())],
        "loss": float(exact_loss),
        "times": times,
        "rows": rows,
    }


# ---- the page


PAGE = """# The linear layer and its loss, measured

Made by `tools/linear.py` on an AMD EPYC (AVX2; 2 cores, 32 MB of third-level cache), 2 threads, float32, loss and both
gradients. `linear_cross_entropy_and_grad` takes blocks of rows: the product that gives their logits, the loss in place,
and the two products of the gradients, added to what is there.

## Time

The floor are the three matrix products of 2 N D C operations each, by the same BLAS, into memory that was touched
before, which mlefast and PyTorch do not have. They take turns with PyTorch 2.13's
`torch.nn.functional.linear_cross_entropy` and its backward pass, without options (reference) and with
`torch.nn.LinearCrossEntropyOptions()` (chunked). The least of three to four rounds, because the machine was shared with
others (medians were up to 1.4 times as long, the floor's as well), and its ratio to the floor:

{times}

## Memory

What a process took at its peak during the call beyond what it held before, inputs among that. The gradients, which are
handed over, are part of each number. The buffers that a BLAS fills once and keeps are not counted for anybody.

{peaks}

## What limits it

The bound on memory. 63 MB hold 500 rows of 32,000 logits, but 128 of 128,000. A BLAS copies what it multiplies into an
order of its own, once in each call; with 128 rows each copied weight is used 128 times. Products of blocks of 128 rows
(D = 256, C = 128,000) ran at 78 to 116 GFLOP/s, of 512 rows at 124 to 132, of all rows at 125 to 140. With a bound of
240 MB the ratio for N = 1024, D = 256, C = 128,000 fell from 1.54 to 1.28.

Threads that wait in loops. After a product OpenBLAS's threads spin for a while, and after the loss OpenMP's do, each on
the cores that the other needs next. For a block of 128 × 128,000 the loss took 17 ms and the product after it 107 ms;
with `OMP_WAIT_POLICY=passive OPENBLAS_THREAD_TIMEOUT=10` in the environment 7 and 85 ms: a tenth of the whole. On a
machine that does other work at the same time the waiting costs far more.

With few rows (N = 256) also the pages of fresh gradients, which the floor has touched before.

## The filter

{filter}

"multiplied" is the share of the classes that the two gradient products go through, on average over the blocks; errors
are relative, in the Frobenius norm; times are medians. Skipping pays where the probability lies on few classes. This
model is not certain of much: what is skipped at 1e-4 is a tenth of dx. eps/32 of float32, 3.7e-9, skips nothing here,
and eps/32 of bfloat16, 2.4e-4, too much. Measure the error on your own model before you filter.
"""


def report(lines: list[dict[str, Any]]) -> str:
    memory = {line["shape"]: line for line in lines if line["kind"] == "memory"}
    table = [
        "| N × D × C | three products | mlefast | PyTorch, reference | PyTorch, chunked |",
        "|---|---|---|---|---|",
    ]
    peaks = ["| N × D × C | gradients | mlefast | PyTorch, reference | PyTorch, chunked |", "|---|---|---|---|---|"]
    times: dict[str, dict[str, list[float]]] = {}
    for line in lines:  # of several runs, the samples together
        if line["kind"] == "time":
            for name, samples in line["times"].items():
                times.setdefault(line["shape"], {}).setdefault(name, []).extend(samples)
    for shape, samples in times.items():
        least = {name: min(values) for name, values in samples.items()}
        ratios = [f"{least[m]:.2f} s = {least[m] / least['floor']:.2f} ×" for m in METHODS]
        table.append(f"| {shape.replace(',', ' × ')} | {least['floor']:.2f} s | {' | '.join(ratios)} |")
    for shape, line in memory.items():
        cells = [f"{line['peaks'][m]:.0f} MB" for m in METHODS]
        peaks.append(f"| {shape.replace(',', ' × ')} | {line['gradients']:.0f} MB | {' | '.join(cells)} |")
    text = PAGE.replace("{times}", "\n".join(table)).replace("{peaks}", "\n".join(peaks))
    for line in lines:
        if line["kind"] == "filter":
            text = text.replace("{filter}", filter_table(line))
    return text


def filter_table(line: dict[str, Any]) -> str:
    exact = statistics.median(line["times"]["exact"])
    start, end = line["training loss"]
    n, features, classes = line["shape"]
    text = (
        f"A model of {classes} words and signs, trained for {line['steps']} steps on the {line['words']:,} words and\n"
        f"signs of Python's own library: {features} features from the three words before, loss from {start:.2f} to "
        f"{end:.2f},\non the {n} held-out places measured here {line['loss']:.2f}."
    )
    out = [
        text,
        "",
        "| `filter_eps` | multiplied | error of dx | error of dweight | time |",
        "|---|---|---|---|---|",
        f"| none | 100 % | – | – | {exact * 1e3:.0f} ms |",
    ]
    for row in line["rows"]:
        spent = statistics.median(line["times"][str(row["eps"])])
        out.append(
            f"| {row['eps']:.1e} | {100 * row['multiplied']:.0f} % | {row['dx']:.1e} | {row['dweight']:.1e} | "
            f"{spent * 1e3:.0f} ms = {spent / exact:.2f} × |"
        )
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["time", "memory", "peak", "train", "filter", "report"])
    parser.add_argument("subject", help="N,D,C, or a file: of the trained model, of measurements")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--method", choices=METHODS, default="mlefast")
    given = parser.parse_args()
    if given.task == "report":
        print(report([json.loads(line) for line in Path(given.subject).read_text().splitlines()]), end="")
    elif given.task == "peak":
        print(peak(given.subject, given.method))
    elif given.task == "time":
        print(json.dumps(measure_time(given.subject, given.rounds)))
    elif given.task == "train":
        save_trained(given.steps, given.subject)
    elif given.task == "memory":
        print(json.dumps(measure_memory(given.subject)))
    else:
        print(json.dumps(measure_filter(given.subject, given.rounds)))


if __name__ == "__main__":
    main()
