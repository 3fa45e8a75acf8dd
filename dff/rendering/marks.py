"""Which concept is where, for readers who cannot go by colour: numbers on a photo, and crops."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dff.maps import fitted, within
from dff.rendering.overlays import check_image, check_maps
from dff.rendering.palette import Colors, as_colors
from dff.rendering.text import INK

__all__ = ["crop_around", "number_concepts", "put_number"]

LEAST_SIDE = 120
"""Pictures with a shorter side, in pixels, have no room for numbers."""

LEAST_PRESENCE = 0.2
"""What is weaker everywhere is not marked."""

SHARE, MOST = 1 / 34, 1 / 14
"""Radius of a mark, as a share of a square's side; and at most, of a picture's shorter side."""

FINE = 4
"""How many times as large as it is shown a number is drawn, and then averaged."""

FADED = 240
"""The grey level that a photo goes to where a crop's concept is not."""

TINY = 1e-6
MARGIN = 1.25
"""How much larger than the concept's region a crop is."""

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
    side = (picture.shape[0] * picture.shape[1]) ** 0.5
    radius = max(8, round(min(side * SHARE, shorter * MOST)))
    canvas = picture.copy()
    rings = as_colors(colors, len(maps))
    for k, (x, y) in _places(maps, radius).items():
        put_number(canvas, k + 1, x=x, y=y, radius=radius, color=rings[k])
    return canvas


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


def put_number(
    canvas: np.ndarray, number: int, *, x: int, y: int, radius: int, color: np.ndarray
) -> None:
    """Draw a number on a white disc with a ring of a colour, dark around it, onto a canvas.

    The disc, its middle at (x, y) and its radius in pixels, lies within the canvas.
    """
    disc, cover = _disc(number, radius, tuple(int(v) for v in color))
    region = canvas[y - radius : y + radius + 1, x - radius : x + radius + 1]
    region[:] = cv2.blendLinear(np.ascontiguousarray(region), disc, 1 - cover, cover)


@functools.lru_cache(maxsize=256)
def _disc(number: int, radius: int, color: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a numbered disc, RGB, and how much of each pixel it covers; drawn large, averaged."""
    side, thick = (2 * radius + 1) * FINE, max(2, radius // 5) * FINE
    box = (0, 0, side - 1, side - 1)
    disc, cover = Image.new("RGB", (side, side), INK), Image.new("L", (side, side))
    ImageDraw.Draw(cover).ellipse(box, fill=255)
    draw, inner = ImageDraw.Draw(disc), (FINE, FINE, side - 1 - FINE, side - 1 - FINE)
    draw.ellipse(inner, fill=(255, 255, 255), outline=color, width=thick)
    font = _font(round(radius * (1.3 if number < 10 else 1.05)) * FINE)
    draw.text((side / 2, side / 2), str(number), fill=INK, font=font, anchor="mm")
    return np.asarray(disc.reduce(FINE)), np.asarray(cover.reduce(FINE), np.float32) / 255


@functools.lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def crop_around(picture: np.ndarray, heatmap: np.ndarray, *, side: int = 96) -> np.ndarray:
    """Return the square of a photo around where a concept peaks, the rest of it faded.

    It holds the region around the peak that is at least half as strong, with a margin; it is no
    smaller than a quarter of the photo's shorter side, and no larger than that side.

    Args:
        picture: uint8 (height, width, 3), RGB.
        heatmap: floating point (rows, cols) in [0, 1], of the concept on the whole photo, as
            coarse as one likes.
        side: of what is returned, in pixels.

    Returns:
        uint8 (side, side, 3), RGB.
    """
    check_image(picture)
    heatmap = np.asarray(check_maps(heatmap[None], heatmap.shape)[0], np.float32)
    (height, width), (rows, cols) = picture.shape[:2], heatmap.shape
    down, across = height / rows, width / cols  # pixels a cell
    peak = np.unravel_index(heatmap.argmax(), heatmap.shape)
    region = (heatmap >= 0.5 * heatmap[peak]).astype(np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(region)
    left, top, columns, lines, _ = boxes[labels[peak]].tolist()
    shorter = min(height, width)
    length = MARGIN * max(columns * across, lines * down)
    length = max(1, int(min(max(length, shorter / 4), shorter)))
    y = _start(down * (top + lines / 2), length, height)
    x = _start(across * (left + columns / 2), length, width)
    crop = picture[y : y + length, x : x + length]
    crop = fitted(crop, (side, side), way="area" if length > side else "cubic")
    place = np.array([[length / side / across, 0, x / across], [0, length / side / down, y / down]])
    clear = cv2.warpAffine(
        heatmap, place, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    clear = 0.3 + 0.7 * np.clip(1.6 * clear / max(float(heatmap[peak]), TINY), 0, 1)
    return cv2.blendLinear(np.ascontiguousarray(crop), np.full_like(crop, FADED), clear, 1 - clear)


def _start(middle: float, length: int, whole: int) -> int:
    return int(min(max(round(middle - length / 2), 0), whole - length))
