"""Numbers on a photo: which concept is where, for readers who cannot go by colour."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dff.maps import fitted, within
from dff.rendering.overlays import check_image, check_maps
from dff.rendering.palette import Colors, as_colors
from dff.rendering.text import INK

__all__ = ["number_concepts"]

LEAST_SIDE = 120
"""Pictures with a shorter side, in pixels, have no room for numbers."""

LEAST_PRESENCE = 0.2
"""What is weaker everywhere is not marked."""

SHARE = 1 / 34
"""Radius of a mark, as a share of the picture's shorter side."""

COARSE = 128
"""The longer side, in pixels, of the maps that places are found on."""


def number_concepts(
    picture: np.ndarray, maps: np.ndarray, *, colors: Colors | None = None
) -> np.ndarray:
    """Return a picture of concepts with the number of each, from 1, where it is seen best.

    That is deep inside the region where it is the strongest, and as strong as can be; off the
    border, and off the other numbers where there is room. A concept that is the strongest nowhere,
    or faint everywhere, has none.

    Args:
        picture: uint8 (height, width, 3), RGB: what :func:`dff.rendering.overlay` returns.
        maps: floating point (k, height, width) in [0, 1].
        colors: k colours, of the rings around the numbers; default: the palette.

    Raises:
        UsageError: an argument of wrong shape, type or range, or maps that hold NaN.
    """
    check_image(picture)
    maps = check_maps(maps, picture.shape[:2])
    shorter = min(picture.shape[:2])
    if shorter < LEAST_SIDE or not len(maps):
        return picture
    radius = max(8, round(shorter * SHARE))
    canvas = Image.fromarray(picture)
    rings = as_colors(colors, len(maps))
    for k, (x, y) in _places(maps, radius).items():
        _mark(canvas, k + 1, x, y, radius, rings[k])
    return np.asarray(canvas)


def _places(maps: np.ndarray, radius: int) -> dict[int, tuple[int, int]]:
    """Return (x, y) for the number of each concept, in pixels of the picture; large ones first."""
    height, width = maps.shape[1:]
    rows, cols = within((height, width), min(COARSE, max(height, width)))
    small = np.stack([fitted(one, (rows, cols), way="area") for one in maps])
    strongest, scale = small.argmax(0), height / rows
    free = np.zeros((rows, cols), bool)
    border = int(np.ceil((radius + 2) / scale))
    free[border:-border, border:-border] = True
    places: dict[int, tuple[int, int]] = {}
    for k in np.argsort(-np.bincount(strongest.ravel(), minlength=len(maps))).tolist():
        region = ((strongest == k) & (small[k] >= LEAST_PRESENCE)).astype(np.uint8)
        if not region.any():
            continue
        depth = cv2.distanceTransform(np.pad(region, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        score = small[k] * np.minimum(depth, 3 * radius / scale)
        score = score * free if (score * free).any() else score
        row, col = divmod(int(score.argmax()), cols)
        places[k] = _inside(col * scale, width, radius), _inside(row * scale, height, radius)
        down, across = np.ogrid[:rows, :cols]
        free &= np.hypot(down - row, across - col) > 2.2 * radius / scale
    return places


def _inside(at: float, length: int, radius: int) -> int:
    return int(min(max(at, radius + 1), length - radius - 2))


def _mark(canvas: Image.Image, number: int, x: int, y: int, radius: int, ring: np.ndarray) -> None:
    """Draw a number on a white disc with a ring of the concept's colour, dark around it."""
    draw, thick = ImageDraw.Draw(canvas), max(2, radius // 5)
    box = (x - radius, y - radius, x + radius, y + radius)
    color = tuple(int(v) for v in ring)
    draw.ellipse(box, fill=(255, 255, 255), outline=color, width=thick)
    draw.ellipse(box, outline=INK, width=1)
    draw.text((x, y), str(number), fill=INK, font=_font(round(radius * 1.3)), anchor="mm")


@functools.lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
