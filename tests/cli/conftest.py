"""The command line under test: in this process, where it is quick, and in one of its own, as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from mlefast.cli import main


def command(*args):
    return [sys.executable, "-m", "mlefast", *(str(arg) for arg in args)]


def environment():
    """The environment of this process, in which standard output is buffered, as it is for users."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys):
    """Run a command in this process."""

    def call(*args):
        with pytest.raises(SystemExit) as leaving:
            main([str(arg) for arg in args])
        return Result(leaving.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def process():
    """Run a command in a process of its own."""

    def call(*args, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        done = subprocess.run(command(*args), text=True, timeout=300, check=False, env=environment(), **options)
        return Result(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def start():
    """Start a command in a process of its own; to be used in a with statement."""

    def call(*args, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        # A shell starts what is put in the background with Ctrl-C ignored, and children inherit that.
        options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        return subprocess.Popen(command(*args), env=environment(), **options)

    return call


@pytest.fixture
def one_line_error(run):
    """Run a command that a user got wrong: one line, status 2; return the line."""

    def call(*args):
        result = run(*args)
        assert result.status == 2, result
        assert result.out == ""
        assert result.err.startswith("mlefast: error: ")
        assert result.err.count("\n") == 1
        assert result.err.endswith("\n")
        return result.err

    return call


@pytest.fixture
def small(tmp_path):
    """A small file of data with two features that tell three classes apart, mostly."""
    random = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = random.standard_normal((60, 4)) + 2 * np.eye(3, 4)[y]
    np.savez(tmp_path / "small.npz", X=X, y=np.array(["ant", "bee", "cow"])[y])
    return tmp_path / "small.npz"
