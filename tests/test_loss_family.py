"""Every option of every loss of the table, against the reference in extended precision, entry by entry."""

from __future__ import annotations

import itertools

import cases
import mlefast as mf
import numpy as np
import pytest
import reference
from mlefast import _table

inf, nan = np.inf, np.nan
SHAPES = [(1, 1), (40, 3), (33, 17), (6, 300), (3, 4099)]
KINDS = ["index", "probabilities"]


def problem(shape, dtype, kind="index", seed=0):
    """Rows with outliers, targets of a kind, class weights, and a factor for each row."""
    r = np.random.default_rng([seed, *shape])
    x = cases.rows("ordinary", *shape, dtype, seed)
    if kind == "index":
        target = cases.targets(x, seed)
        target[1:][r.random(shape[0] - 1) < 0.2] = -100
    else:
        target = r.dirichlet(np.full(shape[1], 0.3), shape[0]).astype(dtype)
        target[r.random(shape) < 0.2] = 0
    weight = r.uniform(0.5, 2, shape[1]).astype(dtype)
    return x, target, weight, r.standard_normal(shape[0]).astype(dtype)


def close(got, want, dtype, scale, ulp):
    """Within `ulp` units of the numbers of size `scale` that a result is a sum or a difference of."""
    got = np.asarray(got)
    assert got.dtype == np.dtype(dtype), f"{got.dtype} is not {np.dtype(dtype)}"
    assert got.shape == np.shape(want)
    error = np.abs(got.astype(reference.LONG) - want)
    allowed = ulp * float(np.finfo(dtype).eps) * np.abs(scale) + float(np.finfo(dtype).smallest_subnormal)
    assert (error <= allowed).all(), float(np.max(error / np.maximum(allowed, 1e-300)))


OPTIONS = [
    dict(zip(("label_smoothing", "z_loss", "softcap", "temperature"), values))
    for values in itertools.product((0.0, 0.1), (0.0, 0.01), (None, 5.0), (1.0, 2.0))
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_cross_entropy(isa, dtype, kind, options):
    for shape, weighted in itertools.product(SHAPES, (False, True)):
        x, target, w, u = problem(shape, dtype, kind)
        weight = w if weighted else None
        loss, gradient, lse = mf.cross_entropy_and_grad(
            x, target, weight=weight, reduction="none", upstream=u, return_lse=True, **options
        )
        assert loss.dtype == gradient.dtype == lse.dtype == dtype
        want, want_gradient, want_lse = reference.full_cross_entropy(x, target, weight=weight, **options)
        mass = reference.masses(x.shape, target, weight=weight, label_smoothing=options["label_smoothing"])
        z = reference.transformed(x, options["softcap"], options["temperature"])
        size = np.abs(z).max(-1)
        # A loss is a mean of gaps, whose size is that of the logits; z itself is rounded when it is made.
        row = mass.sum(-1) * (1 + size) + options["z_loss"] * want_lse**2
        close(loss, want, dtype, row, 8)
        ignored = target == -100 if kind == "index" else np.zeros(shape[0], bool)
        close(lse, np.where(ignored, 0, want_lse), dtype, 1 + size, 6)
        p = reference.softmax(z)
        factor = (mass.sum(-1) + 2 * options["z_loss"] * np.abs(want_lse))[:, None]
        entry = (p * factor * (1 + size[:, None]) + mass) * np.abs(u)[:, None]
        close(gradient, want_gradient * u.astype(reference.LONG)[:, None], dtype, entry, 10)
        for reduction in ("sum", "mean"):
            total, scaled = mf.cross_entropy_and_grad(
                x, target, weight=weight, reduction=reduction, upstream=-2.0, **options
            )
            divisor = reference.LONG(1)
            if reduction == "mean":
                divisor = reference.mean_weight(target, weight=weight) if kind == "index" else reference.LONG(shape[0])
            close(total, want.sum() / divisor, dtype, row.sum() / divisor, 8)
            per_row = entry / np.where(u == 0, 1, np.abs(u))[:, None] * 2 / divisor
            close(scaled, -2 * want_gradient / divisor, dtype, per_row, 12)
            assert mf.cross_entropy(x, target, weight=weight, reduction=reduction, **options) == total


@pytest.mark.parametrize("kind", KINDS)
def test_confident_rows_keep_their_digits(isa, kind):
    """One logit leads by 25 to 80: the loss and the winner's gradient are as exact as the reference."""
    x = np.zeros((4, 50), np.float32)
    x[:, 7] = [25, 40, 60, 80]
    y = np.full(4, 7)
    target = y if kind == "index" else np.eye(50, dtype=np.float32)[y]
    want, want_gradient, _ = reference.full_cross_entropy(x, y)
    loss, gradient, hit = mf.cross_entropy_and_grad(x, target, reduction="none", return_hit=True)
    cases.assert_ulps(loss, want, np.float32, 8)
    cases.assert_ulps(gradient, want_gradient, np.float32, 8)
    assert hit.all()
    vector = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    p = reference.softmax(x)
    others = np.delete(p * (vector.astype(reference.LONG) - vector[:, 7:8]), 7, axis=1).sum(-1)
    product = mf.cross_entropy_hvp(x, target, vector, reduction="none")
    np.testing.assert_allclose(product[:, 7], np.asarray(-others * p[:, 7], np.float64), rtol=1e-5)
    _, hessian = mf.cross_entropy_grad_hess(x, target)
    rest = np.delete(p, 7, axis=1).sum(-1)
    cases.assert_ulps(hessian[:, 7], rest * p[:, 7], np.float32, 10)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss(isa, dtype, gamma):
    for shape, weighted in itertools.product(SHAPES, (False, True)):
        x, target, w, u = problem(shape, dtype)
        weight = w if weighted else None
        loss, gradient = mf.focal_loss_and_grad(x, target, gamma=gamma, weight=weight, reduction="none", upstream=u)
        want, want_gradient = reference.focal_loss(x, target, gamma=gamma, weight=weight)
        size = (1 + np.abs(x).max(-1)) * (w.max() if weighted else 1)
        close(loss, want, dtype, size * (1 + gamma), 12)
        close(gradient, want_gradient * u[:, None], dtype, (size * (2 + gamma) ** 2 * np.abs(u))[:, None], 12)
        if gamma == 0:
            plain, _ = mf.cross_entropy_and_grad(x, target, weight=weight, reduction="none")
            np.testing.assert_allclose(loss, plain, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_kl_and_js(isa, dtype):
    for shape in SHAPES:
        x, target, _, u = problem(shape, dtype, "probabilities")
        size = 1 + np.abs(x).max(-1)
        for name in ("kl_div", "js_div"):
            value, gradient = getattr(mf, f"{name}_and_grad")(target, x, reduction="none", upstream=u)
            want, want_gradient = getattr(reference, name)(target, x)
            close(value, want, dtype, size, 8)
            entry = (reference.softmax(x) * size[:, None] + target) * np.abs(u)[:, None]
            close(gradient, want_gradient * u[:, None], dtype, entry, 12)
            np.testing.assert_array_equal(getattr(mf, name)(target, x, reduction="none"), value)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_divergences_near_zero_keep_their_digits(isa, dtype):
    """KL and JS of almost equal distributions: far below epsilon, and right."""
    x = np.random.default_rng(1).standard_normal((20, 30)).astype(dtype)
    eps = float(np.finfo(dtype).eps)
    apart = 1e-4 if dtype == np.float32 else 1e-6  # the reference's own cancellation allows no less
    target = (reference.softmax(x) * (1 + apart * np.random.default_rng(2).standard_normal(x.shape))).astype(dtype)
    want, _ = reference.js_div(target, x)
    # p is computed to 4 ULP, so |t - p| of 1000 ULP in float32 is known to 1 %.
    np.testing.assert_allclose(mf.js_div(target, x, reduction="none"), np.asarray(want, np.float64), rtol=0.03)
    want_kl, _ = reference.kl_div(target, x)
    got = mf.kl_div(target, x, reduction="none")
    assert (np.abs(got - want_kl) < 8 * eps).all()


def test_js_div_is_at_most_log_2_and_finite(isa):
    x = np.array([[0, -inf, -200, -103.9], [0, -1e4, -1e4, -1e4], [-inf, -inf, 0, -90]], np.float32)
    target = np.array([[0, 1, 0, 0], [0, 0.5, 0.5, 0], [1e-38, 0.5, 0.5, 1e-40]], np.float32)
    value, gradient = mf.js_div_and_grad(target, x, reduction="none")
    want, want_gradient = reference.js_div(target, x)
    np.testing.assert_allclose(value, np.asarray(want, np.float64), rtol=1e-6)
    np.testing.assert_allclose(gradient, np.asarray(want_gradient, np.float64), rtol=2e-5, atol=1e-43)
    assert (value <= np.float32(np.log(2)) * (1 + 1e-6)).all()


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_log_prob_and_entropy(isa, dtype):
    for shape in SHAPES:
        x, _, _, u = problem(shape, dtype)
        x[:, 1::5] = -inf
        y = cases.targets(np.where(np.isinf(x), -1, x))
        y = np.where(np.isinf(np.take_along_axis(x, y[:, None], 1)[:, 0]), 0, y)
        v = u[::-1].copy()
        log_p, entropy, gradient = mf.log_prob_and_entropy_and_grad(x, y, upstream=u, entropy_upstream=v)
        want, want_entropy, to_log_p, to_entropy = reference.log_prob_and_entropy(x, y)
        size = 1 + np.abs(np.where(np.isinf(x), 0, x)).max(-1)
        close(log_p, want, dtype, size, 6)
        close(entropy, want_entropy, dtype, size, 8)
        entry = reference.softmax(x) * (size**2)[:, None] * (np.abs(u) + np.abs(v))[:, None]
        entry[np.arange(len(y)), y] += np.abs(u)
        close(gradient, to_log_p * u[:, None] + to_entropy * v[:, None], dtype, entry, 12)
        np.testing.assert_array_equal(mf.log_prob(x, y), log_p)
        again, alone = mf.log_prob_and_grad(x, y, upstream=u)
        np.testing.assert_array_equal(again, log_p)
        close(alone, to_log_p * u[:, None], dtype, entry, 12)
        np.testing.assert_array_equal(mf.log_prob_and_entropy(x, y)[1], entropy)
        want_of_p, _ = reference.entropy(mf.softmax(x))
        close(mf.entropy(mf.softmax(x)), want_of_p, dtype, 1 + want_of_p, 6)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_entropy(isa, dtype):
    for shape in SHAPES:
        _, p, _, u = problem(shape, dtype, "probabilities")
        p[0, 0], p[-1, -1] = 1e-40 if dtype == np.float32 else 1e-310, 1 - np.finfo(dtype).epsneg
        value, gradient = mf.entropy_and_grad(p, upstream=u)
        want, want_gradient = reference.entropy(p)
        cases.assert_ulps(value, want, dtype, 6)
        with np.errstate(invalid="ignore"):
            scaled = want_gradient * u[:, None]
        finite = p > 0
        close(
            np.where(finite, gradient, 0),
            np.where(finite, scaled, 0),
            dtype,
            np.where(finite, (1 + np.abs(scaled)), 1),
            8,
        )
        assert (np.isinf(gradient) == ~finite).all()


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy(isa, dtype, smoothing):
    for shape, factors in itertools.product([(1,), (7, 5), (300, 33), (3, 5000)], itertools.product((0, 1, 2), (0, 1))):
        r = np.random.default_rng(list(shape))
        x = 8 * r.standard_normal(shape).astype(dtype)
        t = r.integers(0, 2, shape).astype(dtype)
        t[..., ::3] = r.random(t[..., ::3].shape)
        u = r.standard_normal(shape).astype(dtype)
        weight = [None, r.uniform(0.5, 2, shape[-1:]), r.uniform(0.5, 2, shape)][factors[0]]
        pos_weight = [None, r.uniform(0.5, 3, shape[-1:])][factors[1]]
        weight, pos_weight = (None if f is None else f.astype(dtype) for f in (weight, pos_weight))
        given = {"weight": weight, "pos_weight": pos_weight, "label_smoothing": smoothing}
        want, to_logits = reference.binary_cross_entropy(
            x,
            t,
            **{name: 1.0 if f is None else f for name, f in given.items() if name != "label_smoothing"},
            label_smoothing=smoothing,
        )
        loss, gradient = mf.binary_cross_entropy_and_grad(x, t, reduction="none", upstream=u, **given)
        cases.assert_ulps(loss, want, dtype, 10)
        close(gradient, to_logits * u, dtype, 6 * np.abs(u), 4)
        for reduction, divisor in (("sum", 1), ("mean", x.size)):
            total, scaled = mf.binary_cross_entropy_and_grad(x, t, reduction=reduction, upstream=3.0, **given)
            cases.assert_ulps(total, want.sum() / divisor, dtype, 4)
            close(scaled, 3 * to_logits / divisor, dtype, np.full(shape, 18 / divisor), 4)
            assert mf.binary_cross_entropy(x, t, reduction=reduction, **given) == total


def test_binary_extremes(isa):
    x = [inf, -inf, inf, -inf, nan, 80.0, -80.0, 80.0]
    t = [1, 0, 0, 1, 1, 1, 1, 0]
    loss, gradient = mf.binary_cross_entropy_and_grad(np.array(x, np.float32), t, reduction="none")
    small = np.float32(np.exp(-80.0))
    np.testing.assert_allclose(loss, [0, 0, inf, inf, nan, small, 80, 80], rtol=3e-7)
    np.testing.assert_allclose(gradient, [0, 0, 1, -1, nan, -small, -1, 1], rtol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", OPTIONS[::3], ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_hvp_is_the_derivative_of_the_gradient(isa, kind, options, reduction):
    for shape in [(5, 3), (3, 40), (2, 200)]:
        x, target, w, _ = problem(shape, np.float64, kind)
        v = np.random.default_rng(5).standard_normal(shape)
        step = 1e-6
        call = {"weight": w, "reduction": reduction, **options}
        ahead, behind = (mf.cross_entropy_and_grad(x + s * v, target, **call)[1] for s in (step, -step))
        product = mf.cross_entropy_hvp(x, target, v, **call)
        np.testing.assert_allclose(product, (ahead - behind) / (2 * step), rtol=1e-5, atol=2e-9)
        single = mf.cross_entropy_hvp(x.astype(np.float32), target, v, **call)
        np.testing.assert_allclose(single, product, rtol=1e-3, atol=2e-5)
        assert single.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_grad_hess(isa, kind):
    for shape, smoothing in itertools.product(SHAPES, (0.0, 0.1)):
        x, target, w, u = problem(shape, np.float64, kind)
        s = np.abs(u)
        gradient, hessian = mf.cross_entropy_grad_hess(x, target, weight=w, label_smoothing=smoothing, sample_weight=s)
        _, want, _ = reference.full_cross_entropy(x, target, weight=w, label_smoothing=smoothing)
        close(gradient, want * s[:, None], np.float64, 40 * s[:, None] + 0 * want, 8)
        mass = reference.masses(x.shape, target, weight=w, label_smoothing=smoothing).sum(-1)
        if kind == "index":
            mass = np.where(target == -100, 0, mass)
        p = reference.softmax(x)
        close(hessian, (mass * s)[:, None] * p * (1 - p), np.float64, (mass * s)[:, None] * p * 80, 6)
        _, doubled = mf.cross_entropy_grad_hess(
            x, target, weight=w, label_smoothing=smoothing, sample_weight=s, convention="xgboost"
        )
        counts = (mass != 0)[:, None] if kind == "index" else np.ones((shape[0], 1), bool)
        np.testing.assert_allclose(doubled, np.where(counts, np.maximum(2 * hessian, 1e-16), 0), rtol=1e-14)
        if shape[1] > 1:
            _, light = mf.cross_entropy_grad_hess(
                x, target, weight=w, label_smoothing=smoothing, sample_weight=s, convention="lightgbm"
            )
            np.testing.assert_allclose(light, hessian * (shape[1] / (shape[1] - 1)), rtol=1e-14)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_vjps(isa, dtype):
    for shape in SHAPES:
        x, _, _, _ = problem(shape, dtype)
        u = np.random.default_rng(3).standard_normal(shape).astype(dtype)
        y, log_y = mf.softmax(x), mf.log_softmax(x)
        wide, wide_u = y.astype(reference.LONG), u.astype(reference.LONG)
        want = wide * (wide_u - (wide * wide_u).sum(-1, keepdims=True))
        close(mf.softmax_vjp(y, u), want, dtype, wide * 4, 6)
        want = wide_u - np.exp(log_y.astype(reference.LONG)) * wide_u.sum(-1, keepdims=True)
        size = np.abs(wide_u) + np.exp(log_y.astype(reference.LONG)) * np.abs(wide_u).sum(-1, keepdims=True)
        close(mf.log_softmax_vjp(log_y, u), want, dtype, size, 6)


def test_identities(isa):
    """CE = H + KL; KL to a label is the NLL; two classes are a sigmoid; the gain is the mutual information."""
    x, t, _, _ = problem((20, 9), np.float64, "probabilities")
    t /= t.sum(-1, keepdims=True)
    ce = mf.cross_entropy(x, t, reduction="none")
    np.testing.assert_allclose(ce, mf.entropy(t) + mf.kl_div(t, x, reduction="none"), rtol=1e-13)
    y = cases.targets(x)
    one_hot = np.eye(9)[y]
    nll = mf.cross_entropy(x, y, reduction="none")
    np.testing.assert_allclose(mf.kl_div(one_hot, x, reduction="none"), nll, rtol=1e-12)
    np.testing.assert_allclose(mf.cross_entropy(x, one_hot, reduction="none"), nll, rtol=1e-14)
    np.testing.assert_allclose(-mf.log_prob(x, y), nll, rtol=1e-14)
    z = x[:, 0]
    two = np.stack([np.zeros_like(z), z], -1)
    positive = (y % 2).astype(np.float64)
    np.testing.assert_allclose(
        mf.binary_cross_entropy(z, positive, reduction="none"),
        mf.cross_entropy(two, y % 2, reduction="none"),
        rtol=1e-13,
    )
    js = mf.js_div(t, x, reduction="none")
    assert ((js >= 0) & (js <= np.log(2))).all()
    counts = np.random.default_rng(0).integers(0, 9, (4, 3, 5))
    joint = counts / counts.sum((-2, -1), keepdims=True)
    branch, label = joint.sum(-1), joint.sum(-2)
    mutual = mf.entropy(branch) + mf.entropy(label) - mf.entropy(joint.reshape(4, -1))
    np.testing.assert_allclose(mf.information_gain(counts), mutual, rtol=1e-10)
    assert mf.information_gain([[2, 4], [1, 2]]) == 0
    assert np.isnan(mf.information_gain(np.zeros((2, 2))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_masked_classes(isa, kind, dtype):
    """-inf on a class without a target: probability and gradient 0; on one with a target: the loss is +inf."""
    x = cases.rows("masked", 12, 37, dtype)
    y = np.full(12, 36)
    target = y if kind == "index" else np.eye(37, dtype=dtype)[y]
    loss, gradient, lse, hit = mf.cross_entropy_and_grad(
        x, target, reduction="none", z_loss=1e-3, return_lse=True, return_hit=True
    )
    assert np.isfinite(loss).all()
    assert np.isfinite(lse).all()
    assert (gradient[np.isneginf(x)] == 0).all()
    np.testing.assert_array_equal(hit, np.argmax(x, -1) == 36)
    v = np.ones_like(x)
    assert (mf.cross_entropy_hvp(x, target, v)[np.isneginf(x)] == 0).all()
    for convention in ("exact", "lightgbm"):
        for part in mf.cross_entropy_grad_hess(x, target, convention=convention):
            assert (part[np.isneginf(x)] == 0).all()
    _, entropy, to_logits = mf.log_prob_and_entropy_and_grad(x, y)
    assert np.isfinite(entropy).all()
    assert (to_logits[np.isneginf(x)] == 0).all()
    x[:, -1] = -inf
    assert np.isposinf(mf.cross_entropy(x, target, reduction="none", z_loss=1e-3)).all()
    if kind == "probabilities":
        assert np.isposinf(mf.kl_div(target, x, reduction="none")).all()
        assert np.isfinite(mf.js_div(target, x, reduction="none")).all()


def test_rows_without_a_softmax_are_nan_and_no_others(isa):
    x = np.zeros((4, 20), np.float32)
    x[0] = -inf
    x[1, 3] = inf
    x[2, 5] = nan
    y = np.full(4, 3)
    t = np.full((4, 20), 0.05, np.float32)
    for target in (y, t):
        loss, gradient, lse = mf.cross_entropy_and_grad(x, target, reduction="none", z_loss=0.1, return_lse=True)
        np.testing.assert_array_equal(np.isnan(loss), [True, True, True, False])
        np.testing.assert_array_equal(np.isnan(gradient).all(-1), [True, True, True, False])
        np.testing.assert_array_equal(lse[:3], [-inf, inf, nan])
        assert np.isfinite(gradient[3]).all()
        product = mf.cross_entropy_hvp(x, target, np.ones_like(x))
        np.testing.assert_array_equal(np.isnan(product).all(-1), [True, True, True, False])
    for name in ("kl_div", "js_div"):
        value, gradient = getattr(mf, f"{name}_and_grad")(t, x, reduction="none")
        np.testing.assert_array_equal(np.isnan(value), [True, True, True, False])
        assert np.isfinite(gradient[3]).all()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}, {"temperature": 2.0}])
def test_ignored_rows_are_zero_whatever_they_hold(isa, options):
    for classes in (5, 300):
        x = np.zeros((3, classes), np.float32)
        x[0], x[1, 0] = nan, inf
        y = np.array([-100, -100, 2])
        loss, gradient, hit = mf.cross_entropy_and_grad(x, y, reduction="none", return_hit=True, **options)
        assert (loss[:2] == 0).all()
        assert (gradient[:2] == 0).all()
        np.testing.assert_array_equal(hit, [False, False, False])
        product = mf.cross_entropy_hvp(x, y, np.ones_like(x), **options)
        assert (product[:2] == 0).all()
        all_ignored = np.full(3, -100)
        loss, gradient = mf.cross_entropy_and_grad(x, all_ignored, **options)
        assert np.isnan(loss)
        assert (gradient == 0).all()
        assert mf.cross_entropy(x, all_ignored, reduction="sum", **options) == 0
    first = mf.cross_entropy_grad_hess(x, y)
    assert (first[0][:2] == 0).all()
    assert (first[1][:2] == 0).all()


def test_hits_are_those_of_argmax(isa):
    for shape in [(50, 4), (9, 700)]:
        x = np.random.default_rng(0).integers(0, 3, shape).astype(np.float32)  # ties
        y = np.random.default_rng(1).integers(0, shape[1], shape[0])
        y[::2] = np.argmax(x, -1)[::2]
        _, hit = mf.cross_entropy(x, y, return_hit=True)
        np.testing.assert_array_equal(hit, np.argmax(x, -1) == y)
        t = np.random.default_rng(2).integers(0, 3, shape).astype(np.float32)
        _, hit = mf.cross_entropy(x, t, return_hit=True)
        np.testing.assert_array_equal(hit, np.argmax(x, -1) == np.argmax(t, -1))


# ---- layouts, dtypes, outputs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_layouts(isa, kind, axis):
    """Any axis, strides and order of memory: the results of the contiguous array."""
    base = np.random.default_rng(0).standard_normal((4, 24, 30)).astype(np.float32)
    for x in (base, np.asfortranarray(base), base[::2, ::-3, 1::2], base.transpose(2, 0, 1), base[:, :, ::-1]):
        moved = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        y = np.random.default_rng(1).integers(0, x.shape[axis], moved.shape[:-1])
        t = np.random.default_rng(2).dirichlet(np.ones(moved.shape[-1]), moved.shape[:-1]).astype(np.float32)
        target, flat = (y, y) if kind == "index" else (np.moveaxis(t, -1, axis), t)
        call = {"reduction": "none", "label_smoothing": 0.1}
        want = mf.cross_entropy_and_grad(moved, flat, return_lse=True, return_hit=True, **call)
        got = mf.cross_entropy_and_grad(x, target, axis=axis, return_lse=True, return_hit=True, **call)
        np.testing.assert_array_equal(got[1], np.moveaxis(mf_close(got[1], want[1], axis), -1, axis))
        np.testing.assert_allclose(got[0], want[0], rtol=1e-6)
        np.testing.assert_allclose(got[2], want[2], rtol=1e-6)
        np.testing.assert_array_equal(got[3], want[3])
        out = np.empty(x.shape, np.float32)
        _, written = mf.cross_entropy_and_grad(x, target, axis=axis, out=out, **call)
        assert written is out
        np.testing.assert_array_equal(out, got[1])
        v = np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
        product = mf.cross_entropy_hvp(x, target, v, axis=axis)
        np.testing.assert_allclose(
            np.moveaxis(product, axis, -1),
            mf.cross_entropy_hvp(moved, flat, np.moveaxis(v, axis, -1)),
            rtol=1e-4,
            atol=1e-9,
        )


def mf_close(got, want, axis):
    """`got` with its class axis last, which must be `want` but for rounding."""
    last = np.moveaxis(got, axis, -1)
    np.testing.assert_allclose(last, want, rtol=2e-5, atol=2e-7)
    return last


@pytest.mark.parametrize("dtype", [np.float16, "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_halves_are_those_of_float32_rounded_once(isa, dtype, kind):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    for shape in [(40, 7), (5, 1000)]:
        x, target, w, _ = problem(shape, np.float32, kind)
        half = x.astype(dtype)
        wide = half.astype(np.float32)
        call = {"label_smoothing": 0.1, "weight": w}
        loss, gradient = mf.cross_entropy_and_grad(half, target, **call)
        want, want_gradient = mf.cross_entropy_and_grad(wide, target, **call)
        assert (loss.dtype, gradient.dtype) == (np.float32, dtype)
        assert loss == want
        np.testing.assert_array_equal(gradient, want_gradient.astype(dtype))
        v = np.ones(shape, dtype)
        np.testing.assert_array_equal(
            mf.cross_entropy_hvp(half, target, v), mf.cross_entropy_hvp(wide, target, v).astype(dtype)
        )
        binary = np.full(shape, 0.25, dtype)
        loss, gradient = mf.binary_cross_entropy_and_grad(half, binary, reduction="none")
        want, want_gradient = mf.binary_cross_entropy_and_grad(wide, binary, reduction="none")
        np.testing.assert_array_equal(loss, want)
        np.testing.assert_array_equal(gradient, want_gradient.astype(dtype))
        in_place = half.copy()
        mf.binary_cross_entropy_and_grad(in_place, binary, reduction="none", out=in_place)
        np.testing.assert_array_equal(in_place, gradient)


@pytest.mark.parametrize("name", [*_table.LOSSES, "cross_entropy_hvp", "binary_cross_entropy", "softmax_vjp"])
def test_in_place_and_the_same_bits_for_any_number_of_threads(threads, name):
    for shape in [(3000, 20), (300, 700)]:
        x, t, _, _ = problem(shape, np.float32, "probabilities")
        y = cases.targets(x)

        def call(x, out=None, y=y, t=t):
            if name == "cross_entropy_hvp":
                return (mf.cross_entropy_hvp(x, y, t, softcap=3.0, out=out),)
            if name == "softmax_vjp":
                return (mf.softmax_vjp(x, t, out=out),)
            if name == "binary_cross_entropy":
                return mf.binary_cross_entropy_and_grad(x, t, out=out)
            function = getattr(mf, f"{name}_and_grad")
            targets = _table.LOSSES[name].targets
            if targets == ("probabilities",):
                return function(t, x, out=out)
            if name == "focal_loss":
                return function(x, y, out=out)
            return function(x, t, temperature=2.0, out=out)

        threads(1)
        want = call(x)
        threads(4)
        for got, one in zip(call(x), want):
            np.testing.assert_array_equal(got, one)
        copy = x.copy()
        assert call(copy, out=copy)[-1] is copy
        np.testing.assert_array_equal(copy, want[-1])


def test_negative_probabilities_have_no_logarithm(isa):
    for classes in (2, 70, 1000):
        p = np.full((3, classes), 1 / classes, np.float32)
        p[1, 0] = -0.6
        logits = np.zeros_like(p)
        for values in (mf.entropy(p), mf.kl_div(p, logits, reduction="none"), mf.js_div(p, logits, reduction="none")):
            np.testing.assert_array_equal(np.isnan(values), [False, True, False])


def test_empty_batches():
    x = np.zeros((0, 3), np.float32)
    assert np.isnan(mf.cross_entropy(x, np.zeros((0, 3)), label_smoothing=0.1))
    assert mf.cross_entropy(x, np.zeros(0, int), label_smoothing=0.1, reduction="sum") == 0
    assert np.isnan(mf.binary_cross_entropy(x, x))
    assert mf.binary_cross_entropy(x, x, reduction="sum") == 0
    assert mf.binary_cross_entropy_and_grad(x, x, reduction="none")[1].shape == (0, 3)
    assert mf.entropy(x).shape == (0,)
    assert np.isnan(mf.kl_div(x, x))
    assert float(mf.binary_cross_entropy(0.0, 1)) == pytest.approx(np.log(2))


# ---- what is refused

X = np.zeros((2, 3))
BAD = [
    (lambda: mf.cross_entropy(X, [0, 1], label_smoothing=1.5), ValueError, "label_smoothing: received 1.5"),
    (lambda: mf.cross_entropy(X, [0, 1], label_smoothing="a"), TypeError, "label_smoothing: received 'a'"),
    (lambda: mf.cross_entropy(X, [0, 1], z_loss=-1), ValueError, "z_loss: received -1"),
    (lambda: mf.cross_entropy(X, [0, 1], softcap=0), ValueError, "softcap: received 0"),
    (lambda: mf.cross_entropy(X, [0, 1], temperature=0), ValueError, "temperature: received 0"),
    (lambda: mf.cross_entropy(X, [0, 1], temperature=np.inf), ValueError, "temperature: received inf"),
    (lambda: mf.cross_entropy(X, [0, 3], label_smoothing=0.1), IndexError, r"target\[1\]: received 3"),
    (lambda: mf.cross_entropy(X, [0, -1], temperature=2.0), IndexError, r"target\[1\]: received -1"),
    (lambda: mf.cross_entropy(X, np.zeros((3, 2))), ValueError, "target: received shape"),
    (lambda: mf.cross_entropy(X, X.astype(bool)), TypeError, "target: received"),
    (lambda: mf.cross_entropy(X, X.astype(complex)), TypeError, "target: received"),
    (lambda: mf.focal_loss(X, [0, 1], gamma=-1), ValueError, "gamma: received -1"),
    (lambda: mf.focal_loss(X, X), TypeError, "target: received"),
    (lambda: mf.kl_div([0, 1], X), ValueError, "target: received shape"),
    (lambda: mf.kl_div(X, X, reduction="batchmean"), ValueError, "reduction: received 'batchmean'"),
    (lambda: mf.log_prob(X, [0, 3]), IndexError, r"^index\[1\]: received 3; accepted: 0 to 2$"),
    (lambda: mf.log_prob(X, [0.0, 1.0]), TypeError, "index: received"),
    (lambda: mf.log_prob_and_grad(X, [0, 1], upstream=[1.0]), ValueError, "upstream: received shape"),
    (
        lambda: mf.log_prob_and_entropy_and_grad(X, [0, 1], entropy_upstream=[1.0]),
        ValueError,
        "entropy_upstream: received shape",
    ),
    (lambda: mf.binary_cross_entropy(X, [0, 1]), ValueError, "target: received shape"),
    (lambda: mf.binary_cross_entropy(X, X, weight=np.ones(2)), ValueError, "weight: received shape"),
    (lambda: mf.binary_cross_entropy(X, X, pos_weight=np.ones((2, 3))), ValueError, "pos_weight: received shape"),
    (lambda: mf.binary_cross_entropy(X, X, pos_weight="a"), TypeError, "pos_weight: received"),
    (lambda: mf.binary_cross_entropy(X, X, label_smoothing=-0.1), ValueError, "label_smoothing: received"),
    (lambda: mf.cross_entropy_hvp(X, [0, 1], np.zeros(3)), ValueError, "vector: received shape"),
    (lambda: mf.cross_entropy_hvp(X, [0, 3], X, reduction="sum"), IndexError, r"target\[1\]: received 3"),
    (lambda: mf.cross_entropy_hvp(X, [0, 3], X, denominator=2.0), IndexError, r"target\[1\]: received 3"),
    (lambda: mf.cross_entropy_grad_hess(X, [0, 1], convention="adaboost"), ValueError, "convention: received"),
    (lambda: mf.cross_entropy_grad_hess(X, [0, 1], sample_weight=[1.0]), ValueError, "sample_weight: received shape"),
    (lambda: mf.softmax_vjp(X, np.zeros(3)), ValueError, "upstream: received shape"),
    (lambda: mf.entropy(True), TypeError, "p: received"),
    (lambda: mf.entropy(np.zeros((2, 0))), ValueError, "p: received shape"),
    (lambda: mf.information_gain([1, 2]), ValueError, "counts: received shape"),
    (lambda: mf.information_gain([[1, -2]]), ValueError, "counts: received -2"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
