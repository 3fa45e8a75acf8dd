"""Lines of text as small cached tiles: drawing one anew costs more than all the rest."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["INK", "SOFT", "clean", "line_height", "put", "shorten", "width"]

INK = (24, 26, 30)
SOFT = (92, 97, 106)
ELLIPSIS = "…"

# Pillow's own font holds Latin letters only; for others, whichever of these the machine has.
FALLBACKS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")
LATIN_END = 0x0250
PUNCTUATION = range(0x2000, 0x2070)


def clean(text: str) -> str:
    """Return `text` as one line: control characters become spaces, runs of spaces one."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def line_height(size: int) -> int:
    """Distance of lines in pixels at a font size in pixels."""
    return math.ceil(size * 1.32)


def width(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return math.ceil(_length(text, size))


def shorten(text: str, size: int, room: int) -> str:
    """Return the longest start of `text` that fits into `room` pixels, with an ellipsis if cut."""
    text = clean(text)
    if width(text, size) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle].rstrip() + ELLIPSIS, size) <= room:
            low = middle
        else:
            high = middle - 1
    if low:
        return text[:low].rstrip(" ,;.-") + ELLIPSIS
    return ELLIPSIS if width(ELLIPSIS, size) <= room else ""


def put(
    canvas: np.ndarray,
    text: str,
    *,
    x: int,
    y: int,
    size: int,
    room: int | None = None,
    color: tuple[int, int, int] = INK,
) -> None:
    """Draw one line onto a canvas in place.

    Args:
        canvas: uint8 (height, width, 3), RGB.
        text: shortened to `room` pixels if given.
        x, y: left end, and top of the line (of height :func:`line_height`), in pixels.
        size: font size in pixels.
    """
    text = clean(text) if room is None else shorten(text, size, room)
    if not text:
        return
    tile = _tile(text, size)
    region = canvas[y : y + tile.shape[0], x : x + tile.shape[1]]
    cover = tile[: region.shape[0], : region.shape[1], None].astype(np.uint16)
    ink = np.array(color, np.uint16)
    region[:] = ((255 - cover) * region + cover * ink + 127) // 255


@functools.lru_cache(maxsize=4096)
def _length(text: str, size: int) -> float:
    return float(_font(size, _is_latin(text)).getlength(text))


@functools.lru_cache(maxsize=1024)
def _tile(text: str, size: int) -> np.ndarray:
    """Return how much of each pixel of a line the letters cover, uint8 (line height, width)."""
    font = _font(size, _is_latin(text))
    image = Image.new("L", (width(text, size) + 1, line_height(size)))
    ImageDraw.Draw(image).text((0, size), text, fill=255, font=font, anchor="ls")
    return np.asarray(image)


def _is_latin(text: str) -> bool:
    return all(ord(c) < LATIN_END or ord(c) in PUNCTUATION for c in text)


@functools.lru_cache(maxsize=64)
def _font(size: int, latin: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if not latin:
        for name in FALLBACKS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)
