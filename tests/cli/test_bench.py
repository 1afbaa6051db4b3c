"""``mlefast bench``: what it prints and writes, and what it refuses. No test depends on a time."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import asdict

import mlefast as mf
import pytest
from mlefast.bench import KERNELS, Report
from mlefast.bench.peers import PEERS

SMALL = ("--shape", "20x30", "--samples", 3, "--seconds", 0.01, "--cache", "warm")


def test_everything_on_a_small_case(run, tmp_path):
    path, plot = tmp_path / "run.json", tmp_path / "run.png"
    result = run("bench", *SMALL, "--kernel", "all", "--peers", "numpy,scipy", "--json", path, "--plot", plot)
    assert (result.status, result.err) == (0, "")
    for text in ("softmax float32 20x30", "warm (in cache)", "copy limit: ", "mlefast in place", "scipy", "of limit"):
        assert text in result.out
    assert plot.read_bytes().startswith(b"\x89PNG")
    report = Report.load(path)
    kernels = [r.case.kernel for r in report.main()]
    assert kernels == list(KERNELS)
    assert kernels[:5] == ["logsumexp", "softmax", "log_softmax", "cross_entropy", "cross_entropy_and_grad"]
    for each in report.main():
        names = [s.name for s in each.series if s.group != "limit"]
        ours = (
            ["mlefast", "mlefast out=", "mlefast in place"]
            if re.search("softmax|and_grad|hvp", each.case.kernel)
            else ["mlefast"]
        )
        assert names == [*ours, "numpy", "scipy"]
        measured = [s for s in each.series if s.error != f"has no {each.case.kernel}" or s.group != "peer"]
        assert len(measured) == len(each.series) or each.case.kernel not in kernels[:5]
        assert all(len(s.seconds) == 3 and s.rounds == [0, 1, 2] for s in measured)
    assert report.machine["mlefast"] == mf.show_config()
    assert report.settings["rounds"] == 3


def test_choices(run, tmp_path):
    path = tmp_path / "run.json"
    isas = mf.show_config()["isas"]
    args = ("--isa", "all", "--dtype", "float32,float64", "--threads", "1,2", "--variant", "out", "--peers", "none")
    result = run("bench", *SMALL, *args, "--kernel", "softmax", "--quiet", "--json", path)
    assert result == (0, "", "")
    report = Report.load(path)
    assert [(r.case.threads, r.case.dtype) for r in report.main()] == [
        (1, "float32"), (1, "float64"), (2, "float32"), (2, "float64"),
    ]  # fmt: skip
    for each in report.main():
        assert [s.isa for s in each.of("mlefast")] == isas
        assert {s.kind for s in each.of("mlefast")} == {"out"}
        assert [s.kind for s in each.of("limit")] == ["copy"]
        assert each.of("peer") == []
    assert mf.show_config()["isa"] in isas


def test_patterns(run, tmp_path):
    path = tmp_path / "run.json"
    names = "*_and_grad:s*,entropy,*vjp,log_softmax_vjp"
    assert run("bench", *SMALL, "--kernel", names, "--peers", "none", "--quiet", "--json", path) == (0, "", "")
    assert [r.case.kernel for r in Report.load(path).main()] == [
        "cross_entropy_and_grad:softcap", "entropy", "softmax_vjp", "log_softmax_vjp",
    ]  # fmt: skip


def test_sweep(run, tmp_path):
    path = tmp_path / "run.json"
    args = ("--classes", "2..9", "--kernel", "logsumexp", "--samples", 3, "--seconds", 0.01, "--quiet", "--json", path)
    assert run("bench", *args) == (0, "", "")
    cases = [r.case for r in Report.load(path).main()]
    assert [c.classes for c in cases] == [2, 3, 4, 5, 7, 8, 9]
    assert all(c.elements > 1 << 22 for c in cases)


def test_absent_peers_are_listed(run, monkeypatch):
    ghost = type(PEERS["numpy"])("ghost", ("ghost",), ("ghost_library",), ("numpy",), lambda *_: None)
    for name in list(PEERS):
        monkeypatch.delitem(PEERS, name)
    monkeypatch.setitem(PEERS, "ghost", ghost)
    result = run("bench", *SMALL, "--kernel", "cross_entropy")
    assert result.status == 0
    assert "absent: ghost (ghost_library not installed)" in result.out


def test_peers_that_fail_are_listed(run, monkeypatch):
    def breaks(case, sets):
        raise OSError("out of order")

    monkeypatch.setitem(PEERS, "numpy", type(PEERS["numpy"])("numpy", ("numpy",), ("numpy",), ("numpy",), breaks))
    result = run("bench", *SMALL, "--kernel", "logsumexp", "--peers", "numpy,scikit-learn")
    assert result.status == 0
    assert "numpy: OSError: out of order" in result.out
    assert "scikit-learn: has no logsumexp" in result.out


def test_load_prints_and_draws_without_measuring(run, make_report, tmp_path, monkeypatch):
    monkeypatch.setattr("mlefast.bench.run", None)
    path = tmp_path / "old.json"
    report = make_report()
    report.save(path)
    torch, ours = (next(s for s in report.results[0].series if s.name == name) for name in ("torch", "mlefast"))
    result = run("bench", "--load", path, "--plot", tmp_path / "old.svg", "--json", tmp_path / "copy.json")
    assert result.status == 0
    assert f"{torch.ratio(ours):.2f}" in result.out
    for text in ("Abacus 3", "torch 2.13.0", "sloth: RuntimeError: asleep", "absent: jax (jax not installed)"):
        assert text in result.out
    assert "<svg" in (tmp_path / "old.svg").read_text()
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads(path.read_text())


def test_compare(run, make_report, tmp_path):
    old, same, slow = (tmp_path / name for name in ("old.json", "same.json", "slow.json"))
    make_report(1).save(old)
    make_report(2, drift=1.1).save(same)
    make_report(3, slowdown=1.3).save(slow)
    result = run("bench", "--load", same, "--compare", old)
    assert result.status == 0
    assert result.out.count("no difference") == 9
    result = run("bench", "--load", slow, "--compare", old, "--quiet")
    assert result.status == 1
    assert result.out.count("slower") == 9
    assert run("bench", "--load", slow, "--compare", old, "--effect", 50, "--quiet") == (0, "", "")


def test_compare_refuses_another_processor(one_line_error, make_report, tmp_path):
    make_report(1).save(tmp_path / "old.json")
    make_report(2, processor="Loom").save(tmp_path / "new.json")
    assert "Loom" in one_line_error(
        "bench", "--load", tmp_path / "new.json", "--compare", tmp_path / "old.json", "--quiet"
    )


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here")
def test_backend_that_is_not_there(one_line_error):
    assert "needs CuPy" in one_line_error("bench", *SMALL, "--backend", "cupy")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--kernel", "fly"), "--kernel"),
        (("--kernel", ""), "--kernel"),
        (("--kernel", "fly*"), "--kernel"),
        (("--kernel", "cross_entropy:sideways"), "cross_entropy:softcap, "),
        (("--kernel", "cross_entropy,*:sideways"), "'*:sideways' is none of logsumexp, "),
        (("--shape", "10"), "--shape"),
        (("--shape", "0x10"), "--shape"),
        (("--shape", "10x-1"), "--shape"),
        (("--shape", "1000000x1000000"), "--shape"),
        (("--classes", "9..2"), "--classes"),
        (("--classes", "1..9"), "--classes"),
        (("--classes", "ten"), "--classes"),
        (("--dtype", "int8"), "--dtype"),
        (("--variant", "sideways"), "--variant"),
        (("--peers", "abacus"), "--peers"),
        (("--peers", "cupyx"), "--peers"),
        (("--threads", "0"), "--threads"),
        (("--threads", "1,two"), "--threads"),
        (("--isa", "mmx"), "--isa"),
        (("--backend", "abacus"), "--backend"),
        (("--cache", "tepid"), "--cache"),
        (("--samples", "1"), "--samples"),
        (("--seconds", "0"), "--seconds"),
        (("--json", "run.txt"), "--json"),
        (("--json", "absent/run.json"), "--json"),
        (("--plot", "run.gif"), "--plot"),
        (("--compare", "absent.json"), "absent.json"),
        (("--load", "absent.json"), "absent.json"),
    ],
)
def test_wrong_arguments(one_line_error, args, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named in one_line_error("bench", *args)


def test_reports_are_not_overwritten_by_their_comparison(one_line_error, make_report, tmp_path):
    path = tmp_path / "old.json"
    make_report().save(path)
    before = asdict(Report.load(path))
    assert "--json" in one_line_error("bench", "--compare", path, "--json", path)
    assert asdict(Report.load(path)) == before
