"""A clip as the frames that a video model takes: so many, evenly spaced."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dff.errors import ImageError, UsageError
from dff.images.picture import Picture
from dff.images.reading import read_image

__all__ = ["VIDEOS", "is_video", "read_clip"]

VIDEOS = frozenset([".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"])
"""Endings of files that are videos."""


def is_video(source: Any) -> bool:
    """Whether a source is the path of a video, by its ending."""
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() in VIDEOS


def read_clip(source: Any, frames: int) -> list[Picture]:
    """Read `frames` pictures of a clip, evenly spaced, each from the middle of its stretch.

    Of a clip with fewer, some are taken several times.

    Args:
        source: the path of a video; an array (frames, height, width, 3); or an iterable of images
            as :func:`~dff.images.read_image` takes them, all of one size.
        frames: how many the model takes.

    Raises:
        ImageError: a video that cannot be decoded, or an image that cannot be read.
        UsageError: no frames, or frames of different sizes.
    """
    if is_video(source):
        return _of_video(Path(source), frames)
    if isinstance(source, (str, bytes, os.PathLike)) or not isinstance(source, Iterable):
        raise UsageError(
            "a clip is the path of a video, an array (frames, height, width, 3) or a list of "
            f"frames, not {source!r:.80}"
        )
    given: Any = source if isinstance(source, np.ndarray) else list(source)
    if not len(given):
        raise UsageError("a clip has at least one frame; the list is empty")
    pictures = [read_image(given[i]) for i in _even(len(given), frames)]
    sizes = {picture.pixels.shape for picture in pictures}
    if len(sizes) > 1:
        raise UsageError(f"the frames of a clip are all of one size, not {sorted(sizes)}")
    return [_named(picture, "clip", i) for i, picture in enumerate(pictures)]


def _of_video(path: Path, frames: int) -> list[Picture]:
    import cv2

    if not path.is_file():
        raise ImageError(f"there is no video {path}")
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():  # what headers say is not always right
        count += 1
    capture.release()
    if not count:
        raise ImageError(f"{path} is not a video that OpenCV can decode; convert it to MP4")
    wanted, seen = _even(count, frames), {}
    capture = cv2.VideoCapture(str(path))
    try:
        for index in range(wanted[-1] + 1):
            decoded = capture.grab()
            if decoded and index in wanted:
                decoded, image = capture.retrieve()
                seen[index] = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            if not decoded:
                raise ImageError(f"frame {index} of {path} cannot be decoded")
    finally:
        capture.release()
    return [_named(Picture(seen[index]), path.stem, i) for i, index in enumerate(wanted)]


def _even(count: int, frames: int) -> list[int]:
    return [int((i + 0.5) * count / frames) for i in range(frames)]


def _named(picture: Picture, stem: str, frame: int) -> Picture:
    return replace(picture, name=f"{stem}-{frame + 1:02}")
