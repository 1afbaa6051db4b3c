"""PyTorch: linear_cross_entropy takes its tensors, answers in kind, and agrees with its own function."""

from __future__ import annotations

import mlefast as mf
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its comparison runs in CI")
functional = torch.nn.functional


def problem(dtype, n=40, features=8, classes=50):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((n, features), (classes, features), (50,))
    )
    y = torch.randint(0, classes, (n,), generator=generator)
    y[::7] = -100
    return x.to(dtype), weight.to(dtype), bias.to(dtype), y


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_are_answered_in_kind(dtype):
    x, weight, bias, y = problem(dtype)
    loss, gradients = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    assert isinstance(loss, torch.Tensor)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert mf.linear_cross_entropy(x, weight, y, bias=bias) == loss
    wide = [a.double().clone().requires_grad_() for a in (x, weight, bias)]
    want = functional.cross_entropy(functional.linear(*wide), y)
    want.backward()
    torch.testing.assert_close(loss.double(), want.detach(), rtol=1e-6, atol=0)
    for gradient, leaf in zip(gradients, wide):
        assert isinstance(gradient, torch.Tensor)
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, leaf.grad.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-7)
    kept, (_, array, _) = mf.linear_cross_entropy_and_grad(x.double(), weight.double().numpy(), y)
    assert isinstance(kept, torch.Tensor)
    assert isinstance(array, np.ndarray)  # each gradient is of its own input's kind


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
def test_agrees_with_the_function_of_that_name(reduction, weighted, smoothing, kind):
    if not hasattr(functional, "linear_cross_entropy"):
        pytest.skip("this PyTorch has no linear_cross_entropy (2.13 has)")
    x, weight, bias, y = problem(torch.float64)
    if kind == "probabilities":
        y = torch.softmax(torch.randn(40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), -1)
    class_weight = torch.linspace(0.5, 2, 50, dtype=torch.float64) if weighted else None
    leaves = [a.clone().requires_grad_() for a in (x, weight, bias)]
    want = functional.linear_cross_entropy(
        *leaves[:2], y, linear_bias=leaves[2], weight=class_weight, reduction=reduction, label_smoothing=smoothing
    )
    want.sum().backward()
    loss, gradients = mf.linear_cross_entropy_and_grad(
        x, weight, y, bias=bias, class_weight=class_weight, reduction=reduction, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, want.detach(), rtol=1e-12, atol=1e-12)
    for gradient, leaf in zip(gradients, leaves):
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-10, atol=1e-12)


def test_tensor_that_requires_grad_is_refused():
    x, weight, _, y = problem(torch.float32)
    with pytest.raises((TypeError, RuntimeError), match="grad"):
        mf.linear_cross_entropy(x.requires_grad_(), weight, y)
