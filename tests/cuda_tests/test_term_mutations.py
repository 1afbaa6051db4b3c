"""The tests of the family can fail: each of these changes to its kernels is found, by a result or by the emulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlefast as mf
import numpy as np
import pytest
from cuda_emulator.device import EmulatedDevice, EmulatedMlefast, Schedule
from cuda_tests.kernel_cases import at_offset, force, needs_emulator, rows
from mlefast._backends import cuda

pytestmark = needs_emulator
inf, nan = np.inf, np.nan


def problem(classes: int) -> tuple[np.ndarray, ...]:
    """Rows with everything in them: ties, ignored ones, wrong labels, -inf, NaN."""
    r = np.random.default_rng(0)
    x = rows("ordinary", 40, classes, np.dtype(np.float32))
    y = r.integers(0, classes, 40)
    x[1, : classes // 2], x[2, 0], x[3], x[4] = -inf, nan, 0.25, -inf
    y[1] = classes - 1
    x[5, [1, classes - 2]] = 30  # the first of two winners counts
    y[5] = 1
    x[6], y[6] = nan, -100
    x[10, classes - 3], y[10] = 60, classes - 3
    y[7], y[8] = -1, classes
    t = r.dirichlet(np.ones(classes), 40).astype(np.float32)
    v = r.standard_normal(x.shape).astype(np.float32)
    w = r.uniform(0.5, 2, classes).astype(np.float32)
    return at_offset(x, 1), y, at_offset(t, 2), v, w, r.uniform(0.5, 2, 40).astype(np.float32)


Call = Callable[..., tuple[Any, ...]]
# On x, y, t, v, w, u as above; all of what is returned is compared.
CALLS: dict[str, Call] = {
    "smoothed": lambda m, x, y, t, v, w, u, **o: m.cross_entropy_and_grad(
        x, y, weight=w, label_smoothing=0.1, upstream=u, reduction="none", return_lse=True, return_hit=True, **o
    ),
    "capped": lambda m, x, y, t, v, w, u, **o: m.cross_entropy_and_grad(
        x, t, softcap=1.0, label_smoothing=0.1, reduction="none", **o
    ),
    "summed": lambda m, x, y, t, v, w, u: (m.cross_entropy(x[9:], t[9:], reduction="sum"),),
    "focal": lambda m, x, y, t, v, w, u: m.focal_loss_and_grad(
        x, y, weight=w, upstream=u, reduction="none", out=np.full_like(x, 7)
    ),
    "kl": lambda m, x, y, t, v, w, u: m.kl_div_and_grad(t, x, reduction="none"),
    "hvp": lambda m, x, y, t, v, w, u: (m.cross_entropy_hvp(x, y, v, weight=w, reduction="none"),),
    "grad_hess": lambda m, x, y, t, v, w, u: m.cross_entropy_grad_hess(x, y, weight=w, sample_weight=u),
    "log_prob": lambda m, x, y, t, v, w, u: m.log_prob_and_entropy_and_grad(
        x[9:], y[9:], upstream=u[9:], entropy_upstream=u[:-9]
    ),
    "js": lambda m, x, y, t, v, w, u: m.js_div_and_grad(t, x, reduction="none"),
    "elements": lambda m, x, y, t, v, w, u: (m.binary_cross_entropy(x[9:], t[9:], reduction="sum"),),
    "binary": lambda m, x, y, t, v, w, u: m.binary_cross_entropy_and_grad(x[9:], t[9:], weight=w),
}

# regime, call, what stands in the source, what is put in its place
MUTATIONS = {
    "a warp's maximum for the row's": (
        "block",
        "smoothed",
        "x = warp_max<32>(largest[lane < group / 32 ? lane : 0]);",
        "x = largest[warp];",
    ),
    "half of a block's sums": ("block", "kl", "warp_sum<32>(lane < group / 32 ?", "warp_sum<32>(lane < group / 64 ?"),
    "a barrier is missing": (
        "block",
        "kl",
        "__syncthreads();\n#pragma unroll\n    for (int i = 0; i < n; ++i) x[i] = warp_sum<32>",
        "\n#pragma unroll\n    for (int i = 0; i < n; ++i) x[i] = warp_sum<32>",
    ),
    "sums share their place": ("block", "js", "group_sums<group, 1>(more)", "group_sums<group, 0>(more)"),
    "ties are forgotten": ("resident", "smoothed", "(sum[0] > 1 ? sum[0] - 1 : 0)", "0"),
    "no distribution, no NaN": ("streamed", "grad_hess", "poison = row.state.poison() +", "poison = 0 *"),
    "the winner is counted twice": (
        "streamed",
        "smoothed",
        "part[1] += Ops::select(of.wins, Ops::set(0), of.e);",
        "part[1] += of.e;",
    ),
    "what lies beyond a row of -inf wins": (
        "resident",
        "capped",
        "of.wins = (!Asked::capped || inside) && Ops::equal(of.x, x_max);",
        "of.wins = Ops::equal(of.x, x_max);",
    ),
    "the cap of what lies beyond the row": (
        "resident",
        "capped",
        "of.e = Ops::keep(inside, of.e);",
        ";",
    ),
    "smoothing beyond the row": (
        "resident",
        "capped",
        "of.target = Ops::keep(inside, ",
        "of.target = Ops::keep(true, ",
    ),
    "exponentials are not kept": ("resident", "smoothed", "held.x[k][j] = of.e;", ";"),
    "logits are taken for exponentials": (
        "streamed",
        "smoothed",
        "add_terms<false>",
        "add_terms<true>",
        "summed && stays &&",
        "summed &&",
    ),
    "the label's neighbour": ("resident", "smoothed", "i == at.find(label)", "i == at.find(label) + 1"),
    "labels below 0 are taken": ("resident", "grad_hess", "y < 0 || y >= call.classes", "y >= call.classes"),
    "wrong labels leave the Hessian": (
        "resident",
        "grad_hess",
        "weight = row.scale[0] = row.scale[1] = Ops::nan();",
        "weight = Ops::nan();",
    ),
    "ignored rows are computed": ("resident", "focal", "wanted = false;", ";"),
    "ignored rows are not written": (
        "streamed",
        "focal",
        "if (row.wanted)\n    each(write);",
        "if (true)\n    each(write);",
    ),
    "the row's weight is left out": ("resident", "focal", "(Loss::weighs_rows ? weight : hot) *= of_class;", ""),
    "the first factor for all rows": (
        "resident",
        "log_prob",
        "call.second_upstream[number * call.second_upstream_row]",
        "call.second_upstream[0]",
    ),
    "the last winner counts": ("resident", "smoothed", "max) && i < found) found", "max)) found"),
    "what is staged is another's": ("staged", "focal", "keep[i] = raw[k];", "keep[i ^ 1] = raw[k];"),
    "a later pass without the row's total": ("staged", "hvp", "of.p = of.e * inverse_total;", "of.p = of.e;"),
    "a warp's rows leave one sum": (
        "resident",
        "summed",
        "call.partial[number / (32 / group)] = total;",
        "call.partial[number / (32 / group)] = value;",
    ),
    "rows across memory are those along it": (
        "across",
        "smoothed",
        "number / call.inner * row + number % call.inner",
        "number / call.inner * row + number",
    ),
    "a part is skipped": ("split", "kl", "s < parts.count; s += block", "s < parts.count - 1; s += block"),
    "a border belongs to two parts": (
        "split",
        "kl",
        "(rest < parts.length ? rest : parts.length)",
        "(rest < parts.length + 1 ? rest : parts.length + 1)",
    ),
    "a border belongs to no part": (
        "split",
        "focal",
        "(rest < parts.length ? rest : parts.length)",
        "(rest < parts.length ? rest : parts.length - 1)",
    ),
    "parts begin with 0, not -inf": ("split", "grad_hess", "Value most = -Ops::infinity();", "Value most = 0;"),
    "a part's maximum for the row's": (
        "split",
        "smoothed",
        "each_part([&](int s) { most = Ops::max(most, ",
        "each_part([&](int s) { if (s == part) most = Ops::max(most, ",
    ),
    "a loser of another part counts": (
        "split",
        "smoothed",
        "Ops::equal(static_cast<Value>(parts.field(number, most)[s]), is) && i < first",
        "i < first",
    ),
    "rows leave their parts in one place": ("split", "js", "(row * fields + which) * count", "which * count"),
    "sums of a part share their place": ("split", "log_prob", "Parts::sum + i, sum[i]", "Parts::sum, sum[i]"),
    "later sums are the part's own": (
        "split",
        "hvp",
        "more[i] += parts.field(number, Parts::later + i)[s];",
        "if (s == part) more[i] += parts.field(number, Parts::later + i)[s];",
    ),
    "a block's place for the row's loss": (
        "split",
        "summed",
        "call.partial[number] = static_cast<double>(row.value());",
        "call.partial[blockIdx.x] = static_cast<double>(row.value());",
    ),
    "parts of ignored rows are not written": (
        "split",
        "focal",
        "if (row.wanted)\n    each(write);",
        "if (true)\n    each(write);",
    ),
    "the second output begins elsewhere": (
        "resident",
        "grad_hess",
        "call.second + offset(call.second_row) + at.begin",
        "call.second + at.begin",
    ),
    "factors do not begin again": ("elementwise", "binary", "i % static_cast<int>(call.period)", "i"),
    "elements beyond the end count": (
        "elementwise",
        "elements",
        "Ops::keep(at.window.holds(at.vector(k), j), Loss::loss(of))",
        "Loss::loss(of)",
    ),
}


def look(regime: str, name: str, edit: Callable[[str], str], monkeypatch: Any) -> None:
    """Compare a call with the CPU's, in one regime."""
    emulated = EmulatedMlefast(EmulatedDevice(Schedule("random", preempt=100), edit))
    x, y, *others = problem({"block": 521, "resident": 70, "elementwise": 333}.get(regime, 600))
    call = CALLS[name]
    along = {}
    if regime == "across":
        monkeypatch.setattr(cuda, "LEAST_ACROSS", 1)
        x, along = np.repeat(np.ascontiguousarray(x.T)[None], 2, axis=0), {"axis": 1}
        y, others[-1] = np.stack([y, y]), np.stack([others[-1]] * 2)
    fine = np.isin(y, [-1, -100, *range(x.shape[along.get("axis", 1)])])
    fine &= y != -1
    with force({"block": "resident"}.get(regime, regime)):
        results = call(emulated, x, y, *others, **along)
    for got, want in zip(results, call(mf, x, np.where(fine, y, 0), *others, **along)):
        got, want = np.float64(got), np.float64(want)
        if np.ndim(want) > np.ndim(y) and "axis" in along:
            got, want = np.moveaxis(got, 1, -1), np.moveaxis(want, 1, -1)
        uses_labels = name in ("smoothed", "focal", "hvp", "grad_hess")
        if uses_labels:
            if got.ndim > y.ndim:
                assert np.isnan(got[~fine]).all()
            got, want = got[fine], want[fine]
        np.testing.assert_allclose(got, want, rtol=3e-4, atol=3e-6)


QUICK = {
    "a border belongs to two parts",
    "a part is skipped",
    "parts begin with 0, not -inf",
    "a loser of another part counts",
    "a barrier is missing",
    "ties are forgotten",
    "what lies beyond a row of -inf wins",
    "exponentials are not kept",
    "the label's neighbour",
    "ignored rows are not written",
    "what is staged is another's",
    "rows across memory are those along it",
    "elements beyond the end count",
}


@pytest.mark.parametrize(("regime", "name"), sorted({MUTATIONS[name][:2] for name in QUICK}))
def test_the_kernels_as_they_are_pass(regime, name, monkeypatch):
    look(regime, name, lambda source: source, monkeypatch)


@pytest.mark.parametrize(
    "mutation", [m if m in QUICK else pytest.param(m, marks=pytest.mark.exhaustive) for m in MUTATIONS]
)
def test_every_mutation_is_found(mutation, monkeypatch):
    regime, name, *changes = MUTATIONS[mutation]
    met = []

    def edit(source: str) -> str:
        for old, new in zip(changes[::2], changes[1::2]):
            if "mlefast_terms" in source:
                met.append(old in source)
            source = source.replace(old, new)
        return source

    with pytest.raises(AssertionError):
        look(regime, name, edit, monkeypatch)
    assert all(met), "the source has changed: this mutation changes nothing"
