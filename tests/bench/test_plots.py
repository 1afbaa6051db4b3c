"""Drawings of a report show its numbers."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from mlefast.bench import KERNELS, Result, plots


def draw(report):
    figure = plots.draw_report(report)
    figure.savefig(io.BytesIO(), format="png", dpi=20)
    return figure.axes


def line(axes, label):
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return found


def test_speed_against_classes(make_report):
    report = make_report(classes=(1000, 10, 100))
    throughput = draw(report)[0]
    for kernel in ("cross_entropy", "cross_entropy_and_grad"):
        results = {r.case.classes: r for r in report.main() if r.case.kernel == kernel}
        ours = line(throughput, f"{kernel} float32")
        np.testing.assert_array_equal(ours.get_xdata(), [10, 100, 1000])
        name = "mlefast out=" if kernel.endswith("grad") else "mlefast"
        for classes, value in zip(ours.get_xdata(), ours.get_ydata()):
            (series,) = [s for s in results[classes].series if s.name == name]
            assert value == pytest.approx(results[classes].case.bytes_moved / series.median / 1e9)
        limit = line(throughput, f"{kernel} float32: limit")
        np.testing.assert_allclose(limit.get_ydata(), 10, rtol=0.05)
        assert limit.get_linestyle() == "--"
    assert throughput.get_xscale() == "log"
    assert "GB/s" in throughput.get_ylabel()


def test_shapes_that_differ_in_their_rows_alone(make_report):
    throughput = draw(make_report(classes=(10, 1000, 10)))[0]
    np.testing.assert_array_equal(line(throughput, "cross_entropy float32").get_xdata(), [10, 10, 1000])


def test_bars_are_ratios_to_the_fresh_variant(make_report):
    report = make_report()
    peers = draw(report)[1]
    (torch,) = [c for c in peers.containers if c.get_label() == "torch"]
    np.testing.assert_allclose(
        [bar.get_height() for bar in torch], [r.series[-2].ratio(r.of("mlefast")[0]) for r in report.main()]
    )
    assert len(peers.containers) == 1  # who failed has no bar
    assert "1000x10" in peers.get_xticklabels()[0].get_text()


def test_roofline(make_report):
    report = make_report()
    roofline = draw(report)[2]
    points = line(roofline, "cross_entropy float32: mlefast")
    np.testing.assert_allclose(points.get_xdata(), 1 / 4)
    results = [r for r in report.main() if r.case.kernel == "cross_entropy"]
    np.testing.assert_allclose(points.get_ydata(), [r.case.elements / r.series[1].median / 1e9 for r in results])
    roof = line(roofline, "cross_entropy float32: roof").get_ydata()
    assert roof.max() == pytest.approx(2 * 16000 / 4e-6 / 1e9, rel=0.05)  # the kernel in cache, times two threads
    assert roof[0] == pytest.approx(10 / 4 / 8, rel=0.05)  # 10 GB/s, at an eighth of the intensity
    best = line(roofline, "cross_entropy float32: best peer")
    assert (best.get_ydata() < points.get_ydata()).all()


def test_limits_are_drawn_as_they_were_measured(make_report):
    """A call that moves three arrays is held against the copy's bytes per second, not against three halves of them."""
    report = make_report()
    for result in report.main():
        if result.case.kernel == "cross_entropy_and_grad":
            result.case = replace(result.case, kernel="kl_div_and_grad")
    throughput, _, roofline = draw(report)
    limit = line(throughput, "kl_div_and_grad float32: limit")
    np.testing.assert_allclose(limit.get_ydata(), 10, rtol=0.05)
    ours = line(throughput, "kl_div_and_grad float32")
    series = [next(s for s in r.series if s.name == "mlefast out=") for r in report.main() if r.case.kernel[0] == "k"]
    np.testing.assert_allclose(ours.get_ydata(), [1000 * c * 12 / s.median / 1e9 for c, s in zip((10, 1000), series)])
    assert line(roofline, "kl_div_and_grad float32: mlefast").get_xdata()[0] == pytest.approx(1 / 12)
    assert line(roofline, "kl_div_and_grad float32: roof").get_ydata()[0] == pytest.approx(10 / 12 / 8, rel=0.05)


def test_many_kernels_have_colors_of_their_own(make_report):
    report = make_report(classes=(10,))
    (result,) = [r for r in report.main() if r.case.kernel == "cross_entropy_and_grad"]
    gradients = [name for name, kernel in KERNELS.items() if kernel.out]
    report.results = [Result(replace(result.case, kernel=name), result.series) for name in gradients]
    throughput, _, _ = draw(report)
    colors = [line(throughput, f"{name} float32").get_color() for name in gradients]
    assert len({to_rgba(each) for each in colors}) == len(gradients) > 8
    assert len(throughput.get_legend().get_texts()) == 2 * len(gradients)


def test_without_peers_or_cases_from_memory(make_report):
    report = make_report(peers=False)
    report.results = [type(r)(type(r.case)(**{**vars(r.case), "cache": "warm"}), r.series) for r in report.results]
    _, peers, roofline = draw(report)
    assert "no peer" in peers.texts[0].get_text()
    assert "no case" in roofline.texts[0].get_text()


def test_pyplot_is_not_touched():
    code = "import sys, mlefast.bench.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
