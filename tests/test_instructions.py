"""The guard of instruction counts: what it passes and what it does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def instructions():
    spec = importlib.util.spec_from_file_location("instructions", ROOT / "tools/instructions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("got", "want", "fine", "said"),
    [
        (1000, 1000, True, "+0.0%"),
        (1019, 1000, True, "+1.9%"),
        (981, 1000, True, "-1.9%"),
        (1021, 1000, False, "2% above"),
        (979, 1000, False, "fewer"),
        (5, None, True, "nothing was recorded"),
    ],
)
def test_verdict(instructions, got, want, fine, said):
    passed, line = instructions.verdict("a job", got, want)
    assert passed == fine
    assert said in line
    assert line.startswith(f"a job: {got} instructions")


def test_record(instructions):
    """Whatever is recorded is of jobs that are still counted."""
    record = json.loads(instructions.RECORD.read_text())
    jobs = {f"{task} {dtype} {rows}x{classes}" for task, dtype, rows, classes in instructions.JOBS}
    for counts in record.values():
        assert {name.rpartition(" ")[0] for name in counts} == jobs
        assert all(isinstance(number, int) and number > 0 for number in counts.values())
