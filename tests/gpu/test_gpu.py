"""A real GPU against the CPU backend and the reference: every regime, storage type and option, streams, DLPack."""

from __future__ import annotations

from unittest import mock

import cases
import mlefast as mf
import numpy as np
import pytest
import reference
import test_linear
import test_loss_family
from cuda_tests import test_terms
from cuda_tests.kernel_cases import DTYPES, check_rows, name_of, rows
from mlefast._backends import device_functions

try:
    import cupy
except ImportError:  # conftest.py skips all of them and says so
    cupy = None

SIZES = [1, 2, 7, 10, 31, 32, 33, 64, 100, 255, 257, 1000, 1024, 4099, 8193, 32000, 50257, 128256]


class OnGpu:
    """The module mlefast on CuPy arrays, with results brought back."""

    def __getattr__(self, name):
        def to_device(value):
            return cupy.asarray(value) if isinstance(value, np.ndarray) else value

        def to_host(result):
            if isinstance(result, tuple):
                return tuple(to_host(r) for r in result)
            return None if result is None else cupy.asnumpy(result)

        def call(*arrays, **options):
            given = {name: to_device(value) for name, value in options.items()}
            return to_host(getattr(mf, name)(*map(to_device, arrays), **given))

        return call


@pytest.mark.parametrize("classes", SIZES)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=name_of)
@pytest.mark.parametrize("n", [1, 5, 1000])
def test_against_the_reference(classes, dtype, n):
    if n * classes > 2**22:
        n = max(2, 2**22 // classes)
    for kind in cases.KINDS:
        x = rows(kind, n, classes, dtype)
        check_rows(OnGpu(), x, cases.targets(x.astype(np.float64)))


@pytest.mark.parametrize("shape", [(65536, 10), (16384, 100), (4096, 1000), (64, 32000), (16, 128256), (1, 1_000_000)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("in_place", [False, True])
def test_against_the_cpu(shape, reduction, in_place):
    r = np.random.default_rng(0)
    x = (3 * r.standard_normal(shape)).astype(np.float32)
    y = np.where(r.random(shape[0]) < 0.2, -100, r.integers(0, shape[1], shape[0]))
    y[0] = 0
    weight = r.uniform(0.5, 2, shape[1]).astype(np.float32)
    given = cupy.asarray(x)
    out = given if in_place else None
    loss, gradient = mf.cross_entropy_and_grad(
        given, cupy.asarray(y), weight=cupy.asarray(weight), reduction=reduction, out=out
    )
    want, want_gradient = mf.cross_entropy_and_grad(x, y, weight=weight, reduction=reduction)
    np.testing.assert_allclose(cupy.asnumpy(loss), want, rtol=3e-6, atol=1e-9)
    np.testing.assert_allclose(cupy.asnumpy(gradient), want_gradient, rtol=2e-5, atol=1e-30)
    assert (gradient is given) == in_place


LOSSES = test_terms.calls(np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=name_of)
def test_every_loss_against_the_cpu(name, dtype):
    """Each regime: a few lanes, a warp, a block, shared memory, streamed, split between blocks."""
    for shape in ((1000, 3), (300, 33), (64, 521), (8, 4099), (5, 20000), (500, 70001), (3, 128256)):
        x = (3 * np.random.default_rng(shape).standard_normal(shape)).astype(dtype)
        call = test_terms.calls(x)[name]
        test_terms.assert_like_the_cpus(call(OnGpu(), x), call(mf, x))


@pytest.mark.parametrize("name", test_terms.FAMILY)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_family_against_the_reference(name, dtype):
    with mock.patch.object(test_loss_family, "mf", OnGpu()):
        test, arguments = test_terms.FAMILY[name]
        test(None, dtype, *arguments)


@pytest.mark.parametrize("name", test_terms.DOUBLE)
def test_second_derivatives(name):
    with mock.patch.object(test_loss_family, "mf", OnGpu()):
        test, arguments = test_terms.DOUBLE[name]
        test(None, *arguments)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy(smoothing):
    with mock.patch.object(test_loss_family, "mf", OnGpu()):
        test_loss_family.test_binary_cross_entropy(None, np.float32, smoothing)
        test_loss_family.test_binary_extremes(None)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_class_axis_that_is_not_the_last(axis):
    x = np.random.default_rng(0).standard_normal((40, 50, 200)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, x.shape[axis], np.delete(x.shape, axis))
    for options in ({}, {"label_smoothing": 0.1}):
        loss, gradient = OnGpu().cross_entropy_and_grad(x, y, axis=axis, **options)
        want, want_gradient = mf.cross_entropy_and_grad(x, y, axis=axis, **options)
        np.testing.assert_allclose(loss, want, rtol=3e-6)
        np.testing.assert_allclose(gradient, want_gradient, rtol=2e-5, atol=1e-10)
    np.testing.assert_allclose(OnGpu().softmax(x, axis), mf.softmax(x, axis), rtol=2e-5)


@pytest.mark.parametrize("shape", [(40, 9, 33), (300, 64, 5000)])
@pytest.mark.parametrize("block", [2**14, 2**28])
def test_linear_cross_entropy(monkeypatch, shape, block):
    monkeypatch.setattr(device_functions, "BLOCK_BYTES", block)
    x, weight, bias, y = test_linear.problem(shape, np.float32)
    y[::5] = -100
    got = OnGpu().linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    want = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    for a, b in zip(got[1], want[1]):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(b).max())


def test_same_bits_in_every_run():
    x = cupy.random.default_rng(0).standard_normal((3000, 777), dtype=np.float32)
    y = cupy.arange(3000) % 777
    first = mf.cross_entropy_and_grad(x, y)
    for _ in range(20):
        loss, gradient = mf.cross_entropy_and_grad(x, y)
        assert loss == first[0]
        assert (gradient == first[1]).all()


def test_wrong_labels_and_the_memory_around_them(monkeypatch):
    memory = cupy.full((40, 100), 7.0, np.float32)
    x = memory[10:30]
    y = cupy.arange(20)
    y[3], y[5] = -1, 100
    loss, _ = mf.cross_entropy_and_grad(x, y, reduction="none", out=x)
    wrong = cupy.asnumpy(cupy.isnan(loss))
    assert wrong[[3, 5]].all()
    assert wrong.sum() == 2
    assert (memory[:10] == 7).all()
    assert (memory[30:] == 7).all()
    monkeypatch.setenv("MLEFAST_CUDA_CHECK", "1")
    with pytest.raises(IndexError, match=r"^target\[3\]: received -1"):
        mf.cross_entropy(x, y)


def test_subnormal_results_are_kept():
    x = cupy.asarray([[0.0, -95.0, -100.0]], np.float32)
    got = cupy.asnumpy(mf.softmax(x))
    assert (got > 0).all()
    cases.assert_ulps(got, reference.softmax(cupy.asnumpy(x)), np.float32, 4 + 50)


def test_nothing_waits_for_the_device():
    """Queued behind a long kernel, a call returns before that has ended."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x = cupy.zeros((20000, 20000), np.float32)
        mf.cross_entropy_and_grad(x[:10, :100], cupy.zeros(10, np.int64))  # compiled before
        stream.synchronize()
        for _ in range(50):
            cupy.sin(x, out=x)
        mf.cross_entropy_and_grad(x[:10, :100], cupy.zeros(10, np.int64))
        assert not stream.done
    stream.synchronize()


def test_more_than_two_to_the_31st_elements():
    rows_, classes = 70_000, 32_000
    if cupy.cuda.runtime.memGetInfo()[0] < 5 * rows_ * classes:
        pytest.skip("less than 11 GB of free device memory")
    x = cupy.zeros((rows_, classes), np.float16)
    x[-1] = cupy.linspace(-5, 5, classes)
    want = reference.logsumexp(cupy.asnumpy(x[-1]).astype(np.float32))
    assert float(mf.logsumexp(x)[-1]) == pytest.approx(float(want), rel=1e-6)


def test_torch_tensors_are_answered_in_kind():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    x = torch.randn(20, 50, device="cuda")
    y = torch.randint(0, 50, (20,), device="cuda")
    loss, gradient = mf.cross_entropy_and_grad(x, y)
    assert loss.device == gradient.device == x.device
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(x, y))
    _, same = mf.cross_entropy_and_grad(x, y, out=x)
    assert same is x
    torch.testing.assert_close(x, gradient)


def test_tolerances_are_those_of_the_cpu():
    x = cases.rows("confident", 50, 300, np.float32)
    cases.check_rows(x, cases.targets(x), np.float32, OnGpu())


def test_information_gain():
    counts = np.random.default_rng(0).integers(0, 9, (60, 3, 5)).astype(np.float64)
    np.testing.assert_allclose(OnGpu().information_gain(counts), mf.information_gain(counts), rtol=1e-12, atol=1e-14)
