"""What all commands share: help, errors, interruption; and ``mlefast info``."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlefast as mf
import pytest
from mlefast import model_file
from mlefast.cli import main


def test_help(run):
    result = run("--help")
    assert (result.status, result.err) == (0, "")
    for command in ("train", "evaluate", "predict", "info"):
        assert command in result.out
        assert "Usage" in run(command, "--help").out


def test_help_loads_no_heavy_library():
    code = (
        "import sys\n"
        "from mlefast.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as leaving: status = leaving.code\n"
        "heavy = {'sklearn', 'scipy', 'matplotlib', 'pandas', 'pyarrow', 'PIL', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_version(run):
    assert run("--version") == (0, f"mlefast {mf.__version__}\n", "")


def test_info(run):
    result = run("info")
    assert result.status == 0
    for text in (mf.__version__, str(mf.show_config()["isa"]), "safetensors", "matplotlib", "threading_layer"):
        assert text in result.out


@pytest.mark.parametrize("args", [(), ("fly",), ("train",), ("predict", "m.npz"), ("--fly",), ("info", "surplus")])
def test_usage_errors(one_line_error, args):
    one_line_error(*args)


def test_usage_errors_say_where_help_is(one_line_error):
    assert one_line_error("train").endswith("(see mlefast train --help)\n")


def test_errors_stay_on_one_line(one_line_error):
    assert "absent file" in one_line_error("train", "absent\nfile")


@pytest.mark.parametrize("args", [("train", "absent.csv"), ("train", "iris", "-C", "0"), ("predict", "a.npz", "iris")])
def test_errors_in_a_process_of_its_own(process, args, tmp_path):
    result = process(*args, cwd=tmp_path)
    assert result.status == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_interruption(tmp_path, start):
    args = ["train", "digits", "--solver", "sgd", "--tol", 0, "--max-iter", 1_000_000, "--save", tmp_path / "m.npz"]
    ours, theirs = os.openpty()
    with start(*args, stderr=theirs, start_new_session=True) as child:
        os.close(theirs)
        seen = b""
        while b"epochs" not in seen:  # the progress bar tells that the fit has begun
            seen += os.read(ours, 4096)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # the terminal is closed
            pass
        out, _ = child.communicate(timeout=60)
    os.close(ours)
    assert child.returncode == 130
    assert b"interrupted:" in out
    assert seen.decode().rstrip().endswith("mlefast: interrupted")
    assert b"Traceback" not in seen
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]
    assert model_file.load(tmp_path / "m.npz").metadata["test"]["accuracy"] > 0.9


def test_interruption_before_a_command_runs(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlefast.cli._run", interrupted)
    with pytest.raises(SystemExit) as leaving:
        main(["info"])
    assert leaving.value.code == 130
    assert capsys.readouterr() == ("", "mlefast: interrupted\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_standard_output(process):
    with Path("/dev/full").open("w") as full:
        result = process("train", "iris", "--json", stdout=full)
    assert result == (2, None, "mlefast: error: output: No space left on device\n")


def test_without_typer(monkeypatch, capsys):
    real_import = builtins.__import__

    def without_it(name, *args, **kwargs):
        if name == "typer":
            raise ModuleNotFoundError("No module named 'typer'", name="typer")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_it)
    with pytest.raises(SystemExit) as leaving:
        main(["info"])
    assert leaving.value.code == 2
    assert 'pip install "mlefast[cli]"' in capsys.readouterr().err
