"""Lines of text, put together from cached glyphs.

Rasterising a legend's letters anew each time would cost more than all else in a picture. So
each glyph is drawn once for a size and a quarter of a pixel, four times enlarged and averaged
down, which also spaces small text more evenly than hinted fonts do.
"""

from __future__ import annotations

import functools
import itertools
import math
import unicodedata

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["INK", "SOFT", "Color", "clean", "line_height", "put", "shorten", "width", "wrapped"]

Color = tuple[int, int, int]

INK = (20, 22, 26)
SOFT = (80, 85, 94)
ELLIPSIS = "…"
CUT = " ,;.-"  # what no ellipsis follows
SCALE = 4  # parts of a pixel at which letters may start
PAD = 1  # pixels for letters that reach left of where they start

# Pillow's own font holds ASCII and a little more; for other letters, the first of these that the
# machine has, and where it has none, accents are left out and the rest become boxes.
PLAIN = frozenset(map(chr, range(32, 127))) | {ELLIPSIS}
FALLBACKS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf")


@functools.lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """Return `text` as one line: control characters become spaces, runs of spaces one."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if _is_plain(text) or _fallback() is not None:
        return text
    parts = unicodedata.normalize("NFKD", text)
    return "".join(c for c in parts if not unicodedata.combining(c))


def line_height(size: int) -> int:
    """Distance of lines in pixels at a font size in pixels."""
    return math.ceil(size * 1.32)


def width(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return math.ceil(_offsets(text, size)[-1])


def shorten(text: str, size: int, room: int) -> str:
    """Return the start of `text` that fits into `room` pixels, with an ellipsis if cut.

    It is cut after a word, unless that leaves less than half of what fits.
    """
    text = clean(text)
    offsets = _offsets(text, size)
    if offsets[-1] <= room:
        return text
    longest = sum(offset <= room for offset in offsets) - 1
    for kept in range(longest, -1, -1):  # a few steps: the ellipsis is two letters wide
        start = text[:kept].rstrip(CUT)
        if width(start + ELLIPSIS, size) <= room:
            words = start if text[kept : kept + 1] == " " else start.rpartition(" ")[0]
            return (words if 2 * len(words) >= len(start) else start).rstrip(CUT) + ELLIPSIS
    return ""


def wrapped(text: str, size: int, room: int, *, lines: int) -> list[str]:
    """Break a text after words into lines of `room` pixels, the last one shortened."""
    broken: list[str] = []
    words = clean(text).split()
    while words and len(broken) < lines - 1:
        count = 1
        while count < len(words) and width(" ".join(words[: count + 1]), size) <= room:
            count += 1
        broken.append(shorten(" ".join(words[:count]), size, room))
        words = words[count:]
    return [*broken, shorten(" ".join(words), size, room)] if words else broken


def put(
    canvas: np.ndarray,
    text: str,
    *,
    x: int,
    y: int,
    size: int,
    room: int | None = None,
    color: Color = INK,
) -> None:
    """Draw one dark line onto a white canvas in place.

    Args:
        canvas: uint8 (height, width, 3), RGB.
        text: shortened to `room` pixels if given.
        x, y: left end, and top of the line (of height :func:`line_height`), in pixels.
        size: font size in pixels.
    """
    text = clean(text) if room is None else shorten(text, size, room)
    if not text:
        return
    tile = _ink(text, size, color)
    left = max(x - PAD, 0)
    region = canvas[y : y + tile.shape[0], left : left + tile.shape[1]]
    np.minimum(region, tile[: region.shape[0], : region.shape[1]], out=region)


@functools.lru_cache(maxsize=1024)
def _ink(text: str, size: int, color: Color) -> np.ndarray:
    """Return a line of text in a colour on white, uint8 (line height, width, 3)."""
    cover = _tile(text, size)[..., None].astype(np.uint16)
    return (255 - cover * (255 - np.array(color, np.uint16)) // 255).astype(np.uint8)


def _tile(text: str, size: int) -> np.ndarray:
    """Return how much of each pixel of a line the letters cover, with PAD columns at each end."""
    if not _is_plain(text):
        return _raster(text, size, 0)
    offsets = _offsets(text, size)
    tile = np.zeros((line_height(size), math.ceil(offsets[-1]) + 2 * PAD + 1), np.uint8)
    for letter, offset in zip(text, offsets, strict=False):
        whole, part = divmod(round(offset * SCALE), SCALE)
        glyph = _glyph(letter, size, part)
        region = tile[:, whole : whole + glyph.shape[1]]
        np.maximum(region, glyph[:, : region.shape[1]], out=region)
    return tile


@functools.lru_cache(maxsize=4096)
def _glyph(letter: str, size: int, part: int) -> np.ndarray:
    return _raster(letter, size, part)


def _raster(text: str, size: int, part: int) -> np.ndarray:
    """Draw text enlarged, `part` fine pixels to the right, and average it down."""
    font = _font(size * SCALE, _is_plain(text))
    columns = math.ceil((font.getbbox(text, anchor="ls")[2] + part) / SCALE) + 2 * PAD
    image = Image.new("L", (columns * SCALE, line_height(size) * SCALE))
    start = (PAD * SCALE + part, size * SCALE)
    ImageDraw.Draw(image).text(start, text, fill=255, font=font, anchor="ls")
    return np.asarray(image.reduce(SCALE))


@functools.lru_cache(maxsize=4096)
def _offsets(text: str, size: int) -> tuple[float, ...]:
    """Return where each letter starts, in pixels, and last where the line ends."""
    if not _is_plain(text):
        return tuple(_length(text[:end], size, False) for end in range(len(text) + 1))
    offsets = [0.0]
    for first, second in itertools.pairwise((*text, "")):
        kerned = _length(first + second, size, True) - _length(second, size, True)
        offsets.append(offsets[-1] + kerned)
    return tuple(offsets)


@functools.lru_cache(maxsize=8192)
def _length(text: str, size: int, plain: bool) -> float:
    return float(_font(size * SCALE, plain).getlength(text)) / SCALE if text else 0.0


def _is_plain(text: str) -> bool:
    return PLAIN.issuperset(text)


@functools.lru_cache(maxsize=64)
def _font(size: int, plain: bool) -> ImageFont.FreeTypeFont:
    name = None if plain else _fallback()
    font = ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@functools.cache
def _fallback() -> str | None:
    """Return the name of a font of the machine's own that holds more letters, if any."""
    for name in FALLBACKS:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        return name
    return None
