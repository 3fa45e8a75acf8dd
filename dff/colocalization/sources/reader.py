"""Reading: threads decode ahead, so that the model never waits for a disk.

Threads and not processes: the decoders release Python's lock, nothing has to be copied between
processes, and on few cores they leave the model its share.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.stamps import Stamp, status
from dff.errors import DFFError
from dff.images import MAX_PIXELS, Preprocessing, read_image
from dff.images.decoding import from_pillow

__all__ = ["Reader", "Sample", "read_sample"]

ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on its way to the model, or why it could not be read.

    Attributes:
        pixels: uint8 (size, size, 3), RGB: the whole photo, squashed; None with an error.
        width, height: of the photo, upright, in pixels.
        error: what is wrong with it.
        stamp: what it was when it was read; None where nothing can tell.
    """

    pixels: np.ndarray | None
    width: int = 0
    height: int = 0
    error: str | None = None
    stamp: Stamp | None = None


class Reader:
    """Threads that read images of a dataset ahead, in order."""

    def __init__(
        self, dataset: Dataset, preprocessing: Preprocessing, *, workers: int, ahead: int = 64
    ) -> None:
        self.dataset = dataset
        self.preprocessing = preprocessing
        self.ahead = ahead
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="dff-reader")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def stream(self, ids: Sequence[int]) -> Iterator[Sample]:
        """Yield the images `ids`, in order; reads go on while they are used."""
        waiting: deque[Future[Sample]] = deque()
        upcoming = iter(ids)
        try:
            for index in upcoming:
                waiting.append(self._submit(index))
                if len(waiting) >= self.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, index: int) -> Future[Sample]:
        return self.pool.submit(read_sample, self.dataset, int(index), self.preprocessing)


def read_sample(dataset: Dataset, index: int, preprocessing: Preprocessing) -> Sample:
    """Read one image; whatever is wrong with it becomes its error."""
    path = dataset.file(index)
    stamp = None if path is None else status(path)  # before it is read: a later change shows
    try:
        source = dataset.source(index)
        if stamp is not None and isinstance(source, bytes):
            stamp = stamp.of_content(source)
        if isinstance(source, (str, os.PathLike)) and os.path.isfile(source):
            with open(source, "rb") as file:
                stamp = None if stamp is None else stamp.of_content(file)
                quick = _quick(file, preprocessing)
        else:
            quick = _quick(io.BytesIO(source), preprocessing) if isinstance(source, bytes) else None
        return replace(quick or _careful(source, preprocessing), stamp=stamp)
    except Exception as error:
        return Sample(None, error=_explained(dataset, index, error), stamp=stamp)


def _explained(dataset: Dataset, index: int, error: Exception) -> str:
    """Return what is wrong with an image on one line; a user's dataset may raise anything."""
    path = dataset.paths[index]
    if isinstance(error, OSError) and not isinstance(error, DFFError):
        try:  # read_image has the better words for it
            read_image(dataset.source(index))
        except Exception as better:
            error = better
    if isinstance(error, DFFError):
        return str(error).replace("the bytes given", path)
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"cannot read {path}: {reason or type(error).__name__}"


def _quick(file: IO[bytes], preprocessing: Preprocessing) -> Sample | None:
    """Decode no larger than needed: JPEG has cheap smaller versions. None where in doubt."""
    size = preprocessing.size
    try:
        image = Image.open(file)
        width, height = image.size
        if width * height > MAX_PIXELS or min(width, height) < 2:
            return None
        if image.format == "JPEG":
            image.draft("RGB", (size, size))
        if image.getexif().get(ORIENTATION, 1) > 4:
            width, height = height, width
        with image:
            pixels = from_pillow(image, "the image", max_pixels=MAX_PIXELS)
    except Exception:  # the careful way explains
        return None
    return Sample(_squash(pixels, preprocessing), width, height)


def _careful(source: object, preprocessing: Preprocessing) -> Sample:
    picture = read_image(source)  # type: ignore[arg-type]
    return Sample(_squash(picture.pixels, preprocessing), picture.width, picture.height)


def _squash(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Resize to the model's square, in 8 bits, antialiased, as the preprocessing does."""
    size = preprocessing.size
    if pixels.shape[:2] == (size, size):
        return pixels
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = functional.interpolate(
        photo, (size, size), mode=preprocessing.interpolation, antialias=True
    )
    return resized[0].permute(1, 2, 0).contiguous().numpy()
