"""Regressions are told from noise, on made-up samples whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast.bench import BenchError
from mlefast.bench.compare import RATE, compare, p_change

KERNELS = 9  # series of mlefast in a made-up report, the roof included


def verdicts(new, old, **options):
    return [each.verdict for each in compare(new, old, **options)]


def test_noise_is_no_change(make_report):
    found = [verdict for seed in range(30) for verdict in verdicts(make_report(seed), make_report(seed + 1000))]
    assert len(found) == 30 * KERNELS
    assert set(found) == {"no difference"}


def test_noise_without_a_margin_stays_within_the_rate(make_report):
    """With no least effect the test has nothing but its rate: about 1 in 100 runs has a false verdict."""
    wrong = sum(
        set(verdicts(make_report(seed), make_report(seed + 1000), effect=0.0)) != {"no difference"}
        for seed in range(150)
    )
    assert wrong <= 6  # of 150 runs; 1.5 are expected at most, more than 6 happen once in 1000 times


def test_p_values_of_noise_are_uniform():
    random = np.random.default_rng(0)
    p = [p_change([random.lognormal(size=30)], [random.lognormal(size=30)], 0.0)[0] for _ in range(2000)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean(p) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_a_slower_kernel_is_found(make_report, spread):
    for seed in range(10):
        old = make_report(seed, spread=spread)
        assert set(verdicts(make_report(seed + 1000, slowdown=1.12, spread=spread), old)) == {"slower"}
        assert set(verdicts(make_report(seed + 1000, slowdown=0.88, spread=spread), old)) == {"faster"}


def test_a_change_below_the_least_effect_is_none(make_report):
    for seed in range(10):
        old = make_report(seed, spread=0.001)
        new = make_report(seed + 1000, slowdown=1.03, spread=0.001)
        assert set(verdicts(new, old)) == {"no difference"}
        assert set(verdicts(new, old, effect=0.01)) == {"slower"}


@pytest.mark.parametrize("drift", [0.7, 1.3])
def test_a_machine_in_another_mood_is_no_change(make_report, drift):
    """All but the roof have a limit that drifts with them."""
    found = compare(make_report(1, drift=drift), make_report(2))
    assert {each.verdict for each in found} == {"no difference"}
    assert found[0].change == pytest.approx(drift - 1, abs=0.05)
    assert found[0].relative_change == pytest.approx(0, abs=0.05)


def test_a_faster_memory_alone_is_no_regression(make_report):
    new = make_report(1)
    for result in new.results:
        for limit in result.of("limit"):
            limit.seconds = [0.7 * each for each in limit.seconds]
    assert set(verdicts(new, make_report(2))) == {"no difference"}


def test_one_slow_kernel_among_many(make_report):
    new, old = make_report(1), make_report(2)
    slow = new.results[2].of("mlefast")[1]
    slow.seconds = [1.2 * each for each in slow.seconds]
    found = compare(new, old)
    assert [each.name for each in found if each.verdict == "slower"] == ["mlefast out="]
    assert all(each.verdict == "no difference" for each in found if each.name != "mlefast out=")
    assert all(each.p <= RATE for each in found if each.verdict == "slower")


def test_too_few_samples_are_called_so(make_report):
    assert set(verdicts(make_report(1, n=3, slowdown=2.0), make_report(2, n=3))) == {"too few samples"}
    assert set(verdicts(make_report(1, n=8, slowdown=2.0), make_report(2, n=8))) == {"slower"}


def test_only_what_both_have(make_report):
    found = compare(make_report(1, classes=(10, 1000)), make_report(2, classes=(1000, 5000)))
    assert {each.case.classes for each in found} == {1000}
    assert len(found) == 5
    new, old = make_report(1, classes=(10,)), make_report(2, classes=(20,))
    new.results.pop()  # the roof
    with pytest.raises(BenchError, match="no measurement in common"):
        compare(new, old)


def test_other_processors_are_refused(make_report):
    with pytest.raises(BenchError, match="measured on Loom, the new one on Abacus 3"):
        compare(make_report(1), make_report(2, processor="Loom"))


def test_limits_seen_in_some_rounds_only(make_report):
    new = make_report(1)
    limit = new.results[0].of("limit")[0]
    limit.seconds, limit.rounds = limit.seconds[::3], limit.rounds[::3]
    assert set(verdicts(new, make_report(2))) == {"no difference"}
