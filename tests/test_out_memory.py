"""`out` that is memory of another input than the logits: the result is that of memory apart."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest
from test_loss_family import problem

OVERLAPS = {
    "probabilities": lambda x, t, out: mf.cross_entropy_and_grad(x, t, out=out),
    "kl_div": lambda x, t, out: mf.kl_div_and_grad(t, x, out=out),
    "js_div": lambda x, t, out: mf.js_div_and_grad(t, x, out=out),
    "binary": lambda x, t, out: mf.binary_cross_entropy_and_grad(x, t, out=out),
    "hvp": lambda x, t, out: (mf.cross_entropy_hvp(x, np.arange(len(x)) % 3, t, out=out),) * 2,
    "softmax_vjp": lambda x, t, out: (mf.softmax_vjp(x, t, out=out),) * 2,
    "log_softmax_vjp": lambda x, t, out: (mf.log_softmax_vjp(x, t, out=out),) * 2,
}


@pytest.mark.parametrize("classes", [3, 40, 1000, 5000])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("name", OVERLAPS)
def test_out_that_is_the_memory_of_another_input(isa, name, classes, shift):
    """The result is that of memory apart; what was there is overwritten."""
    x, t, _, _ = problem((4, classes), np.float32, "probabilities")
    memory = np.zeros(x.size + 1, np.float32)
    out, target = memory[: x.size].reshape(x.shape), memory[shift:][: x.size].reshape(x.shape)
    target[...] = t
    want = OVERLAPS[name](x, t, np.empty_like(x))
    value, result = OVERLAPS[name](x, target, out)
    assert result is out
    np.testing.assert_array_equal(value, want[0])
    np.testing.assert_array_equal(out, want[1])


def test_out_that_is_the_memory_of_integer_targets():
    x = cases.rows("ordinary", 4, 6, np.float32)
    y = cases.targets(x)
    for weight in (None, np.ones(6, np.float32)):
        for target in (y, y.astype(np.int32)):
            memory = np.zeros(x.size, np.float32)
            shared = memory.view(target.dtype)[: len(y)]
            shared[...] = target
            loss, gradient = mf.cross_entropy_and_grad(x, shared, weight=weight, out=memory.reshape(x.shape))
            want, want_gradient = mf.cross_entropy_and_grad(x, y)
            assert loss == want
            np.testing.assert_array_equal(gradient, want_gradient)
