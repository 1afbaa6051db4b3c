"""Fits that are killed, interrupted, diverge or go on from what is there: nothing is lost, nothing is half."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlefast import data, model_file
from mlefast._files import open_atomically
from mlefast.cli.fitting import FitOptions, fit
from mlefast.estimators.checkpoint import Checkpoint
from sklearn.datasets import load_digits

KILLS = int(os.environ.get("MLEFAST_TEST_KILLS", "1"))  # of each fit; CI asks for more
CASES = {
    "sgd": "digits --solver sgd --max-iter 120 --tol 0",
    "adamw": "digits --solver adamw --schedule cosine --max-iter 120 --tol 0",
    "lbfgs": "breast_cancer --no-standardize --penalty none --max-iter 700 --tol 0",
    "newton-cg": "digits --solver newton-cg --penalty none --max-iter 300 --tol 0",
    "mlp": "digits --model mlp --hidden 32 --dropout 0.3 --early-stopping --schedule adaptive --max-iter 250 --tol 0",
    "stream": "{digits} --stream --model mlp --hidden 16 --dropout 0.3 --max-iter 60 --tol 0",
}


@pytest.fixture
def digits(tmp_path):
    bunch = load_digits()
    np.save(tmp_path / "X.npy", bunch.data.astype(np.float32))
    np.save(tmp_path / "y.npy", bunch.target)
    return tmp_path / "X.npy"


def state_of(folder):
    """When a checkpoint was last written, and how many epochs or bytes it holds; (0, 0) without one."""
    log, saved = folder / "evaluations.bin", folder / "checkpoint.npz"
    if log.exists():
        return log.stat().st_mtime_ns, log.stat().st_size
    if not saved.exists():
        return 0, 0
    with np.load(saved) as archive:
        state = json.loads(str(archive["header"]))["state"]
    epochs = state["progress"]["epoch"] if "progress" in state else len(state.get("loss_curve", ()))
    return saved.stat().st_mtime_ns, epochs


@pytest.mark.parametrize("case", CASES)
def test_killed_fits_go_on_to_the_same_bits(process, start, tmp_path, digits, case):
    command = CASES[case].format(digits=digits).split()
    folder, models = tmp_path / "state", [tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"]
    whole = process("train", *command, "--save", models[0], "--quiet")
    assert whole == (0, "", "")

    random = np.random.default_rng(sum(case.encode()))
    command += ["--save", models[1], "--quiet", "--checkpoint", folder, "--resume"]
    killed_within = 0
    for i in range(KILLS + 5):
        before, progress = state_of(folder)
        with start("train", *command) as child:
            deadline = time.monotonic() + 60
            if i == 1:  # somewhere before the fit
                deadline = time.monotonic() + random.uniform(0, 1)
            while state_of(folder)[0] == before and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            if i > 0:  # the first is killed as soon as there is something to go on from: a fit may be short
                time.sleep(random.uniform(0, 0.15))
            child.kill()
            out, err = child.communicate(timeout=60)
        assert (child.returncode, out, err) in ((-signal.SIGKILL, b"", b""), (0, b"", b""))
        after = state_of(folder)[1]
        assert after >= progress  # what was saved stays
        if models[1].exists():  # the fit was faster: killed, if at all, on its way out
            assert models[1].read_bytes() == models[0].read_bytes()
            if killed_within:
                break
            models[1].unlink()
            shutil.rmtree(folder)
        else:
            assert child.returncode != 0
            killed_within += after > progress
        if killed_within and i + 1 >= KILLS:
            break
    assert killed_within >= 1
    assert process("train", *command) == (0, "", "")
    first, second = (model_file.load(path) for path in models)
    assert second.metadata == first.metadata
    assert models[1].read_bytes() == models[0].read_bytes()


@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_no_more_than_the_epoch_in_flight_is_lost(tmp_path, solver):
    """When an epoch is told of, it is on the disk."""
    saved = []

    def look(epoch, objective):
        saved.append((epoch, state_of(tmp_path / "state")[1]))

    options = FitOptions(solver, "l2", 1.0, 12, 0.0, None, None, True, 0)
    fit(data.load("iris"), options, look, checkpoint=tmp_path / "state")
    assert saved == [(epoch, epoch) for epoch in range(1, 13)]


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_a_whole_fit_is_not_done_again(run, tmp_path, solver):
    command = ("train", "iris", "--solver", solver, "--checkpoint", tmp_path / "state", "--resume", "--json")
    first, again = (json.loads(run(*command).out) for _ in range(2))
    assert again["loss_curve"] == first["loss_curve"]
    assert again["test"] == first["test"]


@pytest.mark.parametrize("case", ["sgd", "lbfgs", "newton-cg", "mlp", "stream"])
def test_ctrl_c_saves_the_model_so_far(start, run, tmp_path, digits, case):
    folder, model = tmp_path / "state", tmp_path / "m.npz"
    command = [*CASES[case].format(digits=digits).split(), "--checkpoint", folder, "--resume"]
    if case not in ("lbfgs", "newton-cg"):
        command[command.index("--max-iter") + 1] = "100000"
    with start("train", *command, "--save", model) as child:
        while state_of(folder)[1] == 0:
            time.sleep(0.005)
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, b"mlefast: interrupted\n")
    assert b"interrupted:" in out
    loaded = model_file.load(model)
    assert loaded.metadata["iterations"] >= 1
    # The checkpoint is there, too, and is gone on from.
    command[command.index("--max-iter") + 1] = str(loaded.metadata["iterations"] + 3)
    assert run("train", *command, "--quiet").status == 0


# Between opening a file and assigning it, Python loses it, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_a_checkpoint_is_saved(tmp_path):
    """At whichever line of the libraries it comes: it stays Ctrl-C, and what is on the disk is whole."""

    def interrupt_at(line):
        left = line

        def trace(frame, event, argument):
            nonlocal left
            left -= event == "line"
            if left == 0 and event == "line":
                signal.raise_signal(signal.SIGINT)
            return trace

        sys.settrace(trace)
        try:
            checkpoint.save({"weights": np.ones(3), "moments": np.ones(3)}, {"epoch": line})
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    before, handler = sys.gettrace(), signal.signal(signal.SIGINT, signal.default_int_handler)
    checkpoint = Checkpoint(tmp_path, resume=False, fingerprint={})
    try:
        checkpoint.save({"weights": np.ones(3), "moments": np.ones(3)}, {"epoch": 0})
        lines = 0
        while interrupt_at(lines + 1):
            lines += 1
            saved = Checkpoint(tmp_path, resume=True, fingerprint={}).saved
            assert 0 <= saved.state["epoch"] <= lines
            assert [*saved.arrays] == ["weights", "moments"]
    finally:
        signal.signal(signal.SIGINT, handler)
    assert lines > 200  # those of zipfile among them
    assert not list(tmp_path.glob("*.tmp"))


def test_checkpoints_that_do_not_fit(one_line_error, run, tmp_path, small):
    folder, model = tmp_path / "state", tmp_path / "m.npz"
    command = ("train", small, "--solver", "sgd", "--max-iter", 3, "--checkpoint", folder, "--save", model)
    assert run(*command, "--quiet").status == 0
    model.unlink()
    assert "--resume" in one_line_error(*command)  # there is one already
    assert "C=" in one_line_error(*command, "--resume", "-C", 2)
    assert str(folder) in one_line_error(*command, "--resume", "--seed", 2)
    assert str(folder) in one_line_error("train", "iris", *command[2:], "--resume")
    saved = folder / "checkpoint.npz"
    content = saved.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"junk" * 99):
        saved.write_bytes(damaged)
        assert f"cannot read {saved}" in one_line_error(*command, "--resume")
    (tmp_path / "file").write_text("")
    assert "file" in one_line_error(*command[:-4], "--checkpoint", tmp_path / "file" / "state")
    assert not model.exists()


def test_streams_that_have_changed(one_line_error, run, tmp_path, digits):
    command = ("train", digits, "--stream", "--max-iter", 2, "--checkpoint", tmp_path / "state", "--quiet")
    assert run(*command).status == 0
    assert run(*command, "--resume", "--max-iter", 3).status == 0
    assert "accepted: the data and options of that fit" in one_line_error(*command, "--resume", "--no-standardize")
    np.save(digits, np.load(digits) + np.float32(1))
    assert "accepted: the data and options of that fit" in one_line_error(*command, "--resume")


@pytest.mark.parametrize(
    "options", [("--solver", "sgd"), ("--solver", "sgd", "--model", "mlp"), ("--solver", "sgd", "--stream")]
)
def test_divergence(one_line_error, tmp_path, digits, options):
    model = tmp_path / "m.npz"
    rate = ("--learning-rate", "1e30", "--no-standardize", "--max-iter", 50)
    line = one_line_error("train", digits, *options, *rate, "--save", model)
    assert "--learning-rate" in line  # what to try
    assert "smaller" in line
    assert "epoch 1, step " in line
    assert not model.exists()


def test_divergence_leaves_the_last_checkpoint(one_line_error, run, tmp_path, digits):
    folder, model = tmp_path / "state", tmp_path / "m.npz"
    command = ("train", digits, "--solver", "sgd", "--model", "mlp", "--no-standardize", "--save", model)
    command += ("--learning-rate", "1e30", "--checkpoint", folder, "--resume")
    assert "epoch 1" in one_line_error(*command)
    assert "epoch 1" in one_line_error(*command)  # it is not the checkpoint that is wrong
    assert not model.exists()


def test_files_are_on_the_disk_before_they_are_there(monkeypatch, tmp_path):
    """What the system is asked for: write, flush the file, rename, flush the folder."""
    done = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def replace(self, target):
        done.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    with open_atomically(tmp_path / "a") as file:
        file.write(b"content")
    assert done == ["file", "rename", "folder"]
    assert (tmp_path / "a").read_bytes() == b"content"
