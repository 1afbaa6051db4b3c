"""Pictures: a folder with a subfolder for each class, a folder of unlabelled pictures, or one picture."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from mlefast.data._dataset import (
    DataError,
    Dataset,
    DataWarning,
    Labels,
    Layout,
    images_to_rows,
    make_dataset,
    reading,
    wrong_data,
)
from mlefast.data._stream import Stream

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

Mode = Literal["L", "RGB"]  # Pillow's names of 8-bit grey values and colours
Corrupt = Literal["fail", "skip"]
Pixels = npt.NDArray[np.uint8]

_GREY_MODES = frozenset({"1", "L", "LA", "La"})  # and those of more bits, which begin with I
_AHEAD = 4  # pictures that are decoded before they are asked for, per thread


def list_pictures(folder: Path) -> tuple[list[Path], list[str] | None]:
    """Find the pictures in each subfolder, whose name is the label; without subfolders, pictures without labels."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    paths = [path for each in classes or [folder] for path in _pictures_in(each)]
    if not paths:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise wrong_data(folder, "no pictures", f"a subfolder for each class with {suffixes} files, or MNIST's files")
    return paths, [path.parent.name for path in paths] if classes else None


def read_pictures(
    name: Path,
    paths: Sequence[Path],
    labels: Sequence[str] | None,
    image_size: tuple[int, int] | None,
    like: Layout | None,
    corrupt: Corrupt,
) -> Dataset:
    """Read pictures at one size, as grey values if all are grey (or the model takes such), else in colour."""
    decoder = Decoder(paths, corrupt)
    mode, size = decoder.layout(image_size, like)
    images: Pixels | None = None
    good: list[int] = []
    for i, pixels in decoder.decode(range(len(paths)), mode, size):
        if images is None:
            images = np.empty((len(paths), *pixels.shape), np.uint8)
        images[len(good)] = pixels
        good.append(i)
    if images is None:
        raise _none_left(name, len(paths))
    X, image_shape = images_to_rows(images[: len(good)])
    return make_dataset(
        name,
        X,
        None if labels is None else [labels[i] for i in good],
        image_shape=image_shape,
        sample_names=tuple(str(paths[i]) for i in good),
    )


class PictureStream(Stream):
    """Pictures in folders, decoded when they are needed; see :func:`mlefast.data.open_stream`."""

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        image_size: tuple[int, int] | None,
        like: Layout | None,
        corrupt: Corrupt,
    ) -> None:
        self.name = str(folder)
        self.batch_size = batch_size
        self._paths, self._labels = list_pictures(folder)
        self._decoder = Decoder(self._paths, corrupt)
        self._mode, self._size = self._decoder.layout(image_size, like)
        self.image_shape = self._size if self._mode == "L" else (*self._size, 3)
        self.n_features = int(np.prod(self.image_shape))

    @property
    def classes(self) -> Labels | None:
        """The names of the subfolders that have pictures, sorted."""
        return None if self._labels is None else np.unique(self._labels)

    @property
    def n_samples(self) -> int | None:
        """Number of pictures; None if damaged ones are skipped, of which there may be any number."""
        return len(self._paths) if self._decoder.corrupt == "fail" else None

    def _batches(self, random: np.random.Generator | None) -> Iterator[Dataset]:
        order = range(len(self._paths)) if random is None else random.permutation(len(self._paths)).tolist()
        some: list[tuple[int, Pixels]] = []
        empty = True
        for each in self._decoder.decode(order, self._mode, self._size):
            some.append(each)
            if len(some) == self.batch_size:
                yield self._batch(some)
                some, empty = [], False
        if some:
            yield self._batch(some)
        elif empty:
            raise _none_left(self.name, len(self._paths))

    def _batch(self, some: Sequence[tuple[int, Pixels]]) -> Dataset:
        X, _ = images_to_rows(np.stack([pixels for _, pixels in some]))
        return make_dataset(
            self.name,
            X,
            None if self._labels is None else [self._labels[i] for i, _ in some],
            image_shape=self.image_shape,
            sample_names=tuple(str(self._paths[i]) for i, _ in some),
        )


@dataclass(eq=False)
class Decoder:
    """Decodes pictures in threads (Pillow works without the interpreter's lock), never many more than are asked for.

    Attributes
    ----------
    paths : sequence of Path
    corrupt : {"fail", "skip"}
        Whether a picture that cannot be decoded is an error, or is left out with a warning, the first time.
    """

    paths: Sequence[Path]
    corrupt: Corrupt
    _bad: set[int] = field(default_factory=set)

    def decode(self, order: Iterable[int], mode: Mode, size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        """Yield the numbers of pictures and their pixels, in that order."""
        return self._map(partial(read_picture, mode=mode, size=size), order)

    def layout(self, image_size: tuple[int, int] | None, like: Layout | None) -> tuple[Mode, tuple[int, int]]:
        """Return mode and size of all pictures: the model's, else grey if all are, and the size asked for or the first.

        Whether pictures are grey is told without decoding them, unless they are stored in colour; the first picture
        that has colours ends the search.
        """
        if like is not None and like.image_shape is not None:
            return ("L" if len(like.image_shape) == 2 else "RGB"), (like.image_shape[0], like.image_shape[1])
        size = image_size or self._size_of_first()
        grey = like is None and all(grey for _, grey in self._map(partial(_is_grey, size=size), range(len(self.paths))))
        return ("L" if grey else "RGB"), size

    def _size_of_first(self) -> tuple[int, int]:
        for i, path in enumerate(self.paths):
            try:
                height, width = read_picture(path, "L", None).shape
            except DataError as error:
                self._leave_out(i, error)
            else:
                return height, width
        raise _none_left(self.paths[0].parent, len(self.paths))

    def _map(self, function: Any, order: Iterable[int]) -> Iterator[tuple[int, Any]]:
        n_threads = _n_threads()
        waiting: deque[tuple[int, Future[Any]]] = deque()
        with ThreadPoolExecutor(n_threads, "mlefast-pictures") as pool:
            try:
                for i in order:
                    if i in self._bad:
                        continue
                    waiting.append((i, pool.submit(function, self.paths[i])))
                    if len(waiting) >= _AHEAD * n_threads:
                        yield from self._result(*waiting.popleft())
                while waiting:
                    yield from self._result(*waiting.popleft())
            finally:
                for _, future in waiting:
                    future.cancel()

    def _result(self, i: int, future: Future[Any]) -> Iterator[tuple[int, Any]]:
        try:
            result = future.result()
        except DataError as error:
            self._leave_out(i, error)
        else:
            yield i, result

    def _leave_out(self, i: int, error: DataError) -> None:
        if self.corrupt == "fail":
            raise error
        self._bad.add(i)
        warnings.warn(f"{error}; it is left out", DataWarning, stacklevel=2)


def read_picture(path: Path, mode: Mode, size: tuple[int, int] | None) -> Pixels:
    """Read a picture (of several, as in an animation, the first), upright, in 8 bits, resized to height and width."""
    with reading(path, "a whole picture"):
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as file:
                upright = ImageOps.exif_transpose(file)
                picture = _without_palette(_to_8_bits(path, upright)).convert(mode)
        except Image.DecompressionBombError as error:
            raise wrong_data(path, f"a picture that is too large ({error})", "fewer pixels") from error
        if size is not None and picture.size != size[::-1]:
            picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(picture)


def _is_grey(path: Path, size: tuple[int, int]) -> bool:
    with reading(path, "a whole picture"):
        from PIL import Image

        with Image.open(path) as file:  # reads no pixels
            mode = file.mode
    if mode in _GREY_MODES or mode.startswith("I"):
        return True
    pixels = read_picture(path, "RGB", size)
    return bool((pixels == pixels[..., :1]).all())


def _to_8_bits(path: Path, picture: Image) -> Image:
    """Scale grey values of 16 bits, which Pillow would clip at 255."""
    from PIL import Image

    if picture.mode == "F":
        raise wrong_data(path, "floating-point pixels", "pixels of 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise wrong_data(path, f"pixels from {values.min()} to {values.max()}", "pixels of 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _without_palette(picture: Image) -> Image:
    """Look colours up, with their transparency, of which Pillow would warn."""
    return picture.convert("RGBA") if picture.mode == "P" and "transparency" in picture.info else picture


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith("."))


def _n_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _none_left(name: str | Path, n_pictures: int) -> DataError:
    return wrong_data(name, f"{n_pictures} pictures, none of which can be read", "whole pictures")
