"""PyTorch: its tensors are taken and answered in kind, and its cross_entropy agrees over the product of the options."""

from __future__ import annotations

import itertools

import mlefast as mf
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its comparison runs in CI")
functional = torch.nn.functional


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_are_answered_in_kind(dtype):
    x = torch.randn(5, 7, dtype=dtype)
    y = torch.randint(0, 7, (5,))
    loss, gradient = mf.cross_entropy_and_grad(x, y)
    for tensor in (loss, gradient, mf.softmax(x), mf.log_softmax(x), mf.logsumexp(x), mf.cross_entropy(x, y)):
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == dtype
    torch.testing.assert_close(gradient, torch.softmax(x, -1).sub(functional.one_hot(y, 7)).div(5))
    torch.testing.assert_close(loss, functional.cross_entropy(x, y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype):
    x = torch.randn(50, 70).to(dtype)
    y = torch.randint(0, 70, (50,))
    loss, gradient = mf.cross_entropy_and_grad(x, y)
    wide = x.float().requires_grad_()
    want = functional.cross_entropy(wide, y)
    want.backward()
    assert (loss.dtype, mf.logsumexp(x).dtype) == (torch.float32, torch.float32)
    assert (gradient.dtype, mf.softmax(x).dtype) == (dtype, dtype)
    torch.testing.assert_close(loss, want.detach())
    torch.testing.assert_close(gradient, wide.grad.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-8)
    address = x.data_ptr()
    _, returned = mf.cross_entropy_and_grad(x, y, out=x)
    assert returned is x
    assert x.data_ptr() == address
    torch.testing.assert_close(x, gradient, rtol=0, atol=0)


def test_no_copy_and_in_place():
    x = torch.randn(5, 7)
    y = torch.randint(0, 7, (5,))
    _, want = mf.cross_entropy_and_grad(x, y)
    address = x.data_ptr()
    _, gradient = mf.cross_entropy_and_grad(x, y, out=x)
    assert gradient is x
    assert x.data_ptr() == address
    torch.testing.assert_close(x, want, rtol=0, atol=0)


def test_tensor_that_requires_grad_is_refused_with_its_name():
    with pytest.raises((TypeError, RuntimeError), match="grad"):
        mf.cross_entropy(torch.zeros(2, 3, requires_grad=True), [0, 1])
    with pytest.raises((TypeError, RuntimeError), match="grad|BFloat16"):
        mf.cross_entropy(torch.zeros(2, 3, requires_grad=True, dtype=torch.bfloat16), [0, 1])


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3), (2, 130, 3, 2), (5, 300)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_over_the_product_of_options(shape, reduction):
    generator = torch.Generator().manual_seed(0)
    classes = shape[1]
    rows = shape[:1] + shape[2:]
    y = torch.randint(0, classes, rows, generator=generator)
    ignored = torch.rand(rows, generator=generator) < 0.3
    ignored.view(-1)[0] = False
    for weighted, ignore_index, dtype in itertools.product(
        (False, True), (None, -100, 2), (torch.float32, torch.float64)
    ):
        x = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()
        weight = torch.rand(classes, generator=generator, dtype=torch.float64).to(dtype) + 0.5 if weighted else None
        target = y.clone()
        if ignore_index is not None:
            target[ignored] = ignore_index
        options = {} if ignore_index is None else {"ignore_index": ignore_index}
        want = functional.cross_entropy(x, target, weight=weight, reduction=reduction, **options)
        upstream = torch.randn(want.shape, generator=generator, dtype=torch.float64).to(dtype)
        want.backward(upstream)
        loss, gradient = mf.cross_entropy_and_grad(
            x.detach().numpy(),
            target.numpy(),
            axis=1,
            weight=None if weight is None else weight.numpy(),
            reduction=reduction,
            upstream=upstream.numpy(),
            **options,
        )
        rtol = 1e-5 if dtype is torch.float32 else 1e-12
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=rtol, atol=rtol * 1e-2)
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=100 * rtol, atol=rtol * 1e-2)


def test_what_pytorch_gets_wrong():
    """One reason for this package: if PyTorch mends it, the documentation must say so."""
    confident = np.array([[25.0, 0.0]], np.float32)
    assert float(functional.cross_entropy(torch.from_numpy(confident), torch.tensor([0]))) == 0
    assert mf.cross_entropy(confident, [0]) == pytest.approx(np.exp(-25.0), rel=1e-6)
