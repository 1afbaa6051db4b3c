"""More elements than 32 bits can count. Zeros that are only read cost no memory: one page stands for all of them."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest
import reference

MANY = 2**31 + 17


def zeros(shape, dtype=np.float32):
    try:
        return np.zeros(shape, dtype)
    except MemoryError:
        pytest.skip(f"this machine does not promise the memory for zeros of shape {shape}")


@pytest.mark.parametrize("at", [5, 2**31 - 1, 2**31, MANY - 1])
def test_one_row(at):
    x = zeros(MANY)
    x[at] = 20.0
    others = (MANY - 1) * np.exp(reference.LONG(-20))
    cases.assert_ulps(mf.logsumexp(x), 20 + np.log1p(others), np.float32, cases.ULP)
    cases.assert_ulps(mf.cross_entropy(x, at), np.log1p(others), np.float32, cases.ULP + 10)
    cases.assert_ulps(mf.cross_entropy(x, at - 1), 20 + np.log1p(others), np.float32, cases.ULP)


@pytest.mark.parametrize("axis", [0, 1])
def test_many_rows(axis):
    n, classes = MANY // 10 + 1, 10
    x = zeros((n, classes) if axis else (classes, n))
    y = zeros(n, np.int8)
    far = (n - 1, 3) if axis else (3, n - 1)
    x[far] = 50.0
    y[n - 1] = 3
    loss = mf.cross_entropy(x, y, axis=axis, reduction="sum")
    cases.assert_ulps(loss, (n - 1) * np.log(reference.LONG(10)), np.float32, 2)
    losses = mf.cross_entropy(x, y, axis=axis, reduction="none")
    assert losses[-1] < 1e-20 < losses[-2]
    del losses
    y[n - 2] = 10
    with pytest.raises(IndexError, match=rf"^target\[{n - 2}\]: received 10"):
        mf.cross_entropy(x, y, axis=axis)


@pytest.mark.parametrize("rows", [2, 1])
def test_more_classes_than_float32_counts_in_a_lane(rows):
    classes = 2**24 + 3
    x = zeros((classes, rows))
    x -= 1e4
    x[classes // 2] = 1
    np.testing.assert_array_equal(mf.logsumexp(x, 0), [1] * rows)
    y = np.full(rows, classes // 2)
    np.testing.assert_array_equal(mf.cross_entropy(x, y, axis=0, reduction="none"), [0] * rows)
    x[-1] = 1  # two attain the maximum
    np.testing.assert_array_equal(mf.softmax(x, 0)[[0, classes // 2, -1]], [[0] * rows, [0.5] * rows, [0.5] * rows])


@pytest.fixture(scope="module")
def memory():
    """Room for more than 2**31 numbers, taken from the system once."""
    return zeros(MANY + 1000)


@pytest.mark.large
@pytest.mark.parametrize("shape", [(1, MANY), (MANY // 1000 + 1, 1000), (MANY // 10 + 1, 10)])
def test_gradient_in_place(memory, shape):
    x = memory[: shape[0] * shape[1]].reshape(shape)
    x[:] = 0
    y = np.full(shape[0], shape[1] - 1)
    loss, gradient = mf.cross_entropy_and_grad(x, y, reduction="sum", out=x)
    assert gradient is x
    each = np.log(reference.LONG(shape[1]))
    cases.assert_ulps(loss, shape[0] * each, np.float32, 2)
    p = 1 / reference.LONG(shape[1])
    for row in (0, shape[0] // 2, shape[0] - 1):
        cases.assert_ulps(x[row, :5], np.broadcast_to(p, x[row, :5].shape), np.float32, cases.ULP)
        cases.assert_ulps(x[row, -1], p - 1, np.float32, cases.ULP)
