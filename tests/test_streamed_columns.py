"""Outputs too large for the caches, class axis not last: whole lines are written past the caches, whatever the address.

The same call in place takes ordinary stores, so its bits are what is to be expected. (That they are right is shown by
`test_kernels` and `test_losses`.) But for classes that lie pages apart: those are compared with a sample at a time.
"""

from __future__ import annotations

import mlefast as mf
import numpy as np
import pytest

BF16 = pytest.importorskip("ml_dtypes").bfloat16
STREAMED = 1 << 24  # bytes from which on an output is too large
DTYPES = [np.float32, np.float64, np.float16, BF16]


def framed(shape, dtype, shift):
    """An array that starts `shift` elements off a cache line, and the array it is a part of."""
    length = int(np.prod(shape))
    size = np.dtype(dtype).itemsize
    memory = np.zeros((length + 128) * size, np.uint8)
    start = -memory.ctypes.data % 64 // size + shift
    frame = memory.view(dtype)
    return frame[start : start + length].reshape(shape), frame


def logits(shape, dtype):
    return np.random.default_rng(5).standard_normal(shape, np.float32).astype(dtype)


def bits(array):
    return array.view(f"u{array.itemsize}")


def check(call, x, shift):
    """call(x, out) writes the same bits to an array of any alignment as in place, and nothing beside it."""
    want = x.copy()
    results = call(want, want)
    out, frame = framed(x.shape, x.dtype, shift)
    frame[...] = 7
    others = call(x, out)
    np.testing.assert_array_equal(bits(out), bits(want))
    out[...] = 7
    assert (frame == 7).all()
    for one, other in zip(results, others, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shift", [0, 1, 4, 31])
@pytest.mark.parametrize(
    ("classes", "length"),
    [
        (3, 300_003),  # classes a line and three quarters off each other
        (5, 100_000),
        (130, 8_192),  # all classes alike, many runs
        (6, 1_029),  # a run without a tile, behind one whose last rows wait
        (257, 331),  # lanes left over in each run, and lines that two runs share
        (1_000, 320),  # as many classes as are staged, five tiles
    ],
)
def test_any_alignment(isa, dtype, classes, length, shift):
    outer = 1 + STREAMED // (classes * length * np.dtype(dtype).itemsize)
    x = logits((outer, classes, length), dtype)
    y = np.random.default_rng(6).integers(0, classes, (outer, length))
    y[:, ::7] = -100
    y[:, 128:200] = classes - 1  # a tile whose rows are all wanted, behind one whose last rows are not

    def gradient(x, out):
        loss, _ = mf.cross_entropy_and_grad(x, y, axis=1, reduction="none", out=out)
        return (loss,)

    check(gradient, x, shift)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shift", [0, 1, 4, 31])
def test_in_place(isa, dtype, shift):
    """Classes that lie pages apart are written past the caches in place as well, after all of a line has been read."""
    classes, length = 130, 4096
    outer = 1 + STREAMED // (classes * length * np.dtype(dtype).itemsize)
    x, frame = framed((outer, classes, length), dtype, shift)
    frame[...] = 7
    x[...] = logits(x.shape, dtype)
    y = np.random.default_rng(8).integers(0, classes, (outer, length))
    want = [mf.cross_entropy_and_grad(x[i], y[i], axis=0, reduction="none") for i in range(outer)]
    loss, _ = mf.cross_entropy_and_grad(x, y, axis=1, reduction="none", out=x)
    for i, (one, gradient) in enumerate(want):
        np.testing.assert_array_equal(loss[i], one)
        np.testing.assert_array_equal(bits(x[i]), bits(gradient))
    x[...] = 7
    assert (frame == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_out_off_its_own_alignment(isa, dtype):
    """Such an output has no vectors that lie within lines."""
    x = logits((64, 66_000), np.float32).astype(dtype)
    x = np.concatenate([x] * (1 + STREAMED // x.nbytes), 1)
    memory = np.full(x.nbytes + 9, 7, np.uint8)
    out = memory[1:-8].view(dtype).reshape(x.shape)
    assert not out.flags.aligned
    assert mf.softmax(x, 0, out=out) is out
    want = x.copy()
    np.testing.assert_array_equal(out, mf.softmax(want, 0, out=want))
    assert (memory[-8:] == 7).all()
    assert memory[0] == 7


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("function", [mf.softmax, mf.log_softmax])
def test_probabilities(isa, dtype, function):
    def call(x, out):
        function(x, axis=0, out=out)
        return ()

    check(call, logits((37, 240_003), dtype), 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_and_weights(isa, dtype, threads):
    """Neither the mean nor a weighted gradient depends on where the output lies, or on who writes it."""
    x = logits((21, 210_001), dtype)
    y = np.random.default_rng(7).integers(0, 21, 210_001)
    weight = np.linspace(0, 3, 21).astype(dtype)

    def call(x, out):
        loss, _ = mf.cross_entropy_and_grad(x, y, axis=0, weight=weight, out=out)
        return (loss,)

    for n in (1, 2, 3):
        threads(n)
        check(call, x, n)
