"""PyTorch, eager and compiled: what its users write, forward and backward."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlefast.bench.arrays import Arrays
from mlefast.bench.cases import KERNELS, Case
from mlefast.bench.peers.base import Call, Functions, differentiated, objective_and_values, offered, value_function


def by_torch(case: Case, sets: Sequence[Arrays], *, compiled: bool = False) -> Call:
    """Prepare PyTorch's calls."""
    torch: Any = importlib.import_module("torch")
    kernel = KERNELS[case.kernel]
    if case.backend == "numpy":
        torch.set_num_threads(case.threads)
    dtype = getattr(torch, case.dtype)
    given = [each.arguments(kernel, lambda array: _tensor(torch, array, dtype)) for each in sets]
    if not kernel.is_gradient:
        run = _compiled(torch, value_function(_losses(torch), _others(torch, compiled), case.kernel), compiled)

        def forward(i: int) -> Any:
            arguments, named = given[i]
            with torch.no_grad():
                return run(*arguments, **named)

        return forward

    loss = offered(_losses(torch), kernel.value)

    def differentiable(*arrays: Any, **named: Any) -> Any:
        return objective_and_values(loss(*arrays, **named), torch.sum)

    run, at = _compiled(torch, differentiable, compiled), differentiated(case)

    def forward_and_backward(i: int) -> Any:
        arguments, named = given[i]
        objective, values = run(*arguments, **named)
        objective.backward()
        x = arguments[at]
        gradient, x.grad = x.grad, None
        return *(value.detach() for value in values), gradient

    for arguments, _ in given:
        arguments[at].requires_grad_()
    return forward_and_backward


def by_compiled_torch(case: Case, sets: Sequence[Arrays]) -> Call:
    """Prepare the calls of torch.compile."""
    return by_torch(case, sets, compiled=True)


def _compiled(torch: Any, function: Callable[..., Any], wanted: bool) -> Callable[..., Any]:
    if not wanted:
        return function
    torch.compiler.reset()  # else the ninth shape would no longer be compiled
    compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
    return compiled


def _tensor(torch: Any, array: Any, dtype: Any) -> Any:
    """The same memory as a tensor; floats in the dtype of the logits, because PyTorch's losses do not mix them."""
    if array.dtype.name == "bfloat16" and isinstance(array, np.ndarray):  # a dtype that NumPy cannot pass on
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    tensor = torch.from_dlpack(array)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _losses(torch: Any) -> Functions:
    """What can be differentiated."""
    functional = torch.nn.functional
    cross_entropy = functional.cross_entropy

    def with_z_loss(x: Any, y: Any, z_loss: float) -> Any:
        return cross_entropy(x, y) + z_loss * torch.logsumexp(x, -1).pow(2).mean()

    def focal_loss(x: Any, y: Any, gamma: float) -> Any:
        losses = cross_entropy(x, y, reduction="none")
        return ((1 - torch.exp(-losses)) ** gamma * losses).mean()

    def js_div(t: Any, x: Any) -> Any:
        log_p = torch.log_softmax(x, -1)
        middle = ((log_p.exp() + t) / 2).log()
        return (
            functional.kl_div(middle, t, reduction="batchmean")
            + functional.kl_div(middle, log_p, log_target=True, reduction="batchmean")
        ) / 2

    def categorical(x: Any) -> Any:
        return torch.distributions.Categorical(logits=x, validate_args=False)

    def log_prob_and_entropy(x: Any, y: Any, entropy_upstream: float = 1.0) -> Any:
        distribution = categorical(x)
        log_prob, entropy = distribution.log_prob(y), distribution.entropy()
        return (log_prob + entropy_upstream * entropy).sum(), log_prob, entropy

    return {
        "cross_entropy": cross_entropy,
        "cross_entropy:weight": cross_entropy,
        "cross_entropy:label_smoothing": cross_entropy,
        "cross_entropy:z_loss": with_z_loss,
        "cross_entropy:softcap": lambda x, y, softcap: cross_entropy(softcap * torch.tanh(x / softcap), y),
        "cross_entropy:probabilities": cross_entropy,
        "focal_loss": focal_loss,
        "kl_div": lambda t, x: functional.kl_div(torch.log_softmax(x, -1), t, reduction="batchmean"),
        "js_div": js_div,
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        "log_prob": lambda x, y: categorical(x).log_prob(y),
        "log_prob_and_entropy": log_prob_and_entropy,
        "entropy": lambda p: torch.special.entr(p).sum(-1),
    }


def _others(torch: Any, compiled: bool) -> Functions:
    """What has no gradient here. Two backward passes are faster, but cannot be compiled."""
    cross_entropy = torch.nn.functional.cross_entropy

    def by_two_backward_passes(x: Any, y: Any, v: Any) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(cross_entropy(x, y), x, create_graph=True)
            return torch.autograd.grad(gradient, x, v)[0]

    def by_forward_over_reverse(x: Any, y: Any, v: Any) -> Any:
        return torch.func.jvp(torch.func.grad(lambda x: cross_entropy(x, y)), (x,), (v,))[1]

    def cross_entropy_grad_hess(x: Any, y: Any) -> Any:
        p = torch.softmax(x, -1)
        return p - torch.nn.functional.one_hot(y, x.shape[-1]), p * (1 - p)

    def softmax_vjp(y: Any, u: Any) -> Any:
        return torch.ops.aten._softmax_backward_data(u, y, -1, y.dtype)

    def log_softmax_vjp(y: Any, u: Any) -> Any:
        return torch.ops.aten._log_softmax_backward_data(u, y, -1, y.dtype)

    return {
        "logsumexp": lambda x: torch.logsumexp(x, -1),
        "softmax": lambda x: torch.softmax(x, -1),
        "log_softmax": lambda x: torch.log_softmax(x, -1),
        "cross_entropy_hvp": by_forward_over_reverse if compiled else by_two_backward_passes,
        "cross_entropy_grad_hess": cross_entropy_grad_hess,
        "softmax_vjp": softmax_vjp,
        "log_softmax_vjp": log_softmax_vjp,
    }
