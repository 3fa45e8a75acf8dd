"""Legends: what each colour stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dff.errors import UsageError
from dff.rendering import text
from dff.rendering.palette import as_colors

__all__ = ["LegendEntry", "Line", "draw_entry", "entry_width", "legend"]

Line = str | tuple[str, float | str]

LARGEST, SMALLEST = 18, 11
# Rather another column than smaller text than this, or beside a low picture, than a part of it.
COMFORTABLE = 14
COMFORTABLE_LINES = 20
LINE_EMS = 15  # room for the name of a class
PAPER = 255


@dataclass(frozen=True)
class LegendEntry:
    """One concept in a legend.

    Attributes:
        color: its colour, RGB, 0..255 or floating point in [0, 1].
        title: its number or name.
        share: how much of the activations it explains, in [0, 1]; None leaves it out.
        lines: what it speaks for: (class name, score) pairs, the score a number that is drawn
            with two decimals or a text that is drawn as it is; or plain texts.
    """

    color: Sequence[float] | np.ndarray
    title: str
    share: float | None = None
    lines: Sequence[Line] = ()

    @property
    def rows(self) -> int:
        """Lines of text it takes, its title included (and an empty one behind the swatch)."""
        return max(1, len(self.lines) + (1 if self.title or self.share is not None else 0))


def legend(
    entries: Sequence[LegendEntry],
    *,
    height: int,
    smallest: int = SMALLEST,
    largest: int = LARGEST,
) -> Image.Image:
    """Draw a legend of a given height; its width follows from the text.

    Text is as large as the height allows, within limits. Where one column does not hold all
    entries at the smallest size, there are more columns; where not even one entry fits, the
    legend is higher than asked. Long names are shortened with an ellipsis; nothing is clipped.

    Args:
        entries: the concepts, top to bottom.
        height: in pixels, at least 1.
        smallest: least font size in pixels.
        largest: greatest font size in pixels.

    Returns:
        An RGB image on white, `height` pixels high (or higher, see above).
    """
    if height < 1 or not 1 <= smallest <= largest:
        raise UsageError(
            "a legend needs a positive height and 1 <= smallest <= largest, "
            f"not {height}, {smallest}, {largest}"
        )
    if not entries:
        return Image.new("RGB", (1, height), (PAPER, PAPER, PAPER))
    size, columns = _arrange(entries, height, smallest, largest)
    return _draw(columns, size, height)


def broad_legend(entries: Sequence[LegendEntry], *, width: int) -> Image.Image:
    """Draw a legend of many entries in as many columns as a width holds, at least one."""
    columns: list[Sequence[LegendEntry]] = [entries]
    for count in range(2, len(entries) + 1):
        split = _split(entries, count)
        widths = [max(entry_width(entry, COMFORTABLE) for entry in column) for column in split]
        if sum(widths) + 2 * _margin(COMFORTABLE) * len(split) > width:
            break
        columns = split
    return _draw(columns, COMFORTABLE, 1)


def _draw(columns: Sequence[Sequence[LegendEntry]], size: int, height: int) -> Image.Image:
    """Draw columns beside each other, `height` pixels high or as high as they need."""
    rows = max(sum(entry.rows for entry in column) for column in columns)
    total = max(height, _stack_height(rows, len(columns[0]), size))
    pictures = [_draw_column(column, size, total) for column in columns]
    return Image.fromarray(np.hstack(pictures))


def draw_entry(
    canvas: np.ndarray, entry: LegendEntry, *, x: int, y: int, size: int, room: int
) -> None:
    """Draw one entry onto a canvas in place, its top left at (x, y), `room` pixels wide."""
    step, indent = text.line_height(size), _indent(size)
    side = round(size * 0.95)
    top = y + (step - side) // 2
    canvas[top : top + side, x : x + side] = as_colors([entry.color], 1)[0]
    left, right = x + indent, x + room
    share = "" if entry.share is None else _percent(entry.share)
    if entry.title or share:
        _pair(canvas, entry.title, share, left=left, right=right, y=y, size=size, color=text.INK)
        y += step
    for line in entry.lines:
        name, score = (line, "") if isinstance(line, str) else (line[0], _score(line[1]))
        _pair(canvas, name, score, left=left, right=right, y=y, size=size, color=text.SOFT)
        y += step


def _pair(
    canvas: np.ndarray,
    name: str,
    value: str,
    *,
    left: int,
    right: int,
    y: int,
    size: int,
    color: tuple[int, int, int],
) -> None:
    """Draw a name at the left and its value at the right, the name shortened to what is left."""
    value_width = text.width(value, size)
    gap = size // 2 if value else 0
    text.put(
        canvas, name, x=left, y=y, size=size, room=right - left - value_width - gap, color=color
    )
    text.put(canvas, value, x=right - value_width, y=y, size=size, color=color)


def _draw_column(entries: Sequence[LegendEntry], size: int, height: int) -> np.ndarray:
    margin, gap = _margin(size), _gap(size)
    room = max(entry_width(entry, size) for entry in entries)
    canvas = np.full((height, room + 2 * margin, 3), PAPER, np.uint8)
    y = margin
    for entry in entries:
        draw_entry(canvas, entry, x=margin, y=y, size=size, room=room)
        y += entry.rows * text.line_height(size) + gap
    return canvas


def entry_width(entry: LegendEntry, size: int) -> int:
    """Width in pixels that an entry wants: that of its text, up to a limit for names."""
    share = "" if entry.share is None else _percent(entry.share)
    pairs = [(entry.title, share)]
    pairs += [(ln, "") if isinstance(ln, str) else (ln[0], _score(ln[1])) for ln in entry.lines]
    widths = [
        min(text.width(text.clean(name), size), LINE_EMS * size)
        + (text.width(value, size) + size // 2 if value else 0)
        for name, value in pairs
    ]
    return _indent(size) + max(widths) + 1


def _split(entries: Sequence[LegendEntry], count: int) -> list[Sequence[LegendEntry]]:
    """Split entries into at most `count` columns of equal length, the last one shorter."""
    each = math.ceil(len(entries) / count)
    return [entries[i : i + each] for i in range(0, len(entries), each)]


def _arrange(
    entries: Sequence[LegendEntry], height: int, smallest: int, largest: int
) -> tuple[int, list[Sequence[LegendEntry]]]:
    """Choose the font size and the columns: few columns, unless that makes the text too small."""
    best = smallest - 1, _split(entries, len(entries))
    comfortable = min(COMFORTABLE, max(SMALLEST, height // COMFORTABLE_LINES))
    for count in range(1, len(entries) + 1):
        columns = _split(entries, count)
        rows = max(sum(entry.rows for entry in column) for column in columns)
        size = largest
        while size >= smallest and _stack_height(rows, len(columns[0]), size) > height:
            size -= 1
        if size > best[0]:
            best = size, columns
        if best[0] >= comfortable:
            break
    return max(best[0], smallest), best[1]


def _stack_height(rows: int, entries: int, size: int) -> int:
    """Height of a column with so many entries that have so many rows together."""
    return rows * text.line_height(size) + (entries - 1) * _gap(size) + 2 * _margin(size)


def _margin(size: int) -> int:
    return round(size * 0.6)


def _gap(size: int) -> int:
    return round(size * 0.55)


def _indent(size: int) -> int:
    return round(size * 1.5)


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "-"
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _score(score: float | str) -> str:
    return text.clean(score) if isinstance(score, str) else f"{score:.2f}"
