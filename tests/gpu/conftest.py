"""These tests need a CUDA device. Without one they are skipped, with the reason."""

from __future__ import annotations

import pytest

try:
    import cupy
except ImportError:
    cupy = None

REASON = (
    "CuPy is not installed (pip install 'mlefast[cuda12]' or 'mlefast[cuda13]')"
    if cupy is None
    else None
    if cupy.is_available()
    else "CuPy finds no CUDA device"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REASON is None:
        return
    here = [item for item in items if "tests/gpu" in item.path.as_posix()]
    for item in here:
        item.add_marker(pytest.mark.skip(reason=f"{REASON}: one of {len(here)} tests of a real GPU"))
