"""The kernels against the extended-precision reference: every instruction set, dtype, length and kind of row."""

from __future__ import annotations

import cases
import mlefast as mf
import numpy as np
import pytest


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("classes", cases.CLASSES)
def test_every_length(isa, dtype, classes):
    x = cases.rows("ordinary", 67, classes, dtype)  # 67: a whole tile of 64 rows, and a part of one
    cases.check_rows(x, cases.targets(x), dtype)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("classes", [2, 3, 5, 10, 33, 100, 129, 1000, 1025, 5000])
def test_every_kind(isa, dtype, kind, classes):
    x = cases.rows(kind, 40, classes, dtype)
    cases.check_rows(x, cases.targets(x), dtype)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("classes", cases.LONG_CLASSES)
@pytest.mark.parametrize("kind", ["ordinary", "confident", "ascending"])
def test_long_rows(isa, dtype, classes, kind):
    x = cases.rows(kind, 3, classes, dtype)
    cases.check_rows(x, cases.targets(x), dtype)


@pytest.mark.parametrize(
    ("bits", "dtype"), [(0x7FC00001, np.float32), (0xFFC000FF, np.float32), (0x7FF8000000000001, np.float64)]
)
@pytest.mark.parametrize("classes", [2, 10, 200, 1000])
def test_a_nan_of_any_bits_stays_one(isa, bits, dtype, classes):
    x = np.zeros((40, classes), dtype)
    x.view(f"u{x.itemsize}")[5, 1] = bits
    loss, gradient = mf.cross_entropy_and_grad(x, np.zeros(40, int), reduction="none")
    rows = np.arange(40) == 5
    assert np.array_equal(np.isnan(loss), rows)
    assert np.array_equal(np.isnan(gradient), np.repeat(rows[:, None], classes, axis=1))
