"""Pictures side by side, with titles and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from dff.errors import UsageError
from dff.maps import fitted
from dff.rendering import text
from dff.rendering.entries import LegendEntry
from dff.rendering.legends import Legend, arranged, broad, comfortable_height
from dff.rendering.overlays import check_image

__all__ = ["film", "fit", "panel"]

Tile = tuple[str, "np.ndarray | Image.Image"]

# Tiles are shown between these heights, and no longer than this along the other side.
LEAST, MOST, LONGEST = 360, 560, 900
GROWN = 460  # beside a higher legend
# A strip more elongated than this is squashed to it: at its own proportions it would be a line.
ELONGATION = 8
# Wide pictures go below each other from this width : height on.
WIDE = 2.0
SCREEN = 1.7  # width : height
MARGIN, GAP, TITLE = 14, 12, 17
NARROWEST = 110
PAPER = 255


def panel(
    tiles: Sequence[Tile], *, legend: Sequence[LegendEntry] | Legend | None = None
) -> Image.Image:
    """Set pictures of one photo beside each other, equally high, a legend at their right.

    Small pictures are enlarged and big ones reduced to a size that suits a screen. Pictures
    twice as wide as high or wider go below each other. Strips of more than 8 : 1 are squashed
    to that, because nothing could be seen in them. A legend goes below where the whole is larger
    on a screen then.

    Args:
        tiles: (title, picture) pairs; a picture is uint8 (height, width, 3), RGB, or Pillow's.
        legend: its entries, or more about them, or None for no legend.

    Raises:
        UsageError: no tiles, or a picture of another shape or type.
    """
    if not tiles:
        raise UsageError("a panel needs at least one (title, picture) pair")
    pictures = [_as_array(picture) for _, picture in tiles]
    stacked = _proportion(pictures[0]) >= WIDE
    height = _tile_height(pictures, 0 if stacked or legend is None else comfortable_height(legend))
    head = text.line_height(TITLE) + 4 if any(title for title, _ in tiles) else 0
    cells = [
        _cell(title, fit(picture, height, max(1, round(height * _proportion(picture)))), head=head)
        for (title, _), picture in zip(tiles, pictures, strict=True)
    ]
    sheet = _join(cells, down=stacked)
    if legend is not None and comfortable_height(legend):
        sheet = _with_legend(sheet, legend, head)
    return Image.fromarray(
        np.pad(sheet, ((MARGIN,) * 2, (MARGIN,) * 2, (0, 0)), constant_values=PAPER)
    )


def film(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Set the frames of a clip, (height, width, 3) and all of one size, in rows from the top left.

    There are as many rows as make the whole nearly square and leave few places empty, with a thin
    gap between frames.
    """
    height, width = frames[0].shape[:2]
    count = len(frames)

    def untidiness(across: int) -> float:
        rows = -(-count // across)
        empty = (rows * across - count) / count
        return abs(np.log(across * width / (rows * height))) + 2 * empty

    across = min(range(1, count + 1), key=untidiness)
    gap = max(1, height // 50)
    blank = np.full((height + gap, width + gap, 3), PAPER, np.uint8)
    cells = [blank.copy() for _ in range(-(-count // across) * across)]
    for cell, frame in zip(cells, frames, strict=False):
        cell[:height, :width] = frame
    rows = [np.concatenate(cells[i : i + across], 1) for i in range(0, len(cells), across)]
    return np.concatenate(rows)[:-gap, :-gap]


def fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a picture: averaged when it shrinks, smooth when it grows a little.

    Where it grows sixfold and more, its pixels stay visible as such.
    """
    growth = min(height / picture.shape[0], width / picture.shape[1])
    enlarged = "cubic" if growth < 6 else "nearest"
    return fitted(picture, (height, width), way="area" if growth < 1 else enlarged)


def _as_array(picture: np.ndarray | Image.Image) -> np.ndarray:
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    check_image(picture)
    return picture


def _proportion(picture: np.ndarray) -> float:
    """Width : height as shown."""
    return float(np.clip(picture.shape[1] / picture.shape[0], 1 / ELONGATION, ELONGATION))


def _tile_height(pictures: Sequence[np.ndarray], beside: int) -> int:
    """Choose the common height: near their own, within limits for both sides.

    Pictures much lower than the legend `beside` them come nearer to its height.
    """
    own = max(picture.shape[0] for picture in pictures)
    own = max(own, min(beside, GROWN)) if own < 0.75 * beside else own
    widest = max(_proportion(picture) for picture in pictures)
    return max(1, round(min(max(LEAST, min(own, MOST)), LONGEST / widest)))


def _cell(title: str, picture: np.ndarray, *, head: int) -> np.ndarray:
    """Put a title above a picture, shortened to the picture's width or a least one."""
    height, width = picture.shape[:2]
    room = max(width, NARROWEST)
    cell = np.full((head + height, room, 3), PAPER, np.uint8)
    cell[head:, :width] = picture
    if title:
        text.put(cell, title, x=0, y=0, size=TITLE, room=room)
    return cell


def _join(cells: Sequence[np.ndarray], *, down: bool) -> np.ndarray:
    """Set cells side by side or below each other, with gaps, on white."""
    if down:
        turned = _join([cell.transpose(1, 0, 2) for cell in cells], down=False)
        return np.ascontiguousarray(turned.transpose(1, 0, 2))
    height = max(cell.shape[0] for cell in cells)
    width = sum(cell.shape[1] for cell in cells) + GAP * (len(cells) - 1)
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    x = 0
    for cell in cells:
        sheet[: cell.shape[0], x : x + cell.shape[1]] = cell
        x += cell.shape[1] + GAP
    return sheet


def _with_legend(
    sheet: np.ndarray, entries: Sequence[LegendEntry] | Legend, head: int
) -> np.ndarray:
    """Put a legend at the right of the pictures; or below, if it has several parts and fits better.

    That is, if the whole is shown larger on a screen of usual proportions.
    """
    height, width = sheet.shape[:2]
    aside = arranged(entries, height=max(1, height - head))
    if len(aside.parts) > 1 or aside.width > LONGEST:
        below = broad(entries, width=max(width, LONGEST))
        beside = max((width + aside.width) / SCREEN, height, aside.height)
        if beside > max(max(width, below.width) / SCREEN, height + below.height):
            return _join([sheet, below.drawn()], down=True)
    # Level with the pictures, not with their titles.
    drawn = np.pad(aside.drawn(height - head), ((head, 0), (0, 0), (0, 0)), constant_values=PAPER)
    return _join([sheet, drawn], down=False)
