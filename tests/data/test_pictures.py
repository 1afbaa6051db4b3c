"""Pictures, in folders and alone."""

from __future__ import annotations

import numpy as np
import pytest
from data_files import (
    IMAGE_LABELS,
    IMAGES,
    RANDOM,
    error_of,
    write_pictures,
)
from mlefast.data import load
from PIL import Image


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tiff"])
def test_pictures(tmp_path, suffix):
    data = load(write_pictures(tmp_path, suffix=suffix))
    order = np.argsort(IMAGE_LABELS, kind="stable")  # folder by folder
    np.testing.assert_allclose(data.X, IMAGES[order].reshape(12, 20) / 255, rtol=1e-6)
    np.testing.assert_array_equal(data.y, [f"class {label}" for label in IMAGE_LABELS[order]])
    assert data.image_shape == (5, 4)
    assert data.sample_names[0] == str(tmp_path / "class 0" / f"000{suffix}")


def test_pictures_as_jpeg(tmp_path):
    images = np.full((4, 16, 12), [[[40]], [[90]], [[160]], [[220]]], dtype=np.uint8)
    data = load(write_pictures(tmp_path, images, [0, 0, 1, 1], ".jpg", quality=95))
    np.testing.assert_allclose(data.X, images.reshape(4, -1) / 255, atol=0.02)


def test_pictures_in_colour_and_grey_ones_among_them(tmp_path):
    colours = RANDOM.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    write_pictures(tmp_path, colours, [0, 1])
    Image.fromarray(IMAGES[0]).save(tmp_path / "class 1" / "zzz.png")
    data = load(tmp_path)
    assert data.image_shape == (5, 4, 3)
    expected = [*colours, np.repeat(IMAGES[0][..., None], 3, axis=2)]
    np.testing.assert_allclose(data.X, np.reshape(expected, (3, -1)) / 255, rtol=1e-6)


def test_pictures_stored_in_colour_but_grey(tmp_path):
    data = load(write_pictures(tmp_path, np.repeat(IMAGES[..., None], 3, axis=3)))
    assert data.image_shape == (5, 4)


def test_pictures_of_16_bits(tmp_path):
    values = np.array([[0, 256, 5000], [40000, 65535, 77]], dtype=np.uint16)
    write_pictures(tmp_path, [values, values], [0, 1])
    np.testing.assert_allclose(load(tmp_path).X[0], (values >> 8).ravel() / 255, rtol=1e-6)


def test_pictures_of_several_sizes(tmp_path):
    write_pictures(tmp_path, [np.full((6, 4), 200, np.uint8), np.full((9, 2), 100, np.uint8)], [0, 1])
    data = load(tmp_path)
    assert data.image_shape == (6, 4)
    np.testing.assert_allclose(data.X[1], 100 / 255, rtol=1e-6)
    assert load(tmp_path, image_size=(3, 7)).image_shape == (3, 7)


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned clockwise by 90 degrees when shown
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png", exif=exif)
    data = load(tmp_path / "a.png")
    assert data.image_shape == (4, 5)
    np.testing.assert_allclose(data.X[0], np.rot90(IMAGES[0], -1).ravel() / 255, rtol=1e-6)


def test_pictures_like_a_model(tmp_path):
    grey = load(write_pictures(tmp_path / "grey"))
    colours = RANDOM.integers(0, 256, (2, 10, 8, 3), dtype=np.uint8)
    write_pictures(tmp_path / "colour", colours, [0, 1])
    data = load(tmp_path / "colour", like=grey)
    assert data.image_shape == (5, 4)
    colour = load(tmp_path / "colour")
    assert load(tmp_path / "grey", like=colour).image_shape == (10, 8, 3)


def test_pictures_without_classes(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(IMAGES[0]).save(path)
    for source in (path, tmp_path):
        data = load(source)
        assert data.y is None
        assert data.sample_names == (str(path),)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".tiff"])
@pytest.mark.parametrize("damage", ["cut", "junk", "empty"])
def test_pictures_damaged(tmp_path, suffix, damage):
    write_pictures(tmp_path, RANDOM.integers(0, 256, (3, 32, 32), dtype=np.uint8), [0, 0, 1], suffix)
    path = tmp_path / "class 1" / f"002{suffix}"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "junk": b"junk" * 40, "empty": b""}[damage])
    assert str(path) in error_of(tmp_path)


def test_pictures_too_large(tmp_path, monkeypatch):
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    assert "too large" in error_of(tmp_path / "a.png")


def test_folder_without_pictures(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing")
    assert "no pictures" in error_of(tmp_path)
    (tmp_path / "class").mkdir()
    assert "no pictures" in error_of(tmp_path)
