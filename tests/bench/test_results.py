"""Medians, ratios, shares of the limit; JSON there and back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from mlefast.bench import BenchError, Case, Report, Result, Series


def series(seconds, rounds=None, **options):
    return Series(
        "x", "mlefast", seconds=seconds, rounds=list(range(len(seconds))) if rounds is None else rounds, **options
    )


def test_median_and_spread():
    each = series([1.0, 2.0, 3.0, 4.0, 100.0])
    assert each.median == 3
    assert each.spread == pytest.approx(1 / 3)
    assert np.isnan(Series("x", "peer").median)
    assert np.isnan(Series("x", "peer").spread)


def test_ratios_are_taken_round_by_round():
    drifting = [1.0, 2.0, 4.0, 8.0]
    a, b = series([3 * x for x in drifting]), series(drifting)
    assert a.ratio(b) == 3
    rarely = series([3 * drifting[3]], rounds=[3])
    assert rarely.ratio(b) == 3
    assert b.ratio(rarely) == pytest.approx(1 / 3)
    assert np.isnan(series([1.0], rounds=[9]).ratio(b))


def limit(kind, seconds):
    return Series(kind, "limit", kind, seconds=[seconds], rounds=[0])


def test_the_limit_that_a_variant_is_held_against():
    copy, update = limit("copy", 2.0), limit("update", 1.0)
    fresh, out, inplace = (series([4.0], kind=kind) for kind in ("fresh", "out", "inplace"))
    case = Case("softmax", 10, 10, "float32", 1)
    result = Result(case, [copy, update, fresh, out, inplace])
    assert result.limit_of(out) is copy
    assert result.share(fresh) == 0.5
    assert result.share(inplace) == 0.25
    assert Result(case, [limit("copy", 0.5), update, inplace]).share(inplace) == 0.125
    reading = Case("logsumexp", 10, 10, "float32", 1)
    assert Result(reading, [limit("read", 1.0), fresh]).share(fresh) == 0.25
    assert np.isnan(Result(reading, [fresh]).share(fresh))


def test_bytes_that_must_be_moved():
    assert Case("cross_entropy", 10, 20, "float32", 1).bytes_moved == 800
    assert Case("cross_entropy_and_grad", 10, 20, "float64", 1).bytes_moved == 3200
    assert Case("softmax", 10, 20, "bfloat16", 1).bytes_moved == 800


def test_json_there_and_back(make_report, tmp_path):
    report = make_report()
    path = tmp_path / "report.json"
    report.save(path)
    loaded = Report.load(path)
    assert dataclasses.asdict(loaded) == dataclasses.asdict(report)
    assert isinstance(loaded.results[0].case, Case)
    record = json.loads(path.read_text())
    assert record["machine"]["caches"]["last"] == 33554432
    assert len(record["results"][0]["series"][0]["seconds"]) == 30


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.update(format=99),
        lambda record: record.pop("machine"),
        lambda record: record["machine"].pop("processor"),
        lambda record: record["results"][0]["case"].update(kernel="fly"),
        lambda record: record["results"][0]["case"].update(surplus=1),
        lambda record: record["results"][0]["series"][0].update(group="fly"),
        lambda record: record["results"][0]["series"][0]["seconds"].pop(),
        lambda record: record["results"][0]["series"][0]["seconds"].__setitem__(0, -1.0),
        lambda record: record["results"][0]["series"][0]["seconds"].__setitem__(0, "fast"),
        lambda record: record.update(results=None),
    ],
)
def test_damaged_files(make_report, tmp_path, damage):
    path = tmp_path / "report.json"
    make_report().save(path)
    record = json.loads(path.read_text())
    damage(record)
    path.write_text(json.dumps(record))
    with pytest.raises(BenchError, match=r"report\.json"):
        Report.load(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"\xff\xfe", b"{"])
def test_other_files(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"other\.json"):
        Report.load(path)
    with pytest.raises(BenchError, match=r"absent\.json cannot be read"):
        Report.load(tmp_path / "absent.json")
