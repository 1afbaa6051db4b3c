"""Draws the pictures of docs/guide.md: python docs/make_guide_pictures.py, which needs matplotlib and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import mlefast as mf
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from sklearn.datasets import load_iris

FOLDER = Path(__file__).with_name("pictures")
BLUE, RED, GREY = "#1f5fa8", "#c43c2c", "#8a8a8a"
plt.rcParams.update(
    {
        "figure.dpi": 100,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "lines.linewidth": 2,
    }
)


def save(figure, name):
    """Write a picture, without a date or a version that would change the file."""
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.png", metadata={"Software": None})
    plt.close(figure)


def likelihood():
    """Seven heads in ten tosses."""
    p = np.linspace(0.001, 0.999, 999)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.9))
    left.plot(p, 1e3 * p**7 * (1 - p) ** 3, color=BLUE)
    left.set(xlabel="probability of heads, p", ylabel="likelihood (1/1000)", title="$p^7 (1 - p)^3$")
    right.plot(p, 7 * np.log(p) + 3 * np.log(1 - p), color=BLUE)
    right.set(
        xlabel="probability of heads, p", ylabel="log-likelihood", ylim=(-20, -5), title=r"$7 \log p + 3 \log (1 - p)$"
    )
    for axes in (left, right):
        axes.axvline(0.7, color=RED, linewidth=1, linestyle="--")
    left.text(0.02, 1.9, "maximum at 7/10", color=RED)
    save(figure, "likelihood")


def entropy():
    """The cross-entropy of a model q of a coin that falls on heads with probability 0.7."""
    t, q = 0.7, np.linspace(0.02, 0.98, 400)
    cross = -t * np.log(q) - (1 - t) * np.log(1 - q)
    own = -t * np.log(t) - (1 - t) * np.log(1 - t)
    figure, axes = plt.subplots(figsize=(7.5, 3.2))
    axes.fill_between(q, 0, own, color=GREY, alpha=0.35, linewidth=0)
    axes.fill_between(q, own, cross, color=BLUE, alpha=0.3, linewidth=0)
    axes.plot(q, cross, color=BLUE)
    axes.axvline(t, color=RED, linewidth=1, linestyle="--")
    axes.text(0.5, own / 2, "H(t): the data's entropy", ha="center", va="center")
    axes.text(0.13, 0.88, "KL(t ‖ q)", ha="center", color=BLUE)
    axes.text(0.28, 1.25, "cross-entropy = H + KL", color=BLUE)
    axes.text(t + 0.01, 2.1, "q = t: no divergence", color=RED)
    axes.set(xlabel="model's probability q, where the data's is t = 0.7", ylabel="nats", xlim=(0, 1), ylim=(0, 2.4))
    save(figure, "entropy")


def gradient():
    """The three logits of the text, with the label 2."""
    logits = np.array([2.0, -1.0, 0.5])
    p, (_, slope) = mf.softmax(logits), mf.cross_entropy_and_grad(logits, 2)
    titles = ("p: what the model says", "t: what is true", "p − t: the gradient of the logits")
    figure, panels = plt.subplots(1, 3, figsize=(7.5, 2.7), sharey=True)
    for axes, values, title in zip(panels, (p, np.eye(3)[2], slope), titles):
        axes.bar(range(3), values, color=[RED if v > 0 and values is slope else BLUE for v in values], width=0.6)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_title(title, fontsize=10)
        axes.set(xticks=range(3), xlabel="class", ylim=(-1.1, 1.25))
        for k, value in enumerate(values):
            axes.text(k, value + 0.1 * np.sign(value or 1), f"{value:.2f}", ha="center", va="center_baseline")
    save(figure, "gradient")


def ruler():
    """Two classes: losses, and the sizes of their gradients, by how far the right class leads."""
    lead = np.linspace(-12, 6, 400)
    logits = np.stack([lead, np.zeros_like(lead)], axis=-1)
    p = mf.softmax(logits)
    label = np.zeros(len(lead), np.int64)
    cross, slopes = mf.cross_entropy_and_grad(logits, label, reduction="none")
    off = p - [1, 0]
    squared = (off**2).sum(-1)
    squared_slopes = 2 * p[:, 0] * (off[:, 0] - (p * off).sum(-1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    left.plot(lead, cross, color=BLUE, label="cross-entropy")
    left.plot(lead, squared, color=RED, label="squared distance")
    left.set(xlabel="lead of the right class", ylabel="loss")
    left.legend()
    right.semilogy(lead, np.abs(slopes[:, 0]), color=BLUE)
    right.semilogy(lead, np.abs(squared_slopes), color=RED)
    right.set(xlabel="lead of the right class", ylabel="size of the gradient", ylim=(1e-5, 3))
    right.annotate(
        "confidently wrong,\nand little to learn",
        xy=(-9.5, 3e-4),
        xytext=(-6, 2.5e-5),
        color=RED,
        arrowprops={"arrowstyle": "->", "color": RED},
    )
    save(figure, "ruler")


def digits():
    """The loss of a row of ten float32 logits of which one leads, against float64."""
    leads = np.linspace(2, 60, 117, dtype=np.float32)
    rows = np.zeros((len(leads), 10), np.float32)
    rows[:, 0] = leads
    exact = np.log1p(9 * np.exp(-leads.astype(np.float64)))
    p = np.exp(rows - leads[:, None]) / np.exp(rows - leads[:, None]).sum(-1, keepdims=True)
    lse = leads + np.log(np.exp(rows - leads[:, None]).sum(-1))
    formulas = {
        "log-sum-exp − logit, float32": (lse - leads, RED, "-"),
        "−log of a softmax, float32": (-np.log(p[:, 0]), GREY, ":"),
        "mlefast, float32": (mf.cross_entropy(rows, np.zeros(len(rows), np.int64), reduction="none"), BLUE, "-"),
    }
    figure, axes = plt.subplots(figsize=(7.5, 3.2))
    for name, (loss, color, line) in formulas.items():
        error = np.abs(loss.astype(np.float64) - exact) / exact
        axes.semilogy(leads, np.maximum(error, 1e-9), line, color=color, label=name)
    axes.text(59, 0.3, "error 1: no digit is right", ha="right", color=RED)
    axes.set(xlabel="by how much the winner leads", ylabel="relative error of the loss", ylim=(5e-10, 5))
    axes.legend(loc="center right")
    save(figure, "digits")


def training():
    """Iris, from weights that take each species for the next one."""
    features, species = load_iris(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    inputs = np.concatenate([features, np.ones((150, 1))], axis=1)
    one_hot = np.eye(3)[species]
    start = 12 * np.roll(np.linalg.lstsq(inputs, one_hot, rcond=None)[0].T, 1, axis=0)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    for name, color in (("cross-entropy", BLUE), ("squared distance", RED)):
        weight, losses, hits = start.copy(), [], []
        for _ in range(300):
            logits = inputs @ weight.T
            loss, slope = mf.cross_entropy_and_grad(logits, species)
            if color == RED:
                p = mf.softmax(logits)
                off = p - one_hot
                slope = 2 * p * (off - (p * off).sum(-1, keepdims=True)) / len(species)
            weight -= 0.5 * slope.T @ inputs
            losses.append(loss)
            hits.append((logits.argmax(-1) == species).mean())
        left.semilogy(losses, color=color, label=f"trained by {name}")
        right.plot(hits, color=color)
    left.set(xlabel="step", ylabel="mean negative log-likelihood")
    right.set(xlabel="step", ylabel="accuracy", ylim=(0, 1.02))
    left.legend(fontsize=9)
    save(figure, "training")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for picture in (likelihood, entropy, gradient, ruler, digits, training):
        picture()
