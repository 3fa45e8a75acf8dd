"""A folder in place of photos stands for the images in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from dff.errors import ImageError

__all__ = ["IMAGES", "spread"]

IMAGES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".dib",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".jp2",
    ]
)
"""Endings of files that are images."""


def spread(sources: Iterable[Any]) -> list[Any]:
    """Return sources of images with the images in each folder, sorted, in place of the folder.

    Its hidden files and subfolders are passed over.

    Raises:
        ImageError: a folder that cannot be listed, or holds no images.
    """
    given: list[Any] = []
    for source in sources:
        named = isinstance(source, (str, os.PathLike)) and os.path.isdir(source)
        given += _images_in(os.fspath(source)) if named else [source]
    return given


def _images_in(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ImageError(f"cannot list the folder {folder}: {error.strerror}") from None
    images = [
        os.path.join(folder, name)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGES and not name.startswith(".")
    ]
    if not images:
        raise ImageError(
            f"the folder {folder} holds no images ({' '.join(sorted(IMAGES))}); "
            "`dff colocalize` looks into its subfolders, too"
        )
    return images
