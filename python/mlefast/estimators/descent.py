"""Minimisation of any model by mini-batches: epochs, schedules, early stopping, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from mlefast.estimators.checkpoint import Checkpoint, SavedState
from mlefast.estimators.machines import machine_of
from mlefast.estimators.objective import FloatArray, IntArray
from mlefast.estimators.optimizers import Optimizer
from mlefast.estimators.samples import Random, Source
from mlefast.estimators.schedules import Schedule

Watcher = Callable[[int, float], None]

# As scikit-learn's "adaptive": a plateau divides the step size by 5. After four of them nothing moves any more.
_SHRINK, _MOST_SHRINKS = 5.0, 4


class Fit(NamedTuple):
    """How a minimisation ended."""

    parameters: FloatArray
    loss_curve: list[float]
    converged: bool
    message: str


INTERRUPTED = "interrupted"


class Trainable(Protocol):
    """What descent on mini-batches asks of a model."""

    @property
    def parameters(self) -> FloatArray:
        """All that is fitted, in one contiguous array: weights first, then intercepts."""

    @property
    def gradient(self) -> FloatArray:
        """Where :meth:`loss_and_gradient` writes."""

    def loss_and_gradient(self, X: Any, y: IntArray, sample_weight: FloatArray | None, total_weight: float) -> Any:
        """Return the loss of a batch, a number of the model's machine, and write its gradient.

        That of the prior is added by the optimiser's step.
        """

    def penalty(self) -> float:
        """Return the prior's share of the objective."""


Model = TypeVar("Model", bound=Trainable)


@dataclass
class Progress:
    """How far a run has come: all that the next epoch depends on beside parameters, optimiser and random numbers."""

    epoch: int = 0
    best: float = math.inf
    since_best: int = 0
    shrinks: int = 0
    loss_curve: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ended: str = ""


@dataclass(frozen=True)
class Stopping:
    """When a run ends: after `max_iter` epochs, or when nothing improves by `tol` for `n_iter_no_change` of them."""

    max_iter: int
    tol: float
    n_iter_no_change: int
    adaptive: bool = False


class Descent(Generic[Model]):
    """Steps of an optimiser over mini-batches of shuffled samples; may be continued, epoch by epoch.

    Parameters
    ----------
    model : Trainable
    optimizer : Optimizer
    name : str
        What messages call it.
    batch_size : int
    random : Generator
        The order of the samples.
    shuffle : bool
        If not, samples are visited as they come.
    schedule : callable
        A factor of the optimiser's first learning rate, of the epoch's number.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        *,
        name: str,
        batch_size: int,
        random: Random,
        shuffle: bool = True,
        schedule: Schedule | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.name = name
        self.batch_size = batch_size
        self.random = random
        self.shuffle = shuffle
        self.schedule = schedule
        self.first_rate = optimizer.learning_rate
        self.progress = Progress()

    def __getstate__(self) -> dict[str, Any]:
        # A schedule may be a lambda, which cannot be pickled; what goes on after that goes on without it.
        return {**self.__dict__, "schedule": None}

    def epoch(self, data: Source) -> float:
        """Visit every sample once; return the penalised objective as it was met on the way.

        Raises
        ------
        FloatingPointError
            If the loss or a parameter is no longer finite.
        """
        model, optimizer, mean_weight = self.model, self.optimizer, data.mean_weight
        machine = machine_of(model.parameters)
        self.progress.epoch += 1
        loss: Any = 0.0  # on a device that would have to be waited for, it is looked at once, in the end
        n_samples, step = 0, 0
        with np.errstate(over="ignore", invalid="ignore"):  # whatever overflows ends in a loss that says so
            for X, y, weight in data.batches(self.batch_size, self.random if self.shuffle else None):
                step += 1
                batch_loss = model.loss_and_gradient(X, y, weight, len(y) * mean_weight)
                if machine.waits and not math.isfinite(batch_loss):
                    raise self._diverged(f", step {step} (the loss is {batch_loss})")
                loss += batch_loss * len(y)
                n_samples += len(y)
                optimizer.step(model.parameters, model.gradient)
            loss = float(loss)
            if not math.isfinite(loss):
                raise self._diverged(f" (the loss is {loss})")
            if not machine.xp.isfinite(model.parameters).all():
                raise self._diverged(f", step {step} (a parameter is not finite)")
            value: float = loss / n_samples + model.penalty()
        self.progress.loss_curve.append(value)
        return value

    def _diverged(self, where: str) -> FloatingPointError:
        return FloatingPointError(
            f"solver={self.name!r} diverged in epoch {self.progress.epoch}{where}; use a smaller "
            f"learning_rate_init than {self.optimizer.learning_rate:.3g}, or scale the features"
        )

    def run(
        self,
        data: Source,
        stopping: Stopping,
        watch: Watcher,
        *,
        score: Callable[[], float] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Fit:
        """Epochs until nothing improves; Ctrl-C ends them, too, and keeps the model.

        Parameters
        ----------
        data : Source
        stopping : Stopping
        watch : callable
            Is told of each epoch's number and objective.
        score : callable, optional
            How good the model is on samples that are set aside. What has to improve is then this, not the objective,
            and the best model is restored at the end.
        checkpoint : Checkpoint, optional
            Where each epoch's end is saved. If a run was saved there, it goes on.

        Returns
        -------
        Fit
        """
        parameters = self.model.parameters
        kept = None if score is None else parameters.copy()
        if checkpoint is not None and checkpoint.saved is not None:
            self._restore(checkpoint.saved, kept)
        progress = self.progress
        if progress.ended == "max_iter":  # which may be larger this time
            progress.ended = ""
        try:
            while not progress.ended:
                if progress.epoch >= stopping.max_iter:
                    progress.ended = "max_iter"
                    break
                if self.schedule is not None:
                    factor = self.schedule(progress.epoch + 1)
                    self.optimizer.learning_rate = self.first_rate * factor / _SHRINK**progress.shrinks
                value = objective = self.epoch(data)
                if score is not None and kept is not None:
                    progress.scores.append(score())
                    value = -progress.scores[-1]
                    if value < progress.best:
                        kept[...] = parameters
                self._judge(value, stopping)
                if checkpoint is not None:
                    self._save(checkpoint, kept)
                watch(progress.epoch, objective)
        except KeyboardInterrupt:
            progress.ended = INTERRUPTED
        if kept is not None:
            parameters[...] = kept
        ending = {
            "max_iter": (stopping.tol == 0, f"max_iter={stopping.max_iter} epochs"),
            "plateau": (True, f"no improvement by {stopping.tol} for {stopping.n_iter_no_change} epochs"),
            INTERRUPTED: (False, INTERRUPTED),
        }[progress.ended]
        return Fit(parameters, progress.loss_curve, *ending)

    def _judge(self, value: float, stopping: Stopping) -> None:
        progress = self.progress
        progress.since_best = 0 if value < progress.best - stopping.tol else progress.since_best + 1
        progress.best = min(progress.best, value)
        if stopping.tol > 0 and progress.since_best >= stopping.n_iter_no_change:
            if stopping.adaptive and progress.shrinks < _MOST_SHRINKS:
                progress.shrinks += 1
                progress.since_best = 0
            else:
                progress.ended = "plateau"

    def _save(self, checkpoint: Checkpoint, kept: FloatArray | None) -> None:
        optimizer, to_host = self.optimizer.state(), machine_of(self.model.parameters).to_host
        arrays = {name: value for name, value in optimizer.items() if isinstance(value, np.ndarray)}
        checkpoint.save(
            {
                "parameters": to_host(self.model.parameters),
                **({} if kept is None else {"kept": to_host(kept)}),
                **{f"optimizer_{name}": value for name, value in arrays.items()},
            },
            {
                "progress": asdict(self.progress),
                "optimizer": {name: value for name, value in optimizer.items() if name not in arrays},
                "random": self.random.bit_generator.state,
                "first_rate": self.first_rate,
            },
        )

    def _restore(self, saved: SavedState, kept: FloatArray | None) -> None:
        arrays, state = saved
        asarray = machine_of(self.model.parameters).asarray
        self.model.parameters[...] = asarray(arrays["parameters"])
        if kept is not None:
            kept[...] = asarray(arrays["kept"])
        prefix = "optimizer_"
        moments = {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
        self.optimizer.restore({**state["optimizer"], **moments})
        self.random.bit_generator.state = state["random"]
        self.first_rate = state["first_rate"]
        before = Progress(**state["progress"])
        self.progress.loss_curve.extend(before.loss_curve)  # which others hold as well
        self.progress.scores.extend(before.scores)
        before.loss_curve, before.scores = self.progress.loss_curve, self.progress.scores
        self.progress = before
