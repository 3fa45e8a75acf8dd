"""Pictures as files: the one writer of PNG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO

from PIL import Image

__all__ = ["picture_bytes", "png"]


def png(picture: Image.Image | Callable[[], Image.Image]) -> Callable[[IO[bytes]], None]:
    """Return what writes a picture to an open file as PNG; a function is asked for it only then."""

    def write(file: IO[bytes]) -> None:
        drawn = picture if isinstance(picture, Image.Image) else picture()
        drawn.save(file, "PNG", compress_level=4)

    return write


def picture_bytes(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    png(picture)(buffer)
    return buffer.getvalue()
