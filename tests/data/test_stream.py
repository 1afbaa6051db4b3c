"""Data in parts: what `load` reads, every sample once, in an order that a generator decides, in little memory."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import IMAGE_LABELS, IMAGES, INTEGERS, NAMES, STRINGS, X, as_frame, write_pictures
from mlefast.data import DataError, DataWarning, _pictures, _stream, _table_streams, can_stream, load, open_stream
from PIL import Image

SUFFIXES = [".parquet", ".npy", ".csv"]


def write(path, features=X, labels=INTEGERS, **options):
    if path.suffix == ".npy":
        np.save(path, features)
        np.save(path.with_name(f"{path.stem}_labels.npy"), labels)
        return path
    frame = pd.DataFrame(features, columns=[f"feature {i}" for i in range(features.shape[1])])
    frame["target"] = labels
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path, **options)
    return path


def generator(seed=0):
    return np.random.default_rng(seed)


def whole(batches):
    X, y = zip(*batches, strict=True)
    return np.concatenate(X), np.concatenate(y)


def error_of(source, **options):
    with pytest.raises(DataError) as caught:
        list(open_stream(source, **options))
    message = str(caught.value)
    assert "\n" not in message
    assert "found" in message
    assert "accepted" in message
    return message


@pytest.fixture
def small_parts(monkeypatch):
    """Blocks, pieces and what is mixed of a few samples of the small files of these tests."""
    monkeypatch.setattr(_stream, "MIXED_BYTES", 12 * 4 * 6)
    monkeypatch.setattr(_stream, "_BLOCK_BYTES", 4 * 4 * 6)
    monkeypatch.setattr(_stream, "_LABELS_AT_ONCE", 7)
    monkeypatch.setattr(_table_streams, "_PIECE_BYTES", 300)
    monkeypatch.setattr(_table_streams, "_PART_BYTES", 3 * 4 * 6)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 30, 100])
@pytest.mark.parametrize("labels", [INTEGERS, STRINGS], ids=["integers", "strings"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("small_parts")
def test_what_load_reads(tmp_path, suffix, labels, batch_size):
    path = write(tmp_path / f"data{suffix}", labels=labels, **({"row_group_size": 8} if suffix == ".parquet" else {}))
    data = load(path)
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, labels)
    stream = open_stream(path, batch_size=batch_size)
    assert (stream.n_samples, stream.n_features, stream.name) == (30, 6, str(path))
    assert stream.feature_names == data.feature_names == (None if suffix == ".npy" else NAMES)
    assert stream.image_shape is None
    np.testing.assert_array_equal(stream.classes, np.unique(labels))
    assert stream.n_blocks > 3  # else the test says nothing about borders
    for batches in (stream, stream.epoch(None), stream.epoch()):
        batches = list(batches)
        sizes = [len(y) for _, y in batches]
        assert sizes == [min(batch_size, 30 - first) for first in range(0, 30, batch_size)]
        features, found = whole(batches)
        assert features.dtype == np.float32
        assert found.dtype.kind == data.y.dtype.kind
        np.testing.assert_array_equal(features, X)
        np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize("suffix", [*SUFFIXES, "folder"])
@pytest.mark.usefixtures("small_parts")
def test_random_order(tmp_path, suffix):
    path = write_pictures(tmp_path / "pictures") if suffix == "folder" else write(tmp_path / f"data{suffix}")
    data = load(path)
    stream = open_stream(path, batch_size=5)
    random = generator()
    first, again, second, other = (whole(stream.epoch(each)) for each in (random, generator(), random, generator(1)))
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for features, labels in (first, second, other):
        assert sorted(map(tuple, features)) == sorted(map(tuple, data.X))
        place = {tuple(row): label for row, label in zip(data.X, data.y, strict=True)}
        assert [place[tuple(row)] for row in features] == labels.tolist()
        assert not np.array_equal(features, data.X)
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_generator_is_used_at_the_call_alone(tmp_path, suffix):
    """Whatever else is drawn from it during an epoch, such as dropout, changes nothing."""
    stream = open_stream(write(tmp_path / f"data{suffix}"), batch_size=5)
    expected = whole(stream.epoch(generator()))
    random = generator()
    batches = []
    for batch in stream.epoch(random):
        random.random(3)
        batches.append(batch)
    np.testing.assert_array_equal(whole(batches)[0], expected[0])


@pytest.mark.usefixtures("small_parts")
def test_sorted_classes_are_mixed(tmp_path):
    path = write(tmp_path / "X.npy", labels=np.sort(INTEGERS))
    batches = list(open_stream(path, batch_size=6).epoch(generator()))
    assert sum(len(set(y.tolist())) > 1 for _, y in batches) >= 4


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_batches_belong_to_the_caller(tmp_path, suffix):
    stream = open_stream(write(tmp_path / f"data{suffix}"), batch_size=8)
    for random in (None, generator()):
        for features, _ in stream.epoch(random):
            features += 1
    np.testing.assert_array_equal(whole(stream)[0], X)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_is_bounded(tmp_path, monkeypatch, suffix):
    """Ten times the data take no more memory."""
    for name, size in (("MIXED_BYTES", 1 << 16), ("_BLOCK_BYTES", 1 << 13), ("_LABELS_AT_ONCE", 1000)):
        monkeypatch.setattr(_stream, name, size)
    monkeypatch.setattr(_table_streams, "_PIECE_BYTES", 1 << 15)
    monkeypatch.setattr(_table_streams, "_PART_BYTES", 1 << 15)
    peaks = []
    for n_samples in (1000, 10_000):
        features = generator().integers(0, 9, (n_samples, 32)).astype(np.float32)
        options = {"row_group_size": 500} if suffix == ".parquet" else {}
        path = write(tmp_path / f"{n_samples}{suffix}", features, np.arange(n_samples) % 3, **options)
        bytes_of_features = features.nbytes
        del features
        whole(open_stream(path, batch_size=64).epoch(generator()))  # imports are no part of it
        gc.collect()
        tracemalloc.start()
        pa_before = pa.total_allocated_bytes()
        stream = open_stream(path, batch_size=64)
        assert len(stream.classes) == 3
        for batch, _ in stream.epoch(generator()):
            assert len(batch) <= 64
            assert pa.total_allocated_bytes() - pa_before < 1 << 21
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 0.6 * bytes_of_features


def test_large_row_groups_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(_table_streams, "_PART_BYTES", 4 * 4 * 6)
    stream = open_stream(write(tmp_path / "data.parquet"), batch_size=30)
    assert stream.n_blocks == 1
    assert [part.n_samples for part in stream.read_block(0)] == [4] * 7 + [2]


@pytest.mark.parametrize(
    ("features", "labels", "target"),
    [
        ("X.npy", "y.npy", None),
        ("x_train.npy", "y_train.npy", None),
        ("data.npy", "data_labels.npy", None),
        ("X.npy", "X_labels.npy", None),
        ("data.npy", "kinds.npy", "kinds.npy"),
    ],
)
def test_labels_of_npy(tmp_path, features, labels, target):
    np.save(tmp_path / features, X.astype(np.float64))
    np.save(tmp_path / labels, STRINGS[:, None])
    for source in (load(tmp_path / features, target=target), open_stream(tmp_path / features, target=target)):
        found = source.y if hasattr(source, "y") else whole(source)[1]
        np.testing.assert_array_equal(found, STRINGS)


def test_images_in_npy(tmp_path):
    np.save(tmp_path / "X.npy", IMAGES)
    np.save(tmp_path / "y.npy", IMAGE_LABELS)
    stream, data = open_stream(tmp_path / "X.npy", batch_size=5), load(tmp_path / "X.npy")
    assert stream.image_shape == data.image_shape == (5, 4)
    np.testing.assert_array_equal(whole(stream)[0], data.X)
    assert data.X.max() <= 1


def test_npy_without_labels(tmp_path):
    np.save(tmp_path / "X.npy", X)
    stream = open_stream(tmp_path / "X.npy", batch_size=7)
    assert stream.classes is None
    assert all(y is None for _, y in stream.epoch(generator()))
    assert load(tmp_path / "X.npy").y is None


@pytest.mark.parametrize(
    ("array", "labels", "found"),
    [
        (np.zeros(3), None, "an array of shape (3,)"),
        (np.zeros((0, 3)), None, "an array of shape (0, 3)"),
        (np.zeros((3, 2)), np.zeros(4, int), "labels of shape (4,)"),
        (np.array([["a", "b"]]), None, "features of dtype <U1"),
        (np.array([[1.0, np.inf]] * 3), np.arange(3), "inf in sample 0, feature 1 (3 such values)"),
        (np.zeros((3, 2)), np.array([1, 1.5, 2]), "the label 1.5"),
        (np.zeros((3, 2)), np.array(["a", "", "c"]), "no label for sample 1"),
        (np.array([[{}]]), None, "a file that cannot be read"),
    ],
)
def test_wrong_npy(tmp_path, array, labels, found):
    np.save(tmp_path / "X.npy", array)
    if labels is not None:
        np.save(tmp_path / "y.npy", labels)
    assert found in error_of(tmp_path / "X.npy")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "X.npy")
    assert found in str(caught.value)


def test_damaged_npy(tmp_path):
    np.save(tmp_path / "X.npy", X)
    content = (tmp_path / "X.npy").read_bytes()
    (tmp_path / "X.npy").write_bytes(content[:-9])
    assert "cannot be read" in error_of(tmp_path / "X.npy")
    np.savez(tmp_path / "a.npz", X=X)
    (tmp_path / "a.npz").rename(tmp_path / "X.npy")
    assert "an archive" in error_of(tmp_path / "X.npy")
    assert "no file" in error_of(write(tmp_path / "b.npy"), target="c.npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("small_parts")
def test_samples_are_numbered_in_the_source(tmp_path, suffix):
    features = X.copy()
    features[23, 2] = np.nan
    path = write(tmp_path / f"data{suffix}", features, **({"row_group_size": 8} if suffix == ".parquet" else {}))
    assert "nan in sample 23" in error_of(path, batch_size=4)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1"] * 20 + ["dog"] * 10, "U"),  # only all of them together tell what they are
        (["01"] * 20 + ["1"] * 10, "i"),
        (["1"] * 20 + ["2.0"] * 10, "i"),
        (['with "quotes"'] * 20 + ["with,\ncommas"] * 10, "U"),
        ([" "] * 20 + ["x"] * 10, "U"),
        (["True"] * 20 + ["False"] * 10, "i"),
    ],
)
def test_labels_of_csv_are_those_of_load(tmp_path, labels, expected):
    as_frame(labels).to_csv(tmp_path / "data.csv", index=False)
    data, stream = load(tmp_path / "data.csv"), open_stream(tmp_path / "data.csv", batch_size=4)
    features, found = whole(stream)
    np.testing.assert_array_equal(features, data.X)
    np.testing.assert_array_equal(found, data.y)
    np.testing.assert_array_equal(stream.classes, np.unique(data.y))
    assert found.dtype.kind == expected
    assert stream.n_blocks > 2


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("options", [{}, {"index": True}, {"header": False}, {"lineterminator": "\r\n"}], ids=str)
def test_kinds_of_csv(tmp_path, options):
    as_frame(STRINGS).to_csv(tmp_path / "data.csv", **{"index": False, **options})
    data, stream = load(tmp_path / "data.csv"), open_stream(tmp_path / "data.csv", batch_size=4)
    features, found = whole(stream)
    np.testing.assert_array_equal(features, data.X)
    np.testing.assert_array_equal(found, data.y)
    assert stream.feature_names == data.feature_names


@pytest.mark.usefixtures("small_parts")
def test_csv_with_blank_lines_and_a_byte_order_mark(tmp_path):
    text = "\n\n" + as_frame(STRINGS).to_csv(index=False).replace("\n", "\n\n\n") + "\n" * 900
    (tmp_path / "data.csv").write_text(text, encoding="utf-8-sig")
    stream = open_stream(tmp_path / "data.csv", batch_size=4)
    assert stream.n_samples == 30
    np.testing.assert_array_equal(whole(stream)[0], X)


def test_csv_without_samples(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,target\n")
    assert "0 samples" in error_of(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("")
    assert "cannot be read" in error_of(tmp_path / "a.csv")


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1,2,3,4,5,6,7,8,9,0", "10 columns from sample 20 on"),
        ("1,2,x,4,5,6,0", "columns that are not numeric: 'feature 2'"),
        ("1,2,,4,5,6,0", "nan in sample 20"),
        ("1,2,3,4,5,6,", "no label for sample 20"),
    ],
)
def test_wrong_csv(tmp_path, line, found):
    lines = as_frame(INTEGERS).to_csv(index=False).splitlines()
    (tmp_path / "data.csv").write_text("\n".join([*lines[:21], line, *lines[21:]]))
    assert found in error_of(tmp_path / "data.csv")
    lines[9:] = [each + ",1" for each in lines[9:]]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    assert "data.csv" in error_of(tmp_path / "data.csv")


def test_csv_that_changes(tmp_path):
    path = write(tmp_path / "data.csv")
    stream = open_stream(path)
    assert len(stream.classes) == 3
    path.write_text(path.read_text().replace(",2\n", ",7\n"))
    with pytest.raises(DataError, match="another label in sample 2 "):
        list(stream)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_like_a_model(tmp_path, suffix):
    model = load(write(tmp_path / f"train{suffix}"))
    frame = as_frame(STRINGS, "kind")
    frame["more"] = 1
    frame = frame[["more", *reversed(NAMES), "kind"]]
    path = tmp_path / f"new{suffix}"
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    stream = open_stream(path, like=model)
    assert (stream.classes, stream.feature_names) == (None, NAMES)
    ((features, labels),) = stream
    np.testing.assert_array_equal(features, X)
    assert labels is None
    np.testing.assert_array_equal(open_stream(path, like=model, target="kind").classes, np.unique(STRINGS))
    assert "no columns" in error_of(write(tmp_path / f"few{suffix}", X[:, :4]), like=model)


def test_wrong_number_of_features(tmp_path):
    model = load(write(tmp_path / "X.npy"))
    assert "4 features" in error_of(write(tmp_path / "few.npy", X[:, :4]), like=model)


def test_what_cannot_be_streamed(tmp_path):
    np.savez(tmp_path / "data.npz", X=X, y=INTEGERS)
    for source in ("digits", tmp_path / "data.npz"):
        assert "only read as a whole" in error_of(source)
        assert not can_stream(source)
    assert "no such file" in error_of(tmp_path / "absent.csv")
    assert "image size" in error_of(write(tmp_path / "a.csv"), image_size=(3, 3))
    with pytest.raises(ValueError, match=r"batch_size: received 0; accepted: an integer >= 1"):
        open_stream(tmp_path / "a.csv", batch_size=0)
    with pytest.raises(ValueError, match=r"corrupt: received 'ask'; accepted: 'fail' or 'skip'"):
        open_stream(tmp_path / "a.csv", corrupt="ask")


def test_pictures(tmp_path):
    data = load(write_pictures(tmp_path))
    stream = open_stream(tmp_path, batch_size=5)
    assert (stream.n_samples, stream.n_features, stream.image_shape) == (12, 20, (5, 4))
    np.testing.assert_array_equal(stream.classes, np.unique(data.y))
    features, labels = whole(stream)
    np.testing.assert_array_equal(features, data.X)
    np.testing.assert_array_equal(labels, data.y)
    assert [name for batch in stream.batches() for name in batch.sample_names] == list(data.sample_names)
    assert open_stream(tmp_path, image_size=(2, 3)).image_shape == (2, 3)


@pytest.mark.parametrize("last", ["grey", "grey in colour", "colour"])
def test_pictures_are_grey_if_all_are(tmp_path, last):
    write_pictures(tmp_path)
    picture = Image.fromarray(IMAGES[0])
    if last != "grey":
        picture = picture.convert("RGB")
    if last == "colour":
        picture.putpixel((1, 1), (1, 2, 3))
    picture.save(tmp_path / "class 2" / "zzz.png")
    data, stream = load(tmp_path), open_stream(tmp_path)
    assert stream.image_shape == data.image_shape == ((5, 4, 3) if last == "colour" else (5, 4))
    np.testing.assert_array_equal(whole(stream)[0], data.X)


def test_few_pictures_are_read_ahead(tmp_path, monkeypatch):
    write_pictures(tmp_path, np.zeros((200, 5, 4), np.uint8), np.arange(200) % 2)
    stream = open_stream(tmp_path, batch_size=10)
    read, lock, real = [], threading.Lock(), _pictures.read_picture

    def count(path, **options):
        with lock:
            read.append(path)
        return real(path, **options)

    monkeypatch.setattr(_pictures, "read_picture", count)
    monkeypatch.setattr(_pictures, "_n_threads", lambda: 3)
    before = threading.active_count()
    batches = stream.epoch(generator())
    for i in range(1, 6):
        next(batches)
        assert 10 * i <= len(read) <= 10 * i + 4 * 3
    batches.close()  # nothing goes on in the background
    assert threading.active_count() == before
    assert len(read) <= 50 + 4 * 3


DAMAGE = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"no picture at all\n" * 20,
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tiff", ".bmp", ".webp"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_corrupt_pictures(tmp_path, suffix, damage):
    images = generator().integers(0, 256, (6, 32, 32), dtype=np.uint8)
    write_pictures(tmp_path, images, [0, 0, 0, 1, 1, 1], suffix)
    bad = tmp_path / "class 1" / f"004{suffix}"
    bad.write_bytes(DAMAGE[damage](bad.read_bytes()))
    reason = error_of(tmp_path)
    assert reason.startswith(f"{bad}: found a file that cannot be read (")
    with pytest.raises(DataError, match="004"):
        load(tmp_path)
    with pytest.warns(DataWarning, match="004") as caught:
        data = load(tmp_path, corrupt="skip")
    assert len(caught) == 1
    assert data.y.tolist() == ["class 0"] * 3 + ["class 1"] * 2
    assert str(bad) not in data.sample_names
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream = open_stream(tmp_path, batch_size=4, corrupt="skip")
        first, second = whole(stream), whole(stream)
    assert [str(warning.message) for warning in caught] == [f"{reason}; it is left out"]  # not again in every epoch
    assert stream.n_samples is None
    np.testing.assert_array_equal(first[0], data.X)
    np.testing.assert_array_equal(first[1], data.y)
    np.testing.assert_array_equal(second[0], data.X)


def test_first_picture_is_corrupt(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "class 0" / "000.png").write_bytes(b"")
    with pytest.warns(DataWarning, match=r"000\.png"):
        assert load(tmp_path, corrupt="skip").image_shape == (5, 4)


def test_all_pictures_are_corrupt(tmp_path):
    write_pictures(tmp_path, IMAGES[:2], IMAGE_LABELS[:2])
    for path in tmp_path.glob("*/*"):
        path.write_bytes(b"")
    for read in (load, open_stream):
        with pytest.raises(DataError, match="none of which can be read"), pytest.warns(DataWarning):
            read(tmp_path, corrupt="skip")
        with pytest.raises(DataError, match="none of which can be read"), pytest.warns(DataWarning):
            list(read(tmp_path, corrupt="skip", image_size=(3, 3)))


def kinds_of_pictures():
    random = generator(1)
    grey = Image.fromarray(random.integers(0, 256, (6, 5), dtype=np.uint8))
    colour = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    palette = colour.quantize(16)
    clear = palette.copy()
    clear.info["transparency"] = bytes(range(16))
    return {
        "bits.png": (grey.convert("1"), {}),
        "grey.png": (grey, {}),
        "alpha.png": (grey.convert("LA"), {}),
        "colour.png": (colour, {}),
        "colour_alpha.png": (colour.convert("RGBA"), {}),
        "palette.png": (palette, {}),
        "transparent.png": (clear, {"transparency": bytes(range(16))}),
        "bits16.png": (Image.fromarray(random.integers(0, 65536, (6, 5)).astype(np.uint16)), {}),
        "bits16.tiff": (Image.fromarray(random.integers(0, 65536, (6, 5)).astype(np.uint16)), {}),
        "bits32.tiff": (Image.fromarray(random.integers(0, 65536, (6, 5)).astype(np.int32)), {}),
        "cmyk.jpg": (colour.convert("CMYK"), {"quality": 95}),
        "cmyk.tiff": (colour.convert("CMYK"), {}),
        "ycc.jpg": (colour, {"quality": 95}),
        "animated.gif": (colour, {"save_all": True, "append_images": [colour.rotate(180)]}),
        "animated.webp": (colour, {"save_all": True, "append_images": [colour.rotate(180)], "lossless": True}),
        "pages.tiff": (colour, {"save_all": True, "append_images": [grey]}),
    }


@pytest.mark.parametrize("name", kinds_of_pictures())
def test_kinds_of_pictures(tmp_path, name):
    picture, options = kinds_of_pictures()[name]
    path = tmp_path / "pictures" / name
    path.parent.mkdir()
    picture.save(path, **options)
    data = load(path)
    if picture.mode.startswith("I"):
        expected = (np.asarray(picture) >> 8)[..., None]
    else:
        expected = np.asarray(picture.convert("RGBA" if name == "transparent.png" else "RGB"))[..., :3]
    found = data.X.reshape(6, 5, -1) * 255
    tolerance = 60 if name in ("cmyk.jpg", "ycc.jpg", "animated.gif") else 0.01
    assert np.abs(found - expected).max() <= (tolerance if tolerance < 1 else 255)
    assert np.abs(found - expected).mean() <= tolerance
    stream = open_stream(tmp_path / "pictures")
    np.testing.assert_array_equal(next(iter(stream))[0], data.X)
    assert stream.image_shape == data.image_shape
    assert (len(data.image_shape) == 3) == (picture.mode not in ("1", "L", "LA", "I;16", "I"))


@pytest.mark.parametrize(
    ("values", "found"),
    [(np.full((3, 3), 0.5, np.float32), "floating-point"), (np.full((3, 3), 70000, np.int32), "to 70000")],
)
def test_pixels_that_have_no_8_bits(tmp_path, values, found):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=found):
        load(tmp_path / "a.tiff")


def test_folder_of_pictures_as_training_data_of_a_model(tmp_path):
    grey = load(write_pictures(tmp_path / "grey"))
    write_pictures(tmp_path / "colour", generator().integers(0, 256, (3, 9, 9, 3), dtype=np.uint8), [0, 1, 2])
    stream = open_stream(tmp_path / "colour", like=grey)
    assert stream.image_shape == grey.image_shape
    np.testing.assert_array_equal(whole(stream)[0], load(tmp_path / "colour", like=grey).X)


def test_paths_are_not_needed_as_strings(tmp_path):
    path = write(tmp_path / "a.npy")
    assert open_stream(str(path)).n_samples == open_stream(Path(path)).n_samples == 30


def test_batches_of_large_samples_are_smaller(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((40, 300_000), np.float16))
    assert open_stream(tmp_path / "X.npy").batch_size == 13
    assert open_stream(write(tmp_path / "a.npy")).batch_size == 1024
