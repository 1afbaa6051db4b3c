"""PyTorch: networks have autograd's gradients, optimisers take torch.optim's steps, whole fits agree."""

from __future__ import annotations

import mlefast as mf
import numpy as np
import pytest
from mlefast.estimators.network import Network
from mlefast.estimators.optimizers import SGD, AdamW

torch = pytest.importorskip("torch", reason="PyTorch is not installed: its comparison runs in CI")

MODULES = {"relu": torch.nn.ReLU, "gelu": torch.nn.GELU, "tanh": torch.nn.Tanh, "identity": torch.nn.Identity}


def in_torch(network):
    """The same network, with the same parameters, in PyTorch."""
    layers = []
    for coef, intercept in zip(network.coefs, network.intercepts, strict=True):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, *coef.shape, dtype=torch.float64)
        layer.weight.data = torch.from_numpy(coef.T.copy())
        layer.bias.data = torch.from_numpy(intercept.copy())
        layers += [layer, MODULES[network.activation]()]
    return torch.nn.Sequential(*layers[:-1])


def parameters_of(model, what=lambda parameter: parameter.detach()):
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    parts = [what(layer.weight).numpy().T.ravel() for layer in linear]
    return np.concatenate([*parts, *(what(layer.bias).numpy() for layer in linear)])


def relative_error(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize("activation", MODULES)
@pytest.mark.parametrize("sizes", [(6, 4), (30, 50, 4), (30, 50, 40, 20, 7)])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients(activation, sizes, weighted):
    network = Network(sizes, activation, dtype=np.float64)
    random = np.random.default_rng(0)
    network.initialize(random)
    X, y = 3 * random.standard_normal((64, sizes[0])), random.integers(0, sizes[-1], 64)
    weight = random.uniform(0.1, 3, 64) if weighted else np.ones(64)
    loss = network.loss_and_gradient(X, y, weight if weighted else None, weight.sum())
    model = in_torch(network)
    losses = torch.nn.functional.cross_entropy(model(torch.from_numpy(X)), torch.from_numpy(y), reduction="none")
    want = (losses * torch.from_numpy(weight)).sum() / weight.sum()
    want.backward()
    assert loss == pytest.approx(want.item(), rel=1e-13)
    autograd = parameters_of(model, lambda parameter: parameter.grad)
    assert relative_error(network.gradient, autograd) < 1e-13
    np.testing.assert_allclose(network.gradient, autograd, rtol=1e-9, atol=1e-12 * np.abs(autograd).max())


RULES = {
    "sgd": (
        lambda p: SGD(p, learning_rate=0.01, momentum=0.9, nesterov=False),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    ),
    "nesterov": (
        lambda p: SGD(p, learning_rate=0.01, momentum=0.7, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.7, nesterov=True),
    ),
    "adamw": (
        lambda p: AdamW(p, learning_rate=0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-6, weight_decay=0.2),
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.2),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_steps(rule):
    random = np.random.default_rng(0)
    ours = random.standard_normal(200_000)
    theirs = torch.from_numpy(ours.copy()).requires_grad_()
    optimizer, torch_optimizer = RULES[rule][0](ours), RULES[rule][1]([theirs])
    for _ in range(10):
        gradient = random.standard_normal(200_000)
        theirs.grad = torch.from_numpy(gradient.copy())
        torch_optimizer.step()
        optimizer.step(ours, gradient)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_a_whole_fit(solver):
    """Epochs over samples in their own order, from the same start, end at the same parameters."""
    random = np.random.default_rng(0)
    X, y = random.standard_normal((70, 8)), random.integers(0, 3, 70)
    options = {"solver": solver, "activation": "gelu", "alpha": 0.1, "learning_rate_init": 0.01, "batch_size": 32}
    model = mf.MLPClassifier((16, 8), shuffle=False, max_iter=1, tol=0, random_state=0, **options).fit(X, y)
    network = Network((8, 16, 8, 3), "gelu", dtype=np.float64)
    network.take(model.coefs_, model.intercepts_)
    peer = in_torch(network)
    model.set_params(warm_start=True, max_iter=5).fit(X, y)
    weights = [parameter for name, parameter in peer.named_parameters() if "weight" in name]
    biases = [parameter for name, parameter in peer.named_parameters() if "bias" in name]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
    optimizer = (
        torch.optim.AdamW(groups, lr=0.01)
        if solver == "adamw"
        else torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    )
    for _ in range(5):
        for first in range(0, 70, 32):
            optimizer.zero_grad()
            batch, target = torch.from_numpy(X[first : first + 32]), torch.from_numpy(y[first : first + 32])
            torch.nn.functional.cross_entropy(peer(batch), target).backward()
            optimizer.step()
    network.take(model.coefs_, model.intercepts_)
    np.testing.assert_allclose(network.parameters, parameters_of(peer), rtol=1e-9, atol=1e-11)
