"""Pictures of attributions side by side, and the bars that say what their colours stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dff.errors import UsageError
from dff.images import Preprocessing
from dff.rendering import text
from dff.rendering.attributions.drawing import as_photo, draw_attribution
from dff.rendering.attributions.looks import Look, scale_of
from dff.rendering.panels import fit, panel

__all__ = ["attribution_panel", "color_bar"]

BAR, GAP, SIZE = 12, 6, 13
PAPER, RULE = 255, 150
HEIGHT = 360


def color_bar(look: Look, scale: float, height: int, *, size: int = SIZE) -> np.ndarray:
    """Draw the colours of a look from its low end to its high one, with the numbers they stand for.

    Args:
        look: its sign and colours.
        scale: what the ends stand for.
        height: in pixels.
        size: of the font, in pixels.

    Returns:
        uint8 (height, width, 3), RGB, on white.
    """
    low, high = look.ends
    marks = sorted({high, (low + high) / 2, low}, reverse=True)
    numbers = [_number(mark * scale) for mark in marks] if scale > 0 else ["", "0", ""]
    width = BAR + GAP + max(text.width(number, size) for number in numbers) + 1
    bar = np.full((height, width, 3), PAPER, np.uint8)
    bar[:, :BAR] = look.colors(np.linspace(high, low, height, dtype=np.float32))[:, None]
    bar[[0, -1], :BAR] = RULE
    bar[:, [0, BAR - 1]] = RULE
    line = text.line_height(size)
    for i, number in enumerate(numbers):
        y = round(i * (height - line) / (len(numbers) - 1))
        text.put(bar, number, x=BAR + GAP, y=y, size=size, color=text.SOFT)
    return bar


def attribution_panel(
    values: Any,
    image: Any,
    looks: Sequence[Look] | Look | None = None,
    *,
    titles: Sequence[str] = (),
    one_scale: bool = False,
    bars: bool = True,
    preprocessing: Preprocessing | None = None,
) -> Image.Image:
    """Set pictures of attributions side by side, each with its colour bar.

    Args:
        values: one attribution, or a list of them, as :func:`draw_attribution` takes it.
        image: of all of them, or a list of one for each.
        looks: one for all, or one each; several of one attribution show it in several ways. None is
            the photo, and what is signed over it.
        titles: of the pictures; fewer leave the others without.
        one_scale: show all on the scale of all together; otherwise each on its own.
        bars: whether there are colour bars.
        preprocessing: of normalised images.

    Raises:
        UsageError: lists of different lengths, or what :func:`draw_attribution` raises.
    """
    looks = [Look("original"), Look()] if looks is None else looks
    lists = [
        values if isinstance(values, (list, tuple)) else [values],
        image if isinstance(image, (list, tuple)) else [image],
        looks if isinstance(looks, (list, tuple)) else [looks],
    ]
    count = max(map(len, lists))
    if any(len(one) not in (1, count) for one in lists) or len(titles) > count:
        raise UsageError(
            f"attributions, images and looks are as many, or one for all, and titles no more: got "
            f"{', '.join(str(len(one)) for one in (*lists, titles))}"
        )
    maps, images, chosen = (list(one) * (count // len(one)) for one in lists)
    drawn = [look for look in chosen if look.style != "original"]
    tiles = []
    for i, (one, picture, look) in enumerate(zip(maps, images, chosen, strict=True)):
        scale = max((scale_of(maps, other) for other in drawn), default=0) if one_scale else None
        tile = _tile(one, as_photo(picture, preprocessing), look, scale, bars)
        tiles.append((titles[i] if i < len(titles) else "", tile))
    return panel(tiles)


def _tile(
    values: Any, photo: np.ndarray, look: Look, scale: float | None, bars: bool
) -> np.ndarray:
    """Draw a picture at a common height, a colour bar at its right."""
    width = max(1, round(HEIGHT * photo.shape[1] / photo.shape[0]))
    photo = fit(photo, HEIGHT, width)
    scale = scale_of([values], look) if scale is None else scale
    picture = draw_attribution(values, photo, look, scale=scale)
    if not bars or look.style not in ("heat_map", "blended_heat_map"):
        return picture
    gap = np.full((HEIGHT, GAP, 3), PAPER, np.uint8)
    return np.concatenate([picture, gap, color_bar(look, scale, HEIGHT)], 1)


def _number(value: float) -> str:
    """Write a number with two digits that count."""
    if value == 0:
        return "0"
    size = abs(value)
    if 0.01 <= size < 1000:
        digits = max(0, 1 - int(np.floor(np.log10(size))))
        return f"{value:+.{digits}f}"
    return f"{value:+.1e}".replace("e-0", "e-").replace("e+0", "e")
