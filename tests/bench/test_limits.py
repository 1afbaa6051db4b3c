"""The limits move every number, no matter how many there are and where they start."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast import _core
from mlefast.bench.backends import Host

METHODS = {kind: [name for name, k in _core.LIMITS.items() if k == kind] for kind in ("read", "copy", "update")}
SIZES = [0, 1, 7, 63, 64, 65, 1000, 65537, 300_001]


def array(size, offset, dtype):
    values = np.random.default_rng(size).standard_normal(size + offset).astype(dtype)
    return values[offset:]


def test_every_kind_has_a_method():
    assert all(METHODS.values())
    assert "memcpy" in METHODS["copy"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS["read"])
def test_read(method, dtype, threads):
    for limit in (1, 3):
        threads(limit)
        for size in SIZES:
            x = array(size, 1, dtype)
            np.testing.assert_allclose(_core.run_limit(method, x, None), x.sum(dtype=np.float64), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS["copy"])
def test_copy(method, dtype, threads):
    for limit in (1, 3):
        threads(limit)
        for size in SIZES:
            for offset in (0, 1, 5):
                x = array(size, 3, dtype)
                memory = np.full(size + offset + 1, -1, dtype)
                assert _core.run_limit(method, x, memory[offset : offset + size]) == 0
                np.testing.assert_array_equal(memory[offset : offset + size], x)
                assert (memory[:offset] == -1).all()
                assert memory[-1] == -1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS["update"])
def test_update_keeps_the_numbers(method, dtype):
    for size in SIZES:
        x = array(size, 1, dtype)
        before = x.copy()
        assert _core.run_limit(method, x, x) == 0
        np.testing.assert_array_equal(x, before)


def test_limits_do_not_follow_the_instruction_set(isa):
    x = np.arange(100, dtype=np.float32)
    assert _core.run_limit("sum", x, None) == 4950
    assert _core.isa() == isa


@pytest.mark.parametrize(
    ("method", "x", "out"),
    [
        ("fly", np.ones(3), None),
        ("sum", np.ones(3), np.ones(3)),
        ("copy", np.ones(3), None),
        ("copy", np.ones(3), np.ones(4)),
        ("copy", np.ones(3), np.ones(3, np.float32)),
        ("copy", np.ones(6)[::2], np.ones(3)),
        ("sum", np.ones(3, np.int64), None),
    ],
)
def test_wrong_arguments(method, x, out):
    with pytest.raises(ValueError, match=r"method|out|x:"):
        _core.run_limit(method, x, out)


def test_read_only_output():
    out = np.ones(3)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: writeable"):
        _core.run_limit("copy", np.ones(3), out)


@pytest.mark.parametrize("size", [6, 7])
def test_16_bit_numbers_are_moved_as_pairs(size):
    x, out = np.arange(size, dtype=np.float16), np.zeros(size, np.float16)
    Host().run_limit("copy", x, out)
    np.testing.assert_array_equal(out[: size // 2 * 2], x[: size // 2 * 2])
