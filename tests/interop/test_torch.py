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
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.zeros(2, 3, requires_grad=True, dtype=dtype)
        with pytest.raises(TypeError, match=r"^logits: received a tensor that requires grad; .*logits\.detach\(\)"):
            mf.cross_entropy(x, [0, 1])
        with pytest.raises(TypeError, match="^weight: received a tensor that requires grad"):
            mf.cross_entropy(x.detach(), [0, 1], weight=x[0])
        with pytest.raises(TypeError, match="^upstream: received a tensor that requires grad"):
            mf.cross_entropy_and_grad(x.detach(), [0, 1], reduction="none", upstream=x[:, 0])


def test_factors_of_bfloat16():
    x = torch.randn(4, 3).bfloat16()
    y = torch.tensor([0, 1, 2, 0])
    weight, upstream = torch.rand(3).bfloat16(), torch.randn(4).bfloat16()
    given = mf.cross_entropy_and_grad(x, y, weight=weight, reduction="none", upstream=upstream)
    want = mf.cross_entropy_and_grad(x, y, weight=weight.float(), reduction="none", upstream=upstream.float())
    for one, other in zip(given, want, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


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


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3), (2, 130, 3), (5, 300)])
@pytest.mark.parametrize("kind", ["index", "probabilities"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_smoothing_weights_and_probabilities(shape, kind, reduction):
    """weight x label_smoothing x ignore_index x kind of target x reduction, in float64."""
    generator = torch.Generator().manual_seed(1)
    classes, rows = shape[1], shape[:1] + shape[2:]
    for weighted, smoothing, ignore_index in itertools.product((False, True), (0.0, 0.1, 1.0), (None, 2)):
        x = (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        weight = torch.rand(classes, generator=generator, dtype=torch.float64) + 0.5 if weighted else None
        target = torch.randint(0, classes, rows, generator=generator)
        if kind == "probabilities":
            if ignore_index is not None:
                continue
            target = torch.rand(shape, generator=generator, dtype=torch.float64)  # need not sum to 1
        options = {} if ignore_index is None else {"ignore_index": ignore_index}
        want = functional.cross_entropy(
            x, target, weight=weight, label_smoothing=smoothing, reduction=reduction, **options
        )
        upstream = torch.randn(want.shape, generator=generator, dtype=torch.float64)
        want.backward(upstream)
        loss, gradient = mf.cross_entropy_and_grad(
            x.detach(),
            target,
            axis=1,
            weight=weight,
            label_smoothing=smoothing,
            reduction=reduction,
            upstream=upstream,
            **options,
        )
        assert isinstance(gradient, torch.Tensor)
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_cross_entropy(reduction):
    generator = torch.Generator().manual_seed(2)
    shape = (40, 7)
    for weighted, positive in itertools.product((None, (7,), (40, 1), (40, 7)), (False, True)):
        x = (5 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        target = torch.rand(shape, generator=generator, dtype=torch.float64).round(decimals=1)
        weight = None if weighted is None else torch.rand(weighted, generator=generator, dtype=torch.float64)
        pos_weight = torch.rand(7, generator=generator, dtype=torch.float64) * 3 if positive else None
        want = functional.binary_cross_entropy_with_logits(
            x, target, weight=weight, pos_weight=pos_weight, reduction=reduction
        )
        upstream = torch.randn(want.shape, generator=generator, dtype=torch.float64)
        want.backward(upstream)
        loss, gradient = mf.binary_cross_entropy_and_grad(
            x.detach(), target, weight=weight, pos_weight=pos_weight, reduction=reduction, upstream=upstream
        )
        np.testing.assert_allclose(loss, want.detach().numpy(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_divergences_entropies_and_jacobians():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(9, 30, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.softmax(torch.randn(9, 30, generator=generator, dtype=torch.float64), -1)
    want = functional.kl_div(torch.log_softmax(x, -1), target, reduction="batchmean")
    (gradient,) = torch.autograd.grad(want, x)
    value, got = mf.kl_div_and_grad(target, x.detach())
    torch.testing.assert_close(value, want.detach())
    torch.testing.assert_close(got, gradient)

    middle = ((torch.softmax(x, -1) + target) / 2).log()
    parts = [functional.kl_div(middle, p, reduction="batchmean") for p in (target, torch.softmax(x, -1))]
    want = sum(parts) / 2
    (gradient,) = torch.autograd.grad(want, x)
    value, got = mf.js_div_and_grad(target, x.detach())
    torch.testing.assert_close(value, want.detach())
    torch.testing.assert_close(got, gradient)

    policy = torch.distributions.Categorical(logits=x)
    action = torch.randint(0, 30, (9,), generator=generator)
    advantage = torch.randn(9, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((advantage * policy.log_prob(action) + 0.01 * policy.entropy()).sum(), x)
    log_prob, entropy, got = mf.log_prob_and_entropy_and_grad(
        x.detach(), action, upstream=advantage, entropy_upstream=0.01
    )
    torch.testing.assert_close(log_prob, policy.log_prob(action).detach())
    torch.testing.assert_close(entropy, policy.entropy().detach())
    torch.testing.assert_close(got, gradient)

    upstream = torch.randn(9, 30, generator=generator, dtype=torch.float64)
    for forward, product in ((torch.softmax, mf.softmax_vjp), (torch.log_softmax, mf.log_softmax_vjp)):
        y = forward(x, -1)
        (gradient,) = torch.autograd.grad(y, x, upstream)
        torch.testing.assert_close(product(y.detach(), upstream), gradient)


@pytest.mark.parametrize("kind", ["index", "probabilities"])
def test_hessian_products_are_double_backward(kind):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(6, 12, generator=generator, dtype=torch.float64).requires_grad_()
    vector = torch.randn(6, 12, generator=generator, dtype=torch.float64)
    weight = torch.rand(12, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 12, (6,), generator=generator)
    if kind == "probabilities":
        target = torch.softmax(torch.randn(6, 12, generator=generator, dtype=torch.float64), -1)
    for softcap, temperature, z_loss in itertools.product((None, 2.0), (1.0, 1.5), (0.0, 0.1)):
        z = (x if softcap is None else softcap * torch.tanh(x / softcap)) / temperature
        loss = functional.cross_entropy(z, target, weight=weight, label_smoothing=0.1, reduction="sum")
        loss = loss + z_loss * torch.logsumexp(z, -1).pow(2).sum()
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        (want,) = torch.autograd.grad(gradient, x, vector)
        options = {"softcap": softcap, "temperature": temperature, "z_loss": z_loss, "label_smoothing": 0.1}
        value, first = mf.cross_entropy_and_grad(x.detach(), target, weight=weight, reduction="sum", **options)
        torch.testing.assert_close(value, loss.detach())
        torch.testing.assert_close(first, gradient.detach())
        product = mf.cross_entropy_hvp(x.detach(), target, vector, weight=weight, reduction="sum", **options)
        torch.testing.assert_close(product, want)


def test_what_pytorch_gets_wrong():
    """One reason for this package: if PyTorch mends it, the documentation must say so."""
    confident = np.array([[25.0, 0.0]], np.float32)
    assert float(functional.cross_entropy(torch.from_numpy(confident), torch.tensor([0]))) == 0
    assert mf.cross_entropy(confident, [0]) == pytest.approx(np.exp(-25.0), rel=1e-6)
