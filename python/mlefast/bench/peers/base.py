"""What a peer is, and what those have in common whose gradients are derived for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlefast.bench.arrays import Arrays
from mlefast.bench.cases import KERNELS, Case
from mlefast.bench.machine import installed_version

Call = Callable[[int], Any]
Functions = Mapping[str, Callable[..., Any]]
"""Calls by the names of kernels. Each is given what mlefast's function is given, by position and by name."""


class NotOffered(Exception):  # noqa: N818 - the report's word for it
    """A peer has no such function, or not for this dtype."""


@dataclass(frozen=True)
class Peer:
    """A library, where it can compute, and a function that prepares its calls for a case."""

    name: str
    distributions: tuple[str, ...]  # the first is the one whose version is shown
    modules: tuple[str, ...]
    backends: tuple[str, ...]
    prepare: Callable[[Case, Sequence[Arrays]], Call]

    def absence(self, backend: str) -> str | None:
        """Return why it cannot take part, or None if it can."""
        if backend not in self.backends:
            return f"not for the backend {backend}"
        missing = [module for module in self.modules if importlib.util.find_spec(module) is None]
        return f"{', '.join(missing)} not installed" if missing else None

    @property
    def version(self) -> str | None:
        """The version that is installed."""
        return next((version for each in self.distributions if (version := installed_version(each))), None)


def offered(functions: Functions, name: str) -> Callable[..., Any]:
    """Return the function of a name. Raises NotOffered if there is none."""
    if name not in functions:
        raise NotOffered(f"has no {name}")
    return functions[name]


def plain_call(functions: Functions, case: Case, sets: Sequence[Arrays]) -> Call:
    """Return the calls of a library that takes the arrays as they are and has a function for each kernel."""
    function = offered(functions, case.kernel)
    given = [each.arguments(KERNELS[case.kernel]) for each in sets]

    def call(i: int) -> Any:
        arguments, named = given[i]
        return function(*arguments, **named)

    return call


def objective_and_values(result: Any, total: Callable[[Any], Any]) -> tuple[Any, tuple[Any, ...]]:
    """Return what is differentiated, and the values that are returned with the gradient.

    A function returns one value, whose total over the rows is differentiated, or a tuple: the objective and the values.
    """
    if isinstance(result, tuple):
        return result[0], result[1:]
    return (total(result) if len(result.shape) else result), (result,)


def value_function(losses: Functions, others: Functions, name: str) -> Callable[..., Any]:
    """Return what gives the value alone of a loss, or one of the other functions. Raises NotOffered."""
    if name in others:
        return others[name]
    loss = offered(losses, name)

    def value(*arguments: Any, **named: Any) -> Any:
        result = loss(*arguments, **named)
        return result[1:] if isinstance(result, tuple) else result

    return value


def differentiated(case: Case) -> int:
    """Return the position of the argument that the gradient is taken with respect to."""
    kernel = KERNELS[case.kernel]
    return kernel.arrays.index(kernel.source)
