"""Threads: the same bits for any number of them, the settings that limit them, forks, callers in many threads."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cases
import mlefast as mf
import numpy as np
import pytest
import threadpoolctl

SHAPES = [(200_000, 2), (30_000, 10), (3_000, 100), (700, 1000), (40, 20_000), (3, 300_000), (1, 1_000_003)]


def results(x, y, axis):
    loss, gradient = mf.cross_entropy_and_grad(x, y, axis=axis, ignore_index=1)
    losses = mf.cross_entropy(x, y, axis=axis, reduction="none")
    return [
        a.tobytes()
        for a in (loss, gradient, losses, mf.softmax(x, axis), mf.log_softmax(x, axis), mf.logsumexp(x, axis))
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("axis", [1, 0])
def test_same_bits_for_any_number_of_threads(threads, shape, dtype, axis):
    x = cases.rows("ordinary", *shape, dtype)
    y = cases.targets(x)
    if axis == 0:
        x = np.ascontiguousarray(x.T)
    threads(1)
    want = results(x, y, axis)
    for n in (2, 3, 8):
        threads(n)
        for _ in range(2):
            assert results(x, y, axis) == want


@pytest.mark.parametrize("n", [3, 131, 200])
def test_same_sum_where_threads_outnumber_rows(threads, n):
    """Threads that share rows add their losses as threads do that have rows of their own."""
    x = cases.rows("ordinary", 130, 20_000, np.float64)
    y = cases.targets(x)
    threads(1)
    want = mf.cross_entropy(x, y, reduction="sum")
    threads(n)
    assert mf.cross_entropy(x, y, reduction="sum") == want


def test_set_num_threads(threads):
    default = mf.get_num_threads()
    threads(3)
    assert mf.get_num_threads() == 3
    assert mf.show_config()["num_threads"] == 3
    threads(None)
    assert mf.get_num_threads() == default
    for bad, error in ((0, ValueError), (-1, ValueError), (2**40, ValueError), (1.5, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="^threads: received"):
            mf.set_num_threads(bad)
    assert mf.get_num_threads() == default


def python(code, **environment):
    """Run code in a new process; its standard output, and standard error if it fails."""
    cleared = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MLEFAST_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**cleared, **environment}, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def test_environment():
    ask = "import mlefast; print(mlefast.get_num_threads())"
    available = len(os.sched_getaffinity(0))
    assert 1 <= int(python(ask)) <= available
    assert python(ask, OMP_NUM_THREADS="1") == "1"
    assert python(ask, OMP_NUM_THREADS="5") == "5"
    assert python(ask, MLEFAST_NUM_THREADS="1") == "1"
    assert python(ask, MLEFAST_NUM_THREADS="1", OMP_NUM_THREADS="7") == "1"
    assert python(f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}]); {ask}") == "1"
    for bad in ("0", "-2", "two", "1.5", "", "99999999999"):
        assert f"ImportError: MLEFAST_NUM_THREADS='{bad}' is not a positive integer" in python(
            ask, MLEFAST_NUM_THREADS=bad
        )


@pytest.mark.skipif(mf.show_config()["threading_layer"] == "none", reason="this build has no OpenMP")
def test_threadpoolctl_sees_and_limits_us(threads):
    threads(None)
    before = mf.get_num_threads()
    assert any(pool["user_api"] == "openmp" for pool in threadpoolctl.threadpool_info())
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        assert mf.get_num_threads() == 1
        threads(4)
        assert mf.get_num_threads() == 1
    assert mf.get_num_threads() == 4
    threads(None)
    assert mf.get_num_threads() == before


def _in_child(x, y, queue):
    queue.put((float(mf.cross_entropy_and_grad(x, y)[0]), mf.get_num_threads()))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork(threads):
    """OpenMP's threads do not survive a fork: a child that waits for them would wait for ever."""
    x = cases.rows("ordinary", 2000, 100, np.float32)
    y = cases.targets(x)
    threads(2)
    want = float(mf.cross_entropy_and_grad(x, y)[0])  # now there are threads to lose
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_in_child, args=(x, y, queue)) for _ in range(3)]
    for child in children:
        child.start()
    answers = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    assert answers == [(want, 1)] * 3
    assert float(mf.cross_entropy_and_grad(x, y)[0]) == want


def test_callers_in_many_threads(threads):
    threads(2)
    x = cases.rows("ordinary", 3000, 50, np.float32)
    y = cases.targets(x)
    want = results(x, y, 1)
    with ThreadPoolExecutor(8) as pool:
        assert all(got == want for got in pool.map(lambda _: results(x, y, 1), range(40)))


def test_the_interpreter_runs_on_during_a_call(threads):
    """The GIL is released: another thread counts on while a long call is under way."""
    threads(1)
    code = """
import json, threading, time, numpy as np, mlefast as mf
mf.set_num_threads(1)
x = np.zeros((40, 1_000_000), np.float32)
done, counted = threading.Event(), 0
def call():
    mf.logsumexp(x)
    done.set()
thread = threading.Thread(target=call)
thread.start()
while not done.is_set():
    counted += 1
    time.sleep(0.0005)
print(json.dumps(counted))
"""
    assert json.loads(python(code)) >= 5
