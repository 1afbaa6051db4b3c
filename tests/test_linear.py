"""linear_cross_entropy: against the dense computation in extended precision, block by block, and what it promises."""

from __future__ import annotations

import itertools
import threading
import tracemalloc

import mlefast as mf
import numpy as np
import pytest
import reference
from mlefast import linear

inf, nan, LONG = np.inf, np.nan, reference.LONG
SHAPES = [(1, 1, 1), (1, 3, 2), (7, 5, 4), (40, 9, 33), (33, 20, 300), (100, 3, 1000)]
NAMES = ("x", "weight", "bias")


def problem(shape, dtype=np.float64, seed=0):
    """Inputs, weights, biases and labels; logits of deviation 3 with outliers."""
    n, features, classes = shape
    r = np.random.default_rng([seed, *shape])
    x = r.standard_normal((n, features))
    x[r.random((n, features)) < 0.02] *= 5
    weight = 3 / np.sqrt(features) * r.standard_normal((classes, features))
    return x.astype(dtype), weight.astype(dtype), r.standard_normal(classes).astype(dtype), r.integers(0, classes, n)


def dense(x, weight, y, *, bias=None, class_weight=None, divisor=1, upstream=1.0, ignore_index=-100):
    """Losses of the rows, the gradients, and for each of their entries the size of what was added up."""
    x, weight = np.asarray(x).astype(LONG), np.asarray(weight).astype(LONG)
    logits = x @ weight.T + (0 if bias is None else np.asarray(bias).astype(LONG))
    losses, g = reference.cross_entropy(logits, y, weight=class_weight, upstream=upstream, ignore_index=ignore_index)
    g = g / LONG(divisor)
    sizes = (abs(g) @ abs(weight), abs(g).T @ abs(x), abs(g).sum(0))
    # Rounding moves a logit by an epsilon of each of its terms, and a probability relatively by as much.
    terms = abs(x) @ abs(weight).T + (0 if bias is None else abs(np.asarray(bias).astype(LONG)))
    return losses, (g @ weight, g.T @ x, g.sum(0)), sizes, float(terms.max(initial=0))


def assert_close(got, want, size, dtype, allowed):
    """Every entry within ``allowed`` epsilon of the sum of its terms' sizes."""
    assert got.dtype == np.dtype(dtype)
    assert got.shape == want.shape
    unit = np.finfo(dtype).eps * size + np.finfo(dtype).tiny
    error = np.abs(got.astype(LONG) - want) / unit
    assert (error <= allowed).all(), f"{float(error.max()):.3g} epsilon of the sum's terms, {allowed:.3g} allowed"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [1, 16, 10**6])
def test_against_the_dense_computation(monkeypatch, shape, dtype, biased, weighted, rows):
    n, features, classes = shape
    x, weight, bias, y = problem(shape, dtype)
    y[1::3] = -100
    bias = bias if biased else None
    class_weight = np.random.default_rng(1).uniform(0.5, 2, classes).astype(dtype) if weighted else None
    monkeypatch.setattr(linear, "_MEMORY", rows * (classes + 3 * features) * np.dtype(dtype).itemsize)
    u = np.random.default_rng(2).standard_normal(n).astype(dtype)
    counted = reference.mean_weight(y, weight=class_weight)
    cases = [
        ({}, counted, 1.0),
        ({"upstream": -2.5}, counted, -2.5),
        ({"denominator": 7.5}, 7.5, 1.0),
        ({"reduction": "sum"}, 1, 1.0),
        ({"reduction": "none"}, 1, 1.0),
        ({"reduction": "none", "upstream": u}, 1, u),
    ]
    for options, divisor, upstream in cases:
        options = options | {"bias": bias, "class_weight": class_weight}
        want, gradients, sizes, terms = dense(
            x, weight, y, bias=bias, class_weight=class_weight, divisor=divisor, upstream=upstream
        )
        loss, got = mf.linear_cross_entropy_and_grad(x, weight, y, **options)
        if options.get("reduction") != "none":
            want = want.sum() / LONG(divisor)
        assert np.asarray(loss).dtype == dtype
        assert np.shape(loss) == np.shape(want)
        allowed = 8 + 2 * terms
        assert (np.abs(loss - want) <= np.finfo(dtype).eps * (allowed + 8 * np.abs(want))).all()
        options.pop("upstream", None)
        np.testing.assert_array_equal(mf.linear_cross_entropy(x, weight, y, **options), loss)
        assert (got[2] is None) == (not biased)
        for each, wanted, size in zip(got, gradients, sizes):
            if each is not None:
                assert_close(each, wanted, size, dtype, allowed)
        assert (got[0][1::3] == 0).all()


@pytest.mark.parametrize("rows", [1, 2, 6, 7])
def test_gradients_are_the_derivatives(monkeypatch, rows):
    """Against central differences of the loss, in float64."""
    arrays = dict(zip(NAMES, problem((7, 5, 4))))
    y = problem((7, 5, 4))[3]
    y[2] = -100
    monkeypatch.setattr(linear, "_MEMORY", rows * (4 + 15) * 8)
    for options in ({}, {"class_weight": [1, 2, 3, 0.5]}, {"reduction": "sum"}, {"denominator": 3.0}):
        _, gradients = mf.linear_cross_entropy_and_grad(**arrays, target=y, **options)
        for name, gradient in zip(NAMES, gradients):
            assert_derivative(arrays, name, gradient, y, options)


def assert_derivative(arrays, name, gradient, y, options, tolerance=1e-7):
    step = 1e-6
    for at in np.ndindex(arrays[name].shape):
        moved = [arrays | {name: arrays[name].copy()} for _ in range(2)]
        moved[0][name][at] += step
        moved[1][name][at] -= step
        ahead, behind = (mf.linear_cross_entropy(**each, target=y, **options) for each in moved)
        assert abs(gradient[at] - (ahead - behind) / (2 * step)) <= tolerance, (name, at, options)


OPTIONS = [
    {"label_smoothing": 0.1},
    {"z_loss": 1e-2},
    {"softcap": 5.0},
    {"temperature": 2.0},
    {"label_smoothing": 0.2, "z_loss": 1e-3, "softcap": 4.0, "temperature": 0.5, "class_weight": np.arange(1.0, 31)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(o))
@pytest.mark.parametrize("kind", ["indices", "probabilities"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_options_are_those_of_cross_entropy(monkeypatch, options, kind, reduction):
    """Options and probabilities give what cross_entropy_and_grad gives for the dense logits."""
    monkeypatch.setattr(linear, "_MEMORY", 16 * (30 + 3 * 6) * 8)
    x, weight, bias, y = problem((50, 6, 30))
    y[::5] = -100
    target = y if kind == "indices" else np.random.default_rng(3).dirichlet(np.ones(30), 50)
    plain = {("weight" if name == "class_weight" else name): value for name, value in options.items()}
    loss, gradients = mf.linear_cross_entropy_and_grad(x, weight, target, bias=bias, reduction=reduction, **options)
    want, g = mf.cross_entropy_and_grad(x @ weight.T + bias, target, reduction=reduction, **plain)
    np.testing.assert_allclose(loss, want, rtol=1e-12, atol=1e-13)
    for got, wanted in zip(gradients, (g @ weight, g.T @ x, g.sum(0))):
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(
        mf.linear_cross_entropy(x, weight, target, bias=bias, reduction=reduction, **options), loss
    )


@pytest.mark.parametrize("kind", ["float32 probabilities", "float64 probabilities", "one-hot"])
def test_probabilities(monkeypatch, kind):
    x, weight, bias, y = problem((40, 6, 30), np.float32)
    monkeypatch.setattr(linear, "_MEMORY", 16 * (30 + 3 * 6) * 4)
    if kind == "one-hot":
        target = np.eye(30, dtype=np.float32)[y]
        want = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    else:
        target = np.random.default_rng(3).dirichlet(np.ones(30), 40).astype(kind.split()[0])
        loss, g = mf.cross_entropy_and_grad((x.astype(float) @ weight.astype(float).T) + bias, target)
        want = loss, (g @ weight, g.T @ x, g.sum(0))
    loss, gradients = mf.linear_cross_entropy_and_grad(x, weight, target, bias=bias)
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, want[0], rtol=1e-6)
    for got, wanted in zip(gradients, want[1]):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("rows", [16, 10**6])
def test_halves_are_computed_in_float32(monkeypatch, name, rows):
    """The float32 result for the same numbers, rounded once, however the weights are cut up to be converted."""
    half = np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    eps = 2.0**-10 if name == "float16" else 2.0**-7
    x, weight, bias, y = problem((50, 20, 301))
    halves = [a.astype(half) for a in (x, weight, bias)]
    wide = [a.astype(np.float32) for a in halves]
    monkeypatch.setattr(linear, "_PART", 20 * 4 * 37)
    monkeypatch.setattr(linear, "_MEMORY", rows * (301 + 60) * 4 + linear._PART)
    u = np.random.default_rng(0).standard_normal(50)
    for options in ({}, {"reduction": "none", "upstream": u}):
        want, wanted = mf.linear_cross_entropy_and_grad(*wide[:2], y, bias=wide[2], **options)
        loss, got = mf.linear_cross_entropy_and_grad(*halves[:2], y, bias=halves[2], **options)
        assert loss.dtype == np.float32
        np.testing.assert_allclose(loss, want, rtol=1e-6)
        for each, full in zip(got, wanted):
            assert each.dtype == half
            assert each.shape == full.shape
            scale = np.abs(full).max()
            assert (np.abs(each.astype(np.float32) - full) <= eps / 2 * np.abs(full) + 1e-5 * scale).all()


@pytest.mark.parametrize(
    "dtypes", [*itertools.product(["float16", "float32", "float64"], repeat=3)], ids=lambda d: "-".join(d)
)
def test_each_gradient_has_the_dtype_of_its_input(dtypes):
    x, weight, bias, y = problem((6, 5, 4))
    arrays = [a.astype(dtype) for a, dtype in zip((x, weight, bias), dtypes)]
    loss, gradients = mf.linear_cross_entropy_and_grad(*arrays[:2], y, bias=arrays[2])
    assert tuple(g.dtype.name for g in gradients) == dtypes
    assert loss.dtype == (np.float64 if "float64" in dtypes else np.float32)
    want, wanted = mf.linear_cross_entropy_and_grad(*(a.astype(np.float64) for a in arrays[:2]), y, bias=arrays[2])
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    for got, full in zip(gradients, wanted):
        np.testing.assert_allclose(got, full, rtol=1e-3 if got.dtype == np.float16 else 1e-5, atol=1e-4)


def layouts(a):
    """The same numbers, laid out in every way that NumPy knows."""
    far = np.zeros((2 * a.shape[0], 3 * a.shape[1]), a.dtype)
    far[::2, ::3] = a
    wide = np.zeros((a.shape[0], a.shape[1] + 3), a.dtype)
    wide[:, 1:-2] = a
    turned = np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1]
    read_only = a.copy()
    read_only.flags.writeable = False
    packed = np.zeros(len(a), np.dtype([("skip", np.int8), ("row", a.dtype, a.shape[1])]))
    packed["row"] = a
    return {
        "columns first": np.asfortranarray(a),
        "every third": far[::2, ::3],
        "a part of wider rows": wide[:, 1:-2],
        "backwards": turned,
        "read-only": read_only,
        "other byte order": a.astype(a.dtype.newbyteorder()),
        "unaligned": packed["row"],
    }


@pytest.mark.parametrize("layout", [*layouts(np.zeros((2, 2)))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layout(monkeypatch, layout, dtype):
    x, weight, bias, y = problem((60, 12, 70), dtype)
    y[3] = -100
    monkeypatch.setattr(linear, "_PART", 20 * 12 * np.dtype(dtype).itemsize)
    monkeypatch.setattr(linear, "_MEMORY", 20 * (70 + 36) * np.dtype(dtype).itemsize + linear._PART)
    loss, gradients = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    for changed in ((layouts(x)[layout], weight), (x, layouts(weight)[layout])):
        got_loss, got = mf.linear_cross_entropy_and_grad(*changed, y, bias=bias)
        np.testing.assert_allclose(got_loss, loss, rtol=10 * np.finfo(dtype).eps)
        for each, wanted in zip(got, gradients):
            assert each.dtype == dtype
            np.testing.assert_allclose(each, wanted, rtol=0, atol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("ignored", [True, False])
def test_any_number_of_leading_axes(contiguous, ignored):
    """A language model drops the last position: x[:, :-1] is not one run of rows."""
    flat, weight, bias, y = problem((4 * 6 * 5, 8, 20))
    if ignored:
        y[::4] = -100
    x = flat.reshape(4, 6, 5, 8)
    if not contiguous:
        x = np.concatenate([x, np.full((4, 1, 5, 8), nan)], axis=1)[:, :-1]
        assert not x.flags.c_contiguous
    u = np.random.default_rng(0).standard_normal(y.size)
    want, wanted = mf.linear_cross_entropy_and_grad(flat, weight, y, bias=bias, reduction="none", upstream=u)
    loss, got = mf.linear_cross_entropy_and_grad(
        x, weight, y.reshape(4, 6, 5), bias=bias, reduction="none", upstream=u.reshape(4, 6, 5)
    )
    np.testing.assert_allclose(loss, want.reshape(4, 6, 5), rtol=1e-13)
    assert got[0].shape == x.shape
    for each, full in zip(got, wanted):
        np.testing.assert_allclose(each.reshape(full.shape), full, rtol=0, atol=1e-12)
    probabilities = np.random.default_rng(1).dirichlet(np.ones(20), y.size)[: y.size]
    strided = np.repeat(probabilities.reshape(4, 6, 5, 20), 2, axis=1)[:, ::2]
    assert linear._as_labels(strided, (4, 6, 5), 20).shape == (4, 6, 5, 20)


def test_one_row_and_lists():
    loss, (dx, dweight, dbias) = mf.linear_cross_entropy_and_grad([1, 2], [[1, 0], [0, 1], [0, 0]], 1)
    dense_loss, g = mf.cross_entropy_and_grad([1.0, 2.0, 0.0], 1)
    assert loss.dtype == np.float64
    assert loss == pytest.approx(dense_loss, rel=1e-15)
    np.testing.assert_allclose(dx, g[:2], rtol=1e-14)
    np.testing.assert_allclose(dweight, np.outer(g, [1, 2]), rtol=1e-14)
    assert dbias is None
    losses = mf.linear_cross_entropy([[1, 2]], [[1, 0], [0, 1]], [1], reduction="none")
    assert losses.shape == (1,)
    assert np.ndim(mf.linear_cross_entropy([1, 2], [[1, 0], [0, 1]], -100, reduction="none")) == 0


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("held", [nan, inf, -inf, 1e300])
def test_ignored_rows_may_hold_anything(monkeypatch, rows, held):
    x, weight, bias, y = problem((9, 4, 6))
    ignored = np.array([0, 3, 4, 8])
    kept = np.setdiff1d(np.arange(9), ignored)
    monkeypatch.setattr(linear, "_MEMORY", rows * (6 + 12) * 8)
    want, wanted = mf.linear_cross_entropy_and_grad(x[kept], weight, y[kept], bias=bias)
    x[ignored] = held
    for ignore_index in (-100, 2**62, 77):
        y[ignored] = ignore_index
        loss, (dx, dweight, dbias) = mf.linear_cross_entropy_and_grad(
            x, weight, y, bias=bias, ignore_index=ignore_index
        )
        assert (dx[ignored] == 0).all()
        np.testing.assert_allclose(loss, want, rtol=1e-14)
        for got, full in zip((dx[kept], dweight, dbias), wanted):
            np.testing.assert_allclose(got, full, rtol=0, atol=1e-14)
        losses = mf.linear_cross_entropy(x, weight, y, bias=bias, ignore_index=ignore_index, reduction="none")
        assert (losses[ignored] == 0).all()


@pytest.mark.parametrize("y", [[], [-100, -100, -100]])
def test_no_row_counts(y):
    x, weight, bias = np.full((len(y), 2), nan), np.ones((3, 2)), np.ones(3)
    assert np.isnan(mf.linear_cross_entropy(x, weight, y))
    assert mf.linear_cross_entropy(x, weight, y, reduction="sum") == 0
    assert mf.linear_cross_entropy(x, weight, y, denominator=5) == 0
    for options in ({}, {"reduction": "sum"}, {"denominator": 2.0}, {"reduction": "none"}):
        _, gradients = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, **options)
        for gradient, array in zip(gradients, (x, weight, bias)):
            assert gradient.shape == array.shape
            assert (gradient == 0).all()


def test_no_features():
    """Without features there are the biases: the gradient of weights that do not exist is empty."""
    loss, (dx, dweight, dbias) = mf.linear_cross_entropy_and_grad(
        np.ones((2, 0)), np.ones((3, 0)), [0, 1], bias=np.zeros(3)
    )
    assert loss == pytest.approx(np.log(3))
    assert (dx.shape, dweight.shape) == ((2, 0), (3, 0))
    np.testing.assert_allclose(dbias, [1 / 3 - 0.5, 1 / 3 - 0.5, 1 / 3])


def test_a_row_without_a_distribution_is_nan_and_no_other():
    x, weight, bias, y = problem((5, 4, 6))
    x[2] = nan
    losses, (dx, dweight, _) = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, reduction="none")
    assert np.isnan(losses).tolist() == [False, False, True, False, False]
    assert np.isnan(dx).any(axis=1).tolist() == [False, False, True, False, False]
    assert np.isnan(dweight).all()
    _, filtered = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, reduction="none", filter_eps=1e-3)
    assert np.isnan(filtered[1]).all()  # a filter must not hide it


def test_masked_classes(monkeypatch):
    monkeypatch.setattr(linear, "_MEMORY", 4 * (6 + 12) * 8)
    x, weight, bias, y = problem((9, 4, 6))
    y[y == 3] = 1
    bias[3] = -inf
    left = np.array([0, 1, 2, 4, 5])
    loss, (dx, dweight, dbias) = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    want, wanted = mf.linear_cross_entropy_and_grad(x, weight[left], np.searchsorted(left, y), bias=bias[left])
    np.testing.assert_allclose(loss, want, rtol=1e-14)
    for got, full in zip((dx, dweight[left], dbias[left]), wanted):
        np.testing.assert_allclose(got, full, rtol=0, atol=1e-14)
    assert (dweight[3] == 0).all()
    assert dbias[3] == 0


# ---- the filter


def peaked(n=100, features=32, classes=800):
    """Rows of a trained model: their probability lies on few of the classes, and those in few places."""
    r = np.random.default_rng(0)
    weight = r.standard_normal((classes, features))
    y = r.integers(0, 40, n) * 7
    return weight[y] + 0.1 * r.standard_normal((n, features)), weight, r.standard_normal(classes), y


@pytest.mark.parametrize("eps", [1e-8, 1e-5, 1e-3, 0.1])
@pytest.mark.parametrize("rows", [16, 10**6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_a_filter_may_change(monkeypatch, eps, rows, dtype):
    x, weight, bias, y = (a.astype(dtype) if a.dtype == np.float64 else a for a in peaked())
    monkeypatch.setattr(linear, "_PART", 50 * (min(rows, len(y)) + 96) * 8)  # of some hundred classes
    monkeypatch.setattr(linear, "_MEMORY", rows * (800 + 96) * 8 + linear._PART)
    u = np.random.default_rng(1).uniform(-2, 2, len(y))
    for options, factor in (
        ({}, np.full(len(y), 1 / len(y))),
        ({"denominator": 1e-3}, np.full(len(y), 1e3)),
        ({"reduction": "none", "upstream": u}, np.abs(u)),
    ):
        loss, (dx, dweight, dbias) = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, **options)
        got_loss, got = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, filter_eps=eps, **options)
        np.testing.assert_array_equal(got_loss, loss)
        np.testing.assert_array_equal(got[2], dbias)
        rounding = 3000 * np.finfo(dtype).eps * factor.max()
        assert (np.abs(got[0] - dx) <= factor[:, None] * eps * np.abs(weight).sum(0) + rounding).all()
        assert (np.abs(got[1] - dweight) <= eps * (factor[:, None] * np.abs(x)).sum(0) + len(y) * rounding).all()
        skipped = (got[1] == 0).all(axis=1)
        _, p = mf.cross_entropy_and_grad(x.astype(float) @ weight.astype(float).T + bias, y, reduction="none")
        largest = np.abs(p).max(axis=0)
        assert not (skipped & (largest > 1.01 * eps)).any()
        if eps >= 1e-3:
            assert skipped.mean() > 0.5  # it is worth something
            if rows > len(y):
                assert skipped[largest < 0.99 * eps].all()


def test_a_filter_of_nothing_and_of_everything():
    x, weight, bias, y = peaked(50)
    exact = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    same = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, filter_eps=0)
    for got, want in zip(same[1], exact[1]):
        np.testing.assert_array_equal(got, want)
    loss, (dx, dweight, dbias) = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, filter_eps=2)
    assert loss == exact[0]
    assert not dx.any()
    assert not dweight.any()
    np.testing.assert_array_equal(dbias, exact[1][2])


def test_a_filter_that_leaves_most_classes_changes_nothing():
    """To gather most of the classes would take longer than to multiply by all of them."""
    x, weight, bias, y = problem((6, 9, 33))
    exact = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    _, p = mf.cross_entropy_and_grad(x @ weight.T + bias, y, reduction="none")
    eps = np.sort(np.abs(p).max(axis=0))[10] * 1.001  # eleven of 33 do not matter
    for got, want in zip(mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, filter_eps=eps)[1], exact[1]):
        np.testing.assert_array_equal(got, want)
    eps = np.sort(np.abs(p).max(axis=0))[20] * 1.001
    _, (_, dweight, _) = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias, filter_eps=eps)
    assert (dweight == 0).all(axis=1).sum() == 21


# ---- memory, reproducibility, arguments


@pytest.mark.parametrize(
    "case", ["float32", "float64", "float16", "columns first", "ignored", "upstream", "parted rows", "filter"]
)
def test_memory_stays_within_the_promise(case):
    """Gradients and 64 MB, where the logits would take 240 or more."""
    n, features, classes = 3000, 16, 20_000
    dtype = np.dtype(case if case.startswith("float") else "float32")
    x, weight, bias, y = problem((n, features, classes), dtype)
    options = {"bias": bias}
    if case == "columns first":
        x, weight = np.asfortranarray(x), np.asfortranarray(weight)
    elif case == "ignored":
        y[::50] = -100
    elif case == "upstream":
        options |= {"reduction": "none", "upstream": np.linspace(-1, 1, n)}
    elif case == "parted rows":
        x, y = np.repeat(x.reshape(30, 100, 16), 2, axis=1)[:, :100], y.reshape(30, 100)
    elif case == "filter":
        options["filter_eps"] = 1e-6
    mf.linear_cross_entropy_and_grad(x[:1], weight, y[:1], **options | {"upstream": None})
    tracemalloc.start()
    _, gradients = mf.linear_cross_entropy_and_grad(x, weight, y, **options)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(g.nbytes for g in gradients)
    summed = weight.nbytes if case == "float16" else 0  # the gradient of weights of halves is summed up in float32
    assert kept <= size + 2**20
    assert peak <= size + summed + 64 * 2**20
    assert peak >= 30 * 2**20  # blocks are not so small that they are slow: the measurement sees them
    tracemalloc.start()
    mf.linear_cross_entropy(x, weight, y, bias=bias)
    assert tracemalloc.get_traced_memory()[1] <= 64 * 2**20
    tracemalloc.stop()


def test_long_rows_are_taken_one_by_one(monkeypatch):
    monkeypatch.setattr(linear, "_MEMORY", 1)
    x, weight, bias, y = problem((5, 4, 6))
    want, wanted, _, _ = dense(x, weight, y, bias=bias, divisor=5)
    loss, got = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    assert loss == pytest.approx(float(want.sum() / 5))
    for each, full in zip(got, wanted):
        np.testing.assert_allclose(each, full.astype(float), rtol=0, atol=1e-14)


def test_inputs_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(linear, "_MEMORY", 7 * (300 + 60) * 8)
    x, weight, bias, y = problem((33, 20, 300))
    u, class_weight = np.linspace(-1, 1, 33), np.linspace(1, 2, 300)
    arrays = (x, weight, bias, y, u, class_weight)
    before = [a.copy() for a in arrays]
    _, gradients = mf.linear_cross_entropy_and_grad(
        x, weight, y, bias=bias, class_weight=class_weight, reduction="none", upstream=u
    )
    for array, copy in zip(arrays, before):
        np.testing.assert_array_equal(array, copy)
    for gradient, array in itertools.product(gradients, arrays):
        assert not np.shares_memory(gradient, array)


def test_same_bits_again_and_from_two_threads_at_once(monkeypatch):
    monkeypatch.setattr(linear, "_MEMORY", 100 * (500 + 192) * 4)
    x, weight, bias, y = problem((400, 64, 500), np.float32)
    want = mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)
    results = [mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias)]

    def work():
        results.extend(mf.linear_cross_entropy_and_grad(x, weight, y, bias=bias) for _ in range(3))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 7
    for loss, gradients in results:
        assert loss == want[0]
        for got, wanted in zip(gradients, want[1]):
            np.testing.assert_array_equal(got, wanted)


X, W, Y = np.zeros((4, 3)), np.zeros((5, 3)), np.zeros(4, int)


class OnDevice:
    dtype = np.dtype(np.float32)

    def __dlpack_device__(self):
        return 2, 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((np.float64(1), W, Y), {}, ValueError, r"x: received a scalar; accepted: .*\(\.\.\., D\)"),
        ((X > 0, W, Y), {}, TypeError, "x: received an array of dtype bool"),
        ((X, W * 1j, Y), {}, TypeError, "weight: received an array of dtype complex128"),
        ((X, W[0], Y), {}, ValueError, r"weight: received shape \(3,\); accepted: \(C, 3\)"),
        ((X, W.T, Y), {}, ValueError, r"weight: received shape \(3, 5\); accepted: \(C, 3\)"),
        ((X, W[:0], Y), {}, ValueError, r"weight: received shape \(0, 3\).*at least one class"),
        ((X, W, Y[:3]), {}, ValueError, r"target: received shape \(3,\); accepted: \(4,\)"),
        ((X, W, X), {}, ValueError, r"target: .*\(4, 3\); accepted: .*\(4,\).*\(4, 5\)"),
        ((X, W, Y > 1), {}, TypeError, "target: received an array of dtype bool"),
        ((X, W, [0, 1, 5, 2]), {}, IndexError, r"target\[2\]: received 5; accepted: 0 to 4"),
        ((X, W, [0, -1, 3, 2]), {}, IndexError, r"target\[1\]: received -1; accepted: 0 to 4"),
        ((X, W, Y), {"bias": np.zeros(3)}, ValueError, r"bias: received shape \(3,\); accepted: \(5,\)"),
        ((X, W, Y), {"bias": "no"}, TypeError, "bias: received"),
        ((X, W, Y), {"class_weight": [1, 2]}, ValueError, r"class_weight: received shape \(2,\); accepted: \(5,\)"),
        ((X, W, Y), {"ignore_index": 0.5}, TypeError, "ignore_index: received 0.5"),
        ((X, W, Y), {"reduction": "max"}, ValueError, "reduction: received 'max'"),
        ((X, W, Y), {"denominator": 0}, ValueError, "denominator: received 0.0; accepted: a number > 0"),
        ((X, W, Y), {"filter_eps": -1e-6}, ValueError, "filter_eps: received -1e-06; accepted: a finite number >= 0"),
        ((X, W, Y), {"filter_eps": nan}, ValueError, "filter_eps: received nan"),
        ((X, W, Y), {"filter_eps": "all"}, TypeError, "filter_eps: received 'all'"),
        ((X, OnDevice(), Y), {}, TypeError, "weight: received an array on a CUDA device"),
        ((X, W, Y), {"bias": OnDevice()}, TypeError, "bias: received an array on a CUDA device"),
        ((X, W, Y), {"label_smoothing": 2}, ValueError, "label_smoothing: received 2"),
        ((X[:0], W, []), {"label_smoothing": nan}, ValueError, "label_smoothing: received nan"),
        ((X, W, Y), {"temperature": 0}, ValueError, "temperature: received 0"),
        ((X, W, Y), {"softcap": -1}, ValueError, "softcap: received -1"),
    ],
)
def test_what_is_refused(arguments, options, error, message):
    for function in (mf.linear_cross_entropy, mf.linear_cross_entropy_and_grad):
        with pytest.raises(error, match=message):
            function(*arguments, **options)


def test_refused_upstream():
    for upstream, error in ((np.ones(4), ValueError), (np.ones(4) > 0, TypeError), ("1", TypeError)):
        with pytest.raises(error, match="upstream: received"):
            mf.linear_cross_entropy_and_grad(X, W, Y, upstream=upstream)
