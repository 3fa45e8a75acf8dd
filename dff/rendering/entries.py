"""One concept in a legend: swatch or crop, name, share, and what it speaks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dff.maps import fitted
from dff.rendering import text
from dff.rendering.marks import put_number
from dff.rendering.palette import as_colors

__all__ = ["LegendEntry", "Line", "draw_entry", "entry_width", "indent", "pair"]

Line = str | tuple[str, float | str]

LINE_EMS = 15  # room for the name of a class
PICTURE_ROWS = 3  # lines of text that a crop is as high as


@dataclass(frozen=True)
class LegendEntry:
    """One concept in a legend.

    Attributes:
        color: its colour, RGB, 0..255 or floating point in [0, 1].
        title: its number or name.
        share: how much of the activations it explains, in [0, 1]; None leaves it out.
        lines: what it speaks for: (class name, score) pairs, the score a number that is drawn
            with two decimals or a text that is drawn as it is; or plain texts.
        picture: what it looks like, uint8 (side, side, 3), RGB, framed in its colour in place of
            a swatch; None for a swatch.
        number: on the picture's corner, as in :func:`dff.rendering.number_concepts`.
    """

    color: Sequence[float] | np.ndarray
    title: str
    share: float | None = None
    lines: Sequence[Line] = ()
    picture: np.ndarray | None = None
    number: int | None = None

    @property
    def rows(self) -> int:
        """Lines of text it takes, its title included (and an empty one behind the swatch)."""
        lines = len(self.lines) + (1 if self.title or self.share is not None else 0)
        return max(1 if self.picture is None else PICTURE_ROWS, lines)


def draw_entry(
    canvas: np.ndarray, entry: LegendEntry, *, x: int, y: int, size: int, room: int
) -> None:
    """Draw one entry onto a canvas in place, its top left at (x, y), `room` pixels wide."""
    step = text.line_height(size)
    _swatch(canvas, entry, x, y, size)
    left, right = x + indent(entry, size), x + room
    share = "" if entry.share is None else _percent(entry.share)
    if entry.title or share:
        pair(canvas, entry.title, share, left=left, right=right, y=y, size=size, color=text.INK)
        y += step
    for line in entry.lines:
        name, score = (line, "") if isinstance(line, str) else (line[0], _score(line[1]))
        pair(canvas, name, score, left=left, right=right, y=y, size=size, color=text.SOFT)
        y += step


def entry_width(entry: LegendEntry, size: int) -> int:
    """Width in pixels that an entry wants: that of its text, up to a limit for names."""
    share = "" if entry.share is None else _percent(entry.share)
    pairs = [(entry.title, share)]
    pairs += [(ln, "") if isinstance(ln, str) else (ln[0], _score(ln[1])) for ln in entry.lines]
    return indent(entry, size) + max(pair_width(*pair, size) for pair in pairs) + 1


def indent(entry: LegendEntry, size: int) -> int:
    """Return how far right of its left end an entry's text begins, in pixels."""
    if entry.picture is None:
        return round(size * 1.5)
    return PICTURE_ROWS * text.line_height(size) + round(size * 0.6)


def pair(
    canvas: np.ndarray,
    name: str,
    value: str,
    *,
    left: int,
    right: int,
    y: int,
    size: int,
    color: text.Color,
) -> None:
    """Draw a name at the left and its value at the right, the name shortened to what is left."""
    value_width = text.width(value, size)
    gap = _value_gap(size) if value else 0
    text.put(
        canvas, name, x=left, y=y, size=size, room=right - left - value_width - gap, color=color
    )
    text.put(canvas, value, x=right - value_width, y=y, size=size, color=color)


def pair_width(name: str, value: str, size: int) -> int:
    """Return the width in pixels that :func:`pair` wants, up to a limit for the name."""
    value_width = text.width(value, size) + _value_gap(size) if value else 0
    return min(text.width(text.clean(name), size), LINE_EMS * size) + value_width


def _value_gap(size: int) -> int:
    return round(0.8 * size)


def _swatch(canvas: np.ndarray, entry: LegendEntry, x: int, y: int, size: int) -> None:
    """Draw a square of the entry's colour, or its picture framed in it, with its number."""
    step, color = text.line_height(size), as_colors([entry.color], 1)[0]
    if entry.picture is None:
        side = round(size * 0.95)
        top = y + (step - side) // 2
        canvas[top : top + side, x : x + side] = color
        return
    side = PICTURE_ROWS * step
    thick = max(3, side // 16)
    square = canvas[y : y + side, x : x + side]
    square[:] = text.INK
    square[1:-1, 1:-1] = color
    square[thick:-thick, thick:-thick] = fitted(entry.picture, (side - 2 * thick,) * 2)
    if entry.number is not None:
        radius = round(size * 0.6)
        middle = radius - thick // 2 + 1
        put_number(canvas, entry.number, x=x + middle, y=y + middle, radius=radius, color=color)


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "-"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _score(score: float | str) -> str:
    return text.clean(score) if isinstance(score, str) else f"{score:.2f}"
