"""Reading: threads decode ahead, so that the model never waits for a disk.

Threads and not processes: the decoders release Python's lock, nothing has to be copied between
processes, and on few cores they leave the model its share.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.stamps import Stamp, status
from dff.errors import DFFError, RunError
from dff.images import Preprocessing, Source, read_image

__all__ = ["Reader", "Sample", "read_sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on its way to the model, or why it could not be read.

    Attributes:
        pixels: levels (height, width, channels) that the model reads: the whole photo at the
            size of its input, a square where the preprocessing is `fixed`; None with an error.
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

    def stream(self, ids: Iterable[int]) -> Iterator[Sample]:
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
    """Read one image; whatever is wrong with it becomes its error.

    Raises:
        RunError: its store takes no more requests: no image can be read.
    """
    path = dataset.file(index)
    stamp = None if path is None else status(path)  # before it is read: a later change shows
    try:
        with _opened(dataset.source(index)) as source:
            if stamp is not None and isinstance(source, (bytes, io.BufferedReader)):
                stamp = stamp.of_content(source)
            picture = read_image(source, least=preprocessing.size)
        height, width = picture.full_size
        return Sample(preprocessing.resize(picture), width, height, stamp=stamp)
    except RunError:
        raise
    except Exception as error:
        return Sample(None, error=_explained(dataset, index, error), stamp=stamp)


def _opened(source: Source) -> AbstractContextManager[Source]:
    """Open a file, so that its digest is of the very bytes that are decoded."""
    if isinstance(source, (str, os.PathLike)) and os.path.isfile(source):
        return open(source, "rb")
    return nullcontext(source)


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
