"""From any source that a user may name to a Picture."""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from dff.errors import ImageError, UsageError, closest
from dff.images.addresses import shown
from dff.images.decoding import decode, from_array, from_pillow
from dff.images.download import download
from dff.images.picture import Picture

__all__ = ["MAX_BYTES", "MAX_PIXELS", "TIMEOUT", "Source", "read_image", "source_name"]

Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray | Picture"

MAX_PIXELS = 100_000_000
MAX_BYTES = 200_000_000
TIMEOUT = 30.0


def read_image(
    source: Source,
    *,
    least: int | None = None,
    max_pixels: int = MAX_PIXELS,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    allow_private: bool = False,
) -> Picture:
    """Read one image, whatever it is stored in.

    EXIF orientation is applied; transparency is laid over white; greyscale, palette, CMYK and
    16-bit images become 8-bit RGB, and keep what a model of one or of four channels reads
    (:mod:`dff.images.bands`); of an animation the first frame is taken. The kind of a file
    is told from its content, never from its name.

    Args:
        source: path; http(s) URL; the bytes of a file, or a file opened to read bytes, at its
            start; Pillow image; NumPy array of shape
            (height, width), (height, width, 3) RGB, (height, width, 4) RGBA, or of any other
            number of channels, uint8, uint16 over its whole range, or floating point in [0, 1];
            or a Picture, returned as it is. A ``.npy`` file holds such an array.
        least: read no larger than needed: pixels that neither side may fall short of. A JPEG
            file is then decoded smaller, which is several times as fast, as long as its sides
            allow it (the picture's `full_size` says what they are); all else comes as it is.
        max_pixels: refuse larger images, before they are decompressed.
        timeout: seconds that a download may take altogether.
        max_bytes: refuse larger downloads.
        allow_private: read URLs of this machine and of private networks, too. They are refused
            otherwise, so that an address from a stranger reaches no service behind a firewall.

    Raises:
        ImageError: the image cannot be found, fetched or decoded, is truncated, is smaller than
            2 x 2 pixels, or is over a limit.
        UsageError: `source` is of no known kind, or an array of wrong shape, type or range.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return from_array(source, max_pixels=max_pixels)
    if isinstance(source, Image.Image):
        name = _stem(str(getattr(source, "filename", "") or ""))
        picture = from_pillow(source, "the Pillow image", max_pixels=max_pixels)
        return replace(picture, name=name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    if isinstance(source, (io.BufferedIOBase, io.RawIOBase)):
        return _read_opened(source, max_pixels, least)  # type: ignore[arg-type]
    if isinstance(source, str) and (scheme := re.match(r"\s*([a-zA-Z][a-zA-Z0-9+.-]+)://", source)):
        url = source.strip()
        if scheme[1].lower() not in ("http", "https"):
            raise ImageError(f"cannot read {shown(url)}: of URLs only http and https are read")
        data = download(url, timeout=timeout, max_bytes=max_bytes, allow_private=allow_private)
        picture = decode(io.BytesIO(data), shown(url), max_pixels=max_pixels, least=least)
        return replace(picture, name=source_name(url))
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), max_pixels, least)
    raise UsageError(
        "an image is a path, an http(s) URL, bytes, a file opened to read bytes, a Pillow image or "
        f"a NumPy array, not {type(source).__name__}"
    )


def _read_file(path: Path, max_pixels: int, least: int | None) -> Picture:
    """Read a file, after the checks whose failure Pillow would put less clearly."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {_reason(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a folder; name an image in it")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path} is not a regular file; save the image to a file first")
    try:
        with path.open("rb") as file:
            return _read_opened(file, max_pixels, least)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {_reason(error)}") from None


def _read_opened(file: BinaryIO, max_pixels: int, least: int | None) -> Picture:
    """Read an opened file; it is called as its path is, where it has one."""
    path = getattr(file, "name", None)
    if not isinstance(path, (str, os.PathLike)):
        return decode(file, "the bytes given", max_pixels=max_pixels, least=least)
    picture = decode(file, os.fspath(path), max_pixels=max_pixels, least=least)
    return replace(picture, name=source_name(path))


def _missing(path: Path) -> ImageError:
    """Say what is missing, the file or its folder, and which names come close."""
    folder = path.parent
    if not folder.is_dir():
        return ImageError(f"there is no image {path}: the folder {folder} does not exist")
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    return ImageError(f"there is no image {path}{closest(path.name, names)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def source_name(source: str | os.PathLike[str]) -> str:
    """Return the name that the picture at a path or URL gets."""
    text = os.fspath(source)
    if not re.match(r"\s*https?://", text, re.IGNORECASE):
        return _stem(Path(text).name)
    try:
        return _stem(unquote(urlsplit(text.strip()).path))
    except ValueError:  # no address, which reading it says
        return _stem(text)


def _stem(path: str) -> str:
    """Return the last part of a path without its ending, fit for use in a file name."""
    stem = PurePosixPath(path.replace("\\", "/")).stem
    stem = "".join(letter for letter in stem if letter.isprintable()).strip(". ")
    return stem or "image"
