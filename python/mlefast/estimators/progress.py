"""What `verbose` shows of a fit."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mlefast.estimators.descent import Watcher


@contextmanager
def progress(name: str, unit: str, total: int, *, every: int) -> Iterator[Watcher]:
    """Show the objective on the way: a bar on a terminal (if rich is installed), else a line now and then.

    Parameters
    ----------
    name : str
        The solver.
    unit : {"iteration", "epoch"}
    total : int
        The largest number of them.
    every : int
        A line after so many; 0 shows nothing.
    """
    if not every:
        yield lambda iteration, objective: None
    elif sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        with progress_bar(name, unit + "s", total) as watch:
            yield watch
    else:

        def print_line(iteration: int, objective: float) -> None:
            if iteration % every == 0:
                print(f"{unit} {iteration}: objective {objective:.8g}")

        yield print_line


@contextmanager
def progress_bar(name: str, unit: str, total: int) -> Iterator[Watcher]:
    """Show a bar on standard error, which vanishes at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("objective {task.fields[objective]:.6f}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=total, objective=float("nan"))
        yield lambda iteration, objective: bar.update(task, completed=iteration, objective=objective)
