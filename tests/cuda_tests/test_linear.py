"""linear_cross_entropy on CUDA: the CPU's own tests on the emulator, whose products of matrices are NumPy's."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import test_linear as linear
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast
from cuda_tests.kernel_cases import needs_emulator
from mlefast._backends import device_functions

pytestmark = needs_emulator


@pytest.fixture(autouse=True)
def emulated() -> Iterator[EmulatedMlefast]:
    mlefast = EmulatedMlefast(EmulatedDevice())
    with mock.patch.object(linear, "mf", mlefast):
        yield mlefast


@pytest.mark.parametrize(
    ("shape", "dtype", "block"),
    [
        ((7, 5, 4), np.float64, 1),
        ((40, 9, 33), np.float32, 3000),
        ((33, 20, 300), np.float32, 2**28),
    ],
)
def test_against_the_dense_computation(monkeypatch, shape, dtype, block):
    monkeypatch.setattr(device_functions, "BLOCK_BYTES", block)
    for biased, weighted in ((False, True), (True, False)):
        linear.test_against_the_dense_computation(monkeypatch, shape, dtype, biased, weighted, 16)


@pytest.mark.parametrize(
    ("kind", "reduction"),
    [pytest.param("indices", "mean", marks=pytest.mark.exhaustive), ("probabilities", "none")],
)
def test_options_are_those_of_cross_entropy(monkeypatch, kind, reduction):
    monkeypatch.setattr(device_functions, "BLOCK_BYTES", 1000)
    for options in linear.OPTIONS[::2]:
        linear.test_options_are_those_of_cross_entropy(monkeypatch, options, kind, reduction)


@pytest.mark.parametrize("held", [np.nan, np.inf, 1e300])
def test_ignored_rows_may_hold_anything(monkeypatch, held):
    monkeypatch.setattr(device_functions, "BLOCK_BYTES", 100)
    linear.test_ignored_rows_may_hold_anything(monkeypatch, 2, held)


@pytest.mark.parametrize("y", [[], [-100, -100, -100]])
def test_no_row_counts(y):
    linear.test_no_row_counts(y)


def test_shapes_and_dtypes(monkeypatch):
    linear.test_no_features()
    linear.test_a_row_without_a_distribution_is_nan_and_no_other()
    for contiguous in (True, False):
        linear.test_any_number_of_leading_axes(contiguous, True)
    linear.test_halves_are_computed_in_float32(monkeypatch, "bfloat16", 16)


def test_wrong_labels(emulated, monkeypatch):
    """NaN, or an error that names the label's place in all of them, whatever block it falls into."""
    monkeypatch.setattr(device_functions, "BLOCK_BYTES", 100)
    x, weight, _, y = linear.problem((40, 9, 33), np.float32)
    y[37] = 33
    losses = emulated.linear_cross_entropy(x, weight, y, reduction="none")
    assert np.isnan(losses[37])
    assert np.isfinite(np.delete(losses, 37)).all()
    monkeypatch.setenv("MLEFAST_CUDA_CHECK", "1")
    with pytest.raises(IndexError, match=r"^target\[37\]: received 33"):
        emulated.linear_cross_entropy(x, weight, y)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight": np.zeros((4, 3))}, ValueError, r"weight: received shape \(4, 3\); accepted: \(C, 2\)"),
        ({"weight": np.zeros((0, 2))}, ValueError, "weight: received shape"),
        ({"bias": np.zeros(3)}, ValueError, r"bias: received shape \(3,\); accepted: \(4,\)"),
        ({"class_weight": np.zeros(3)}, ValueError, r"class_weight: received shape \(3,\)"),
        ({"target": [0.0, 1.0]}, ValueError, "target: received an array of dtype float64"),
        ({"label_smoothing": 2}, ValueError, "label_smoothing: received 2"),
        ({"filter_eps": -1}, ValueError, "filter_eps: received -1"),
        ({"x": np.zeros((2, 2), complex)}, TypeError, "x: received an array of dtype complex"),
    ],
)
def test_refused(emulated, arguments, error, message):
    given = {"x": np.zeros((2, 2)), "weight": np.zeros((4, 2)), "target": [0, 1], **arguments}
    with pytest.raises(error, match="^" + message):
        emulated.linear_cross_entropy_and_grad(**given)
