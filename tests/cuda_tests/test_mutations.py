"""The tests can fail: each of these changes to the kernels or the rules is found, by a result or by the emulator."""

from __future__ import annotations

import cases
import numpy as np
import pytest
import reference
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast, Schedule
from cuda_tests.kernel_cases import at_offset, force, needs_emulator, rows

pytestmark = needs_emulator
inf, nan = np.inf, np.nan

# regime, what stands in the source, what is put in its place
MUTATIONS = {
    "no guard for blocks of -inf": (
        "resident",
        "Ops::select(Ops::equal(max, -Ops::infinity()), Ops::set(0), max)",
        "max",
    ),
    "merge without the equal case": (
        "streamed",
        "Ops::select(Ops::equal(from, to), Ops::set(1), Ops::exp(from - to))",
        "Ops::exp(from - to)",
    ),
    "merge forgets the loser's maximum": ("streamed", "+ Ops::min(to_a, to_b)", ""),
    "merge with the scales exchanged": (
        "split",
        "a.others * to_a + b.others * to_b",
        "a.others * to_b + b.others * to_a",
    ),
    "a warp's sum over half of its lanes": (
        "resident",
        "for (int distance = group / 2; distance > 0; distance /= 2) x +=",
        "for (int distance = group / 4; distance > 0; distance /= 2) x +=",
    ),
    "every lane leaves out a maximum": (
        "resident",
        "split.winners - (lane == elected)",
        "split.winners - (split.winners > 0)",
    ),
    "no lane leaves one out": ("resident", "split.winners - (lane == elected)", "split.winners"),
    "ties count once": ("packed", "split.winners > 0 ? split.winners - 1 : 0", "0"),
    "no entry at the target": ("resident", "Store::store(out + target.index, settled.at_target);", ";"),
    "no entry at the target, few classes": ("packed", "target.index >= 0) mine[lane * slot", "false) mine[lane * slot"),
    "no entry at the target, long rows": ("streamed", "Store::store(out + index, entry);", ";"),
    "the target's entry at its neighbour": (
        "resident",
        "Store::store(out + target.index,",
        "Store::store(out + (target.index ^ 1),",
    ),
    "labels below 0 are taken": (
        "resident",
        "y >= 0 && y < call.classes && !target.ignored",
        "y < call.classes && !target.ignored",
    ),
    "labels beyond the classes are taken": (
        "resident",
        "y >= 0 && y < call.classes && !target.ignored",
        "y >= 0 && !target.ignored",
    ),
    "wrong labels are ignored": ("resident", "target.logit = target.scale = Ops::nan();", ""),
    "ignored rows are computed": ("resident", "target.ignored = y == call.ignore_index;", ""),
    "ignored rows are not written": ("streamed", "Row::write_zeros(in, out);\n", "\n"),
    "ignored rows weigh in the mean": ("packed", "if (y == ignore_index) continue;", ""),
    "the mean divides by the number of rows": (
        "packed",
        "sum += weight ? static_cast<double>(weight[y]) : 1.0;",
        "sum += 1.0;",
    ),
    "the weight is left out of the gradient": ("resident", "target.scale *= target.weight;", ""),
    "the weight is left out of the loss": (
        "resident",
        "Task::value(row, target.logit) * target.weight",
        "Task::value(row, target.logit)",
    ),
    "one upstream factor for all rows": ("resident", "call.upstream[row * call.upstream_row]", "call.upstream[0]"),
    "the tail of a row is missing": (
        "streamed",
        "return (n_ + skew_ + lanes - 1) / lanes;",
        "return (n_ + skew_) / lanes;",
    ),
    "the head of a row is taken for a whole vector": (
        "resident",
        "if (i >= 0 && i + lanes <= n_) return",
        "if (i + lanes <= n_) return",
    ),
    "padding counts as a logit": ("resident", "v[j] = -Store::Ops::infinity();", "v[j] = Store::Ops::set(0);"),
    "a vector is stored to any address": (
        "resident",
        "(reinterpret_cast<unsigned long long>(to + i) & 15) == 0",
        "true",
    ),
    "a warp's part is not rescaled": ("block", "settled.factor *= rules::rescale<Ops>(part.max, whole.max);", ""),
    "a barrier is missing": (
        "block",
        "max[warp] = part.max, others[warp] = part.others;\n  __syncthreads();",
        "max[warp] = part.max, others[warp] = part.others;\n",
    ),
    "the target's logit is read late": (
        "split",
        "target.logit = segments.logit[row];",
        "target.logit = Storage<T>::load(call.x + row * call.x_row + target.index);",
    ),
    "a segment too few": ("split", "s < segments.count", "s < segments.count - 1"),
    "staged vectors are kept one off": ("staged", "keep[k + u * block] = raw[u]", "keep[k + u * block] = raw[0]"),
    "half of the partial sums are left out": (
        "packed",
        "double sum = 0;\n  for (int64 i = begin + threadIdx.x; i < end; i += block) sum += partial[i];",
        "double sum = 0;\n  for (int64 i = begin + threadIdx.x; i < end; i += 2 * block) sum += partial[i];",
    ),
}


def probe(mlefast: EmulatedMlefast, classes: int, out_offset: int) -> None:
    """Loss and gradient by the promised errors, on rows with everything in them."""
    x = rows("ordinary", 14, classes, np.dtype(np.float32))
    y = cases.targets(x)
    half = classes // 2
    x[1, :half], y[1] = -inf, classes - 1
    x[2, 0] = x[2, -1] = x[2].max() + 1  # two maxima, in different lanes
    x[3] = 0.25
    x[4, y[4]] = x[4].max() + 20  # a confident row
    y[0] = 1
    y[5], x[5] = -100, nan
    y[6], y[7], y[8] = -1, classes, 2**40
    given = at_offset(x, 1)
    r = np.random.default_rng(0)
    weight, upstream = (r.uniform(0.5, 2, n).astype(np.float32) for n in (classes, len(x)))
    good = ~np.isin(np.arange(len(x)), [6, 7, 8])
    want, want_gradient = reference.cross_entropy(
        np.nan_to_num(x[good], neginf=-inf), y[good], weight=weight, upstream=upstream[good]
    )
    lead = np.sort(reference.gap(np.nan_to_num(x[good])), axis=-1)[:, 1]
    at = at_offset(np.full_like(x, 7), out_offset)
    loss, gradient = mlefast.cross_entropy_and_grad(
        given, y, weight=weight, upstream=upstream, reduction="none", out=at
    )
    assert np.isnan(loss[6:9]).all()
    assert np.isnan(gradient[6:9]).all()
    assert (gradient[5] == 0).all()
    cases.assert_ulps(loss[good], want, np.float32, 6 + lead)
    allowed = 8 + np.nan_to_num(reference.gap(np.nan_to_num(x[good]))) + lead[:, None]
    cases.assert_ulps(gradient[good], want_gradient, np.float32, allowed)
    in_place = given.copy()
    _, same = mlefast.cross_entropy_and_grad(
        in_place, y, weight=weight, upstream=upstream, reduction="none", out=in_place
    )
    np.testing.assert_allclose(same, gradient, rtol=1e-4)


def probe_mean(mlefast: EmulatedMlefast) -> None:
    x = rows("ordinary", 20_000, 3, np.dtype(np.float32))
    y = cases.targets(x)
    y[::3] = 2  # a class, which counts for nothing here
    weight = np.array([0.5, 2, 1], np.float32)
    want, want_gradient = reference.cross_entropy(x, y, weight=weight, ignore_index=2)
    divisor = reference.mean_weight(y, weight=weight, ignore_index=2)
    loss, gradient = mlefast.cross_entropy_and_grad(x, y, weight=weight, ignore_index=2)
    assert loss == pytest.approx(float(want.sum() / divisor), rel=1e-5)
    np.testing.assert_allclose(gradient, (want_gradient / divisor).astype(np.float64), rtol=1e-4, atol=1e-12)


def look(regime: str, edit) -> None:
    mlefast = EmulatedMlefast(EmulatedDevice(Schedule("random", preempt=100), edit))
    classes = {"packed": 10, "block": 1100}.get(regime, 70 if regime == "resident" else 700)
    with force("resident" if regime == "block" else regime):
        probe(mlefast, classes, 1)
        if regime in ("resident", "streamed"):
            probe(mlefast, classes, 2)
    if regime == "packed":
        probe_mean(mlefast)


@pytest.mark.parametrize("regime", ["packed", "resident", "block", "staged", "streamed", "split"])
def test_the_kernels_as_they_are_pass(regime):
    look(regime, lambda source: source)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mutation_is_found(mutation):
    regime, old, new = MUTATIONS[mutation]
    met = []

    def edit(source: str) -> str:
        met.append(old in source)
        return source.replace(old, new)

    with pytest.raises(AssertionError):
        look(regime, edit)
    assert any(met), "the source has changed: this mutation changes nothing"
