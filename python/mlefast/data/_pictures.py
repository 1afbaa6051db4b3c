"""Pictures: a folder with a subfolder for each class, a folder of unlabelled pictures, or one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mlefast.data._dataset import Dataset, Layout, images_to_rows, make_dataset, reading, wrong_data

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

Mode = Literal["L", "RGB"]  # Pillow's names of 8-bit grey values and colours


def read_picture_folder(folder: Path, image_size: tuple[int, int] | None, like: Layout | None) -> Dataset:
    """Read the pictures in each subfolder, whose name is the label; without subfolders, pictures without labels."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    paths = [path for each in classes or [folder] for path in _pictures_in(each)]
    if not paths:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise wrong_data(folder, "no pictures", f"a subfolder for each class with {suffixes} files, or MNIST's files")
    labels = [path.parent.name for path in paths] if classes else None
    return read_pictures(folder, paths, labels, image_size, like)


def read_pictures(
    name: Path, paths: list[Path], labels: list[str] | None, image_size: tuple[int, int] | None, like: Layout | None
) -> Dataset:
    """Read pictures at one size, as grey values if all are grey (or the model takes such), else in colour."""
    mode: Mode = "RGB"
    size = image_size
    if like is not None and like.image_shape is not None:
        mode = "L" if len(like.image_shape) == 2 else "RGB"
        size = (like.image_shape[0], like.image_shape[1])
    pictures = []
    for path in paths:
        pixels = _read_picture(path, mode, size)
        size = size or (pixels.shape[0], pixels.shape[1])
        pictures.append(pixels)
    images = np.stack(pictures)
    if like is None and (images == images[..., :1]).all():  # red, green and blue are the same everywhere
        images = images[..., 0]
    X, image_shape = images_to_rows(images)
    return make_dataset(name, X, labels, image_shape=image_shape, sample_names=tuple(map(str, paths)))


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith("."))


def _read_picture(path: Path, mode: Mode, size: tuple[int, int] | None) -> npt.NDArray[Any]:
    with reading(path, "a whole picture"):
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as file:
                picture = _to_8_bits(ImageOps.exif_transpose(file)).convert(mode)
        except Image.DecompressionBombError as error:
            raise wrong_data(path, f"a picture that is too large ({error})", "fewer pixels") from error
        if size is not None and picture.size != size[::-1]:
            picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(picture)


def _to_8_bits(picture: Image) -> Image:
    """Scale grey values of 16 bits, which Pillow would clip at 255."""
    from PIL import Image

    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
