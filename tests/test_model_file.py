"""Model files: what is written comes back, writing is all or nothing, and a damaged file gives one clear error."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import stat
import warnings
from itertools import pairwise

import numpy as np
import pytest
import safetensors.numpy
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlefast import _files, model_file
from mlefast.estimators.activations import ACTIVATIONS
from mlefast.model_file import LinearModel, ModelFileError, NetworkModel, load, save
from scipy.special import log_softmax, softmax

RANDOM = np.random.default_rng(5)
SUFFIXES = [".npz", ".safetensors"]


def make_model(classes=("ä", "b", "c"), n_features=6, **options):
    rows = 1 if len(classes) == 2 else len(classes)
    return LinearModel(
        RANDOM.standard_normal((rows, n_features)), RANDOM.standard_normal(rows), np.array(classes), **options
    )


def assert_same(a, b):
    np.testing.assert_array_equal(a.coef, b.coef)
    np.testing.assert_array_equal(a.intercept, b.intercept)
    np.testing.assert_array_equal(a.classes, b.classes)
    assert a.classes.dtype == b.classes.dtype
    assert (a.feature_names, a.image_shape, a.metadata) == (b.feature_names, b.image_shape, b.metadata)


def error_of(call, *args):
    with pytest.raises(ModelFileError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("classes", [("ä", "b", "c"), (0, 1, 2, 9), (-(2**62), 7), ("no", "yes")])
def test_round_trip(tmp_path, suffix, classes):
    model = make_model(
        classes,
        feature_names=("é", "", "a b", "x" * 300, '"', "\\"),
        image_shape=(3, 2),
        metadata={"data": "digits", "C": 1.5, "none": None, "list": [1, 2]},
    )
    save(tmp_path / f"m{suffix}", model)
    assert_same(load(tmp_path / f"m{suffix}"), model)
    save(str(tmp_path / f"n{suffix}"), make_model(classes))
    assert load(str(tmp_path / f"n{suffix}")).feature_names is None


@settings(max_examples=50, deadline=None)
@given(
    classes=st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=8, unique=True),
        # a NumPy string cannot end in a null character
        st.lists(st.text().map(lambda s: s.rstrip("\0")), min_size=2, max_size=8, unique=True),
    ),
    names=st.one_of(st.none(), st.tuples(st.text(), st.text())),
    suffix=st.sampled_from(SUFFIXES),
)
def test_any_class_and_name_survives(tmp_path_factory, classes, names, suffix):
    model = make_model(classes, 2, feature_names=names)
    path = tmp_path_factory.mktemp("models") / f"m{suffix}"
    save(path, model)
    assert_same(load(path), model)


@pytest.mark.parametrize("classes", [("a", "b", "c"), ("a", "b")])
@pytest.mark.parametrize("as_features", [np.asarray, np.float32, scipy.sparse.csr_matrix])
def test_predictions(monkeypatch, classes, as_features):
    monkeypatch.setattr(model_file, "_ROWS_AT_ONCE", 4)  # several blocks, the last one shorter
    model = make_model(classes)
    X = as_features(RANDOM.standard_normal((11, 6)))
    dense = X.toarray() if scipy.sparse.issparse(X) else X
    logits = dense @ model.coef.T + model.intercept
    if len(classes) == 2:
        logits = np.hstack([np.zeros((11, 1)), logits])
    np.testing.assert_allclose(model.logits(X), logits, rtol=1e-12)
    np.testing.assert_allclose(model.predict_proba(X), softmax(logits, axis=1), rtol=1e-12)
    np.testing.assert_allclose(model.predict_log_proba(X), log_softmax(logits, axis=1), rtol=1e-11)
    np.testing.assert_array_equal(model.predict(X), np.array(classes)[logits.argmax(axis=1)])


def test_wrong_number_of_features():
    for shape in [(3, 5), (6,)]:
        with pytest.raises(ValueError, match=r"accepted: \(samples, 6\)"):
            make_model().logits(np.zeros(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coef": np.zeros((2, 6))}, "coef"),
        ({"coef": np.zeros(6)}, "coef"),
        ({"coef": np.zeros((3, 0))}, "coef"),
        ({"coef": np.full((3, 6), np.nan)}, "NaN"),
        ({"intercept": np.zeros(2)}, "intercept"),
        ({"intercept": np.full(3, np.inf)}, "infinite"),
        ({"classes": np.array(["a", "a", "b"])}, "different"),
        ({"classes": np.array([1.5, 2, 3])}, "integers or strings"),
        ({"classes": np.array([[1, 2, 3]])}, "integers or strings"),
        ({"classes": np.array(["a"])}, "2 or more"),
        ({"classes": np.array([None, "a", "b"], dtype=object)}, "integers or strings"),
        ({"feature_names": ("a",)}, "feature_names"),
        ({"image_shape": (2, 2)}, "image_shape"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    parts = {"coef": np.zeros((3, 6)), "intercept": np.zeros(3), "classes": np.arange(3), **changes}
    with pytest.raises(ValueError, match=message):
        LinearModel(**parts)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_pickled(tmp_path, suffix):
    save(tmp_path / f"m{suffix}", make_model())
    if suffix == ".npz":
        with np.load(tmp_path / "m.npz", allow_pickle=False) as archive:
            assert sorted(archive.files) == ["coef", "header", "intercept"]
    else:
        assert sorted(safetensors.numpy.load_file(tmp_path / "m.safetensors")) == ["coef", "intercept"]


class DisasterError(Exception):
    pass


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("disaster", [OSError(28, "No space left on device"), KeyboardInterrupt(), DisasterError()])
def test_failure_while_writing_keeps_the_old_file(tmp_path, monkeypatch, suffix, step, disaster):
    path = tmp_path / f"m{suffix}"
    old = make_model()
    save(path, old)

    def fail(*args, **kwargs):
        raise disaster

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (type(path), "replace")}[step], fail)
    with pytest.raises(ModelFileError if isinstance(disaster, OSError) else type(disaster)):
        save(path, make_model())
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert_same(load(path), old)


def test_the_file_is_complete_before_it_takes_its_place(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    steps = []
    real_fsync = os.fsync
    real_replace = type(path).replace

    def fsync(descriptor):
        steps.append(("fsync", os.fstat(descriptor).st_size))
        real_fsync(descriptor)

    def replace(self, target):
        assert self.parent == tmp_path  # a rename across file systems would not be atomic
        assert not path.exists()
        steps.append(("replace", self.stat().st_size))
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(type(path), "replace", replace)
    save(path, make_model())
    size = path.stat().st_size
    assert steps[:2] == [("fsync", size), ("replace", size)]
    assert [name for name, _ in steps[2:]] == ["fsync"]  # of the folder, so that the new name lasts


def test_permissions_and_links_survive(tmp_path):
    path, link = tmp_path / "m.npz", tmp_path / "link.npz"
    save(path, make_model())
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    path.chmod(0o640)
    link.symlink_to(path)
    new = make_model()
    save(link, new)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert_same(load(path), new)


@pytest.mark.parametrize("call", [load, lambda path: save(path, make_model()), model_file.check_target])
def test_unknown_suffix(tmp_path, call):
    for name in ("m.pkl", "m"):
        message = error_of(call, tmp_path / name)
        assert ".npz or .safetensors" in message
        assert str(tmp_path / name) in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", [lambda path: save(path, make_model()), model_file.check_target])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_where_nothing_can_be_written(tmp_path, call, suffix):
    assert "No such file or directory" in error_of(call, tmp_path / "absent" / f"m{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    assert "no regular file" in error_of(call, tmp_path / f"folder{suffix}")
    (tmp_path / "file").touch()
    assert str(tmp_path / "file" / f"m{suffix}") in error_of(call, tmp_path / "file" / f"m{suffix}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", f"folder{suffix}"]


def test_write_protected(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    save(path, make_model())
    monkeypatch.setattr(_files.os, "access", lambda *args: False)  # root may write everywhere
    assert "write-protected" in error_of(model_file.check_target, path)
    assert "write-protected" in error_of(save, path, make_model())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_check_target_touches_nothing(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    model_file.check_target(path)
    assert list(tmp_path.iterdir()) == []
    save(path, make_model())
    before = path.read_bytes(), path.stat().st_mtime_ns
    model_file.check_target(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_metadata_that_is_no_json(tmp_path):
    assert "JSON" in error_of(save, tmp_path / "m.npz", make_model(metadata={"a": {1, 2}}))
    assert list(tmp_path.iterdir()) == []


def header_of(model, **changes):
    fields = {
        "format": "mlefast.linear/1",
        "classes": model.classes.tolist(),
        "feature_names": None,
        "image_shape": None,
        "metadata": {},
    }
    return json.dumps({**fields, **changes})


def write_raw(path, arrays, header):
    if path.suffix == ".npz":
        np.savez(path, header=np.array(header), **arrays)
    else:
        safetensors.numpy.save_file(arrays, path, metadata={"header": header})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "change",
    [
        {"format": "mlefast.linear/2"},
        {"classes": ["a", "b"]},
        {"classes": ["a", "b", "b"]},
        {"classes": ["a", "b", 3]},
        {"classes": [1.5, 2.5, 3.5]},
        {"classes": [True, False]},
        {"classes": 3},
        {"classes": []},
        {"feature_names": ["a"]},
        {"feature_names": 5},
        {"image_shape": [2, 2]},
        {"image_shape": ["a"]},
        {"metadata": 7},
    ],
    ids=str,
)
def test_header_that_does_not_fit(tmp_path, suffix, change):
    model = make_model()
    path = tmp_path / f"m{suffix}"
    arrays = {"coef": model.coef, "intercept": model.intercept}
    write_raw(path, arrays, header_of(model))
    assert_same(load(path), model)
    write_raw(path, arrays, header_of(model, **change))
    assert str(path) in error_of(load, path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("header", ["", "[]", "{}", "null", "{", "7"])
def test_header_of_another_kind(tmp_path, suffix, header):
    model = make_model()
    write_raw(tmp_path / f"m{suffix}", {"coef": model.coef, "intercept": model.intercept}, header)
    assert f"m{suffix}" in error_of(load, tmp_path / f"m{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_arrays_that_do_not_fit(tmp_path, suffix):
    model = make_model()
    path = tmp_path / f"m{suffix}"
    write_raw(path, {"coef": model.coef}, header_of(model))
    assert "intercept" in error_of(load, path)
    write_raw(path, {"coef": model.coef[:2], "intercept": model.intercept}, header_of(model))
    assert "coef" in error_of(load, path)


def test_other_files(tmp_path):
    path = tmp_path / "m.npz"
    assert "No such file" in error_of(load, path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert str(path) in error_of(load, path)
    np.savez(path, coef=np.array([{}]), intercept=np.zeros(3), header=np.array("{}"))
    assert "allow_pickle" in error_of(load, path)
    safetensors.numpy.save_file({"coef": np.zeros((3, 6))}, tmp_path / "m.safetensors")
    assert "m.safetensors" in error_of(load, tmp_path / "m.safetensors")
    assert "No such file" in error_of(load, tmp_path / "absent.safetensors")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_gives_model_file_errors_only(tmp_path, data):
    suffix = data.draw(st.sampled_from(SUFFIXES))
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"m{suffix}"
    if not whole.exists():
        save(whole, make_model(feature_names=tuple("abcdef"), image_shape=(2, 3), metadata={"a": 1}))
    content = bytearray(whole.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:position]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with warnings.catch_warnings(), contextlib.suppress(ModelFileError):
        warnings.simplefilter("ignore")
        load(path)


@pytest.mark.parametrize("call", [load, lambda path: save(path, make_model()), model_file.check_target])
def test_without_safetensors(tmp_path, monkeypatch, call):
    path = tmp_path / "m.safetensors"
    save(path, make_model())
    real_import = builtins.__import__

    def without_it(name, *args, **kwargs):
        if name.startswith("safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_it)
    assert 'pip install "mlefast[data]"' in error_of(call, path)


def make_network(sizes=(6, 5, 4, 3), activation="gelu", **options):
    coefs = tuple(RANDOM.standard_normal(shape) for shape in pairwise(sizes))
    intercepts = tuple(RANDOM.standard_normal(size) for size in sizes[1:])
    return NetworkModel(coefs, intercepts, activation, np.arange(sizes[-1]), **options)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 4, 3), (1, 2, 2), (6, *[2] * 20, 2)])
def test_network_round_trip(tmp_path, suffix, sizes):
    model = make_network(sizes, feature_names=tuple("abcdef")[: sizes[0]], metadata={"data": "digits"})
    save(tmp_path / f"m{suffix}", model)
    loaded = load(tmp_path / f"m{suffix}")
    for name in ("coefs", "intercepts"):
        assert len(getattr(loaded, name)) == len(sizes) - 1
        for a, b in zip(getattr(loaded, name), getattr(model, name), strict=True):
            np.testing.assert_array_equal(a, b)
    assert (loaded.activation, loaded.feature_names, loaded.metadata) == ("gelu", model.feature_names, model.metadata)
    X = RANDOM.standard_normal((9, sizes[0])).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("as_features", [np.asarray, np.float32, scipy.sparse.csr_matrix])
def test_predictions_of_a_network(as_features):
    model = make_network(activation="tanh")
    X = as_features(RANDOM.standard_normal((11, 6)))
    values = X.toarray() if scipy.sparse.issparse(X) else X.astype(np.float64)
    for coef, intercept in zip(model.coefs[:-1], model.intercepts[:-1], strict=True):
        values = np.tanh(values @ coef + intercept)
    logits = values @ model.coefs[-1] + model.intercepts[-1]
    np.testing.assert_allclose(model.logits(X), logits, rtol=1e-12)
    assert model.logits(X).dtype == np.float64
    np.testing.assert_allclose(model.predict_log_proba(X), log_softmax(logits, axis=1), rtol=1e-11)
    np.testing.assert_array_equal(model.predict(X), logits.argmax(axis=1))
    with pytest.raises(ValueError, match=r"accepted: \(samples, 6\)"):
        model.logits(np.zeros((3, 5)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coefs": (np.zeros((6, 5)), np.zeros((4, 3)))}, "coefs: received shapes"),
        ({"coefs": (np.zeros((6, 5)), np.zeros((5, 2)))}, "coefs: received shapes"),
        ({"coefs": ()}, "coefs: received shapes"),
        ({"coefs": (np.zeros(6),)}, "coefs: received shapes"),
        ({"coefs": (np.zeros((6, 0)), np.zeros((0, 3)))}, "coefs: received shapes"),
        ({"coefs": (np.full((6, 5), np.nan), np.zeros((5, 3)))}, "coefs: .*NaN"),
        ({"intercepts": (np.zeros(5),)}, "intercepts: received shapes"),
        ({"intercepts": (np.zeros(5), np.full(3, np.inf))}, "intercepts: .*infinite"),
        ({"activation": "sigmoid"}, "activation: received 'sigmoid'"),
        ({"classes": np.array(["a", "a", "b"])}, "different"),
        ({"feature_names": ("a",)}, "feature_names"),
        ({"image_shape": (2, 2)}, "image_shape"),
    ],
)
def test_parts_of_a_network_that_do_not_fit(changes, message):
    parts = {
        "coefs": (np.zeros((6, 5)), np.zeros((5, 3))),
        "intercepts": (np.zeros(5), np.zeros(3)),
        "activation": "relu",
        "classes": np.arange(3),
    }
    NetworkModel(**parts)
    with pytest.raises(ValueError, match=message):
        NetworkModel(**{**parts, **changes})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "change",
    [{"format": "mlefast.network/2"}, {"format": "mlefast.linear/1"}, {"layers": 0}, {"layers": 4}, {"layers": "two"},
     {"layers": -1}, {"activation": None}, {"activation": ["relu"]}, {"classes": [1, 2]}],
    ids=str,
)  # fmt: skip
def test_header_of_a_network_that_does_not_fit(tmp_path, suffix, change):
    model = make_network()
    path = tmp_path / f"m{suffix}"
    arrays = {f"coef_{i}": coef for i, coef in enumerate(model.coefs)}
    arrays |= {f"intercept_{i}": intercept for i, intercept in enumerate(model.intercepts)}
    good = {"format": "mlefast.network/1", "layers": 3, "activation": "gelu"}
    write_raw(path, arrays, header_of(model, **good))
    np.testing.assert_array_equal(load(path).coefs[1], model.coefs[1])
    write_raw(path, arrays, header_of(model, **{**good, **change}))
    assert str(path) in error_of(load, path)


def test_activations_are_those_of_the_estimators():
    assert set(model_file._ACTIVATIONS) == set(ACTIVATIONS)
