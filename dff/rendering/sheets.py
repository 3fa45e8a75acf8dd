"""Contact sheets: a row of pictures for each concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from dff.errors import UsageError
from dff.rendering import text
from dff.rendering.entries import LegendEntry, draw_entry, entry_width
from dff.rendering.overlays import check_image
from dff.rendering.panels import fit

__all__ = ["contact_sheet"]

MARGIN, GAP = 14, 8
PAPER, GROUND = 255, 238
SMALLEST, LARGEST = 11, 18


def contact_sheet(
    rows: Sequence[tuple[LegendEntry, Sequence[np.ndarray | Image.Image]]],
    *,
    tile: int = 128,
) -> Image.Image:
    """Draw a row of pictures for each concept, its swatch and text at the left.

    Args:
        rows: for each concept its entry, drawn with a swatch, and its pictures, uint8 (height,
            width, 3), RGB, or Pillow's, of any size; each is fitted whole into a square. Rows may
            differ in length.
        tile: side of the squares in pixels, at least 24.

    Raises:
        UsageError: no rows, a tile that is too small, or a picture of another shape or type.
    """
    if not rows:
        raise UsageError("a contact sheet needs at least one row")
    if tile < 24:
        raise UsageError(f"tiles are at least 24 pixels, not {tile}")
    rows = [(replace(entry, picture=None), pictures) for entry, pictures in rows]
    size = min(max(SMALLEST, tile // 8), LARGEST)
    room = max(entry_width(entry, size) for entry, _ in rows)
    left = MARGIN + room + 2 * GAP
    across = max(len(pictures) for _, pictures in rows)
    heights = [max(tile, entry.rows * text.line_height(size)) for entry, _ in rows]
    shape = (
        sum(heights) + GAP * (len(rows) - 1) + 2 * MARGIN,
        left + across * (tile + GAP) - GAP + MARGIN,
    )
    canvas = np.full((*shape, 3), PAPER, np.uint8)
    y = MARGIN
    for (entry, pictures), height in zip(rows, heights, strict=True):
        draw_entry(canvas, entry, x=MARGIN, y=y, size=size, room=room)
        for i, picture in enumerate(pictures):
            x = left + i * (tile + GAP)
            canvas[y : y + tile, x : x + tile] = _square(picture, tile)
        y += height + GAP
    return Image.fromarray(canvas)


def _square(picture: np.ndarray | Image.Image, side: int) -> np.ndarray:
    """Fit a whole picture into a square, in its middle, on light grey."""
    if isinstance(picture, Image.Image):
        picture = np.asarray(picture.convert("RGB"))
    check_image(picture)
    scale = side / max(picture.shape[:2])
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    square = np.full((side, side, 3), GROUND, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = fit(picture, height, width)
    return square
