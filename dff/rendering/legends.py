"""Legends: what each colour stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from dff.errors import UsageError
from dff.rendering import text
from dff.rendering.bars import BarColumn, Bars
from dff.rendering.entries import LegendEntry, draw_entry, entry_width, indent, pair, pair_width
from dff.rendering.palette import as_colors

__all__ = ["Blocks", "Legend", "arranged", "broad", "comfortable_height", "legend"]

LARGEST, SMALLEST = 18, 11
# Rather another column than smaller text than this, or beside a low picture, than a part of it.
COMFORTABLE = 14
COMFORTABLE_LINES = 20
# A table of bars is rather higher than asked by this factor than split into several.
HIGHER = 1.5
PAPER, RULE = 255, 215


@dataclass(frozen=True)
class Legend:
    """The entries of a legend, with headings over them and bars beside them.

    Attributes:
        entries: the concepts, top to bottom.
        heads: (left, right) texts above the entries: what their lines are.
        columns: of bars, a value an entry.
    """

    entries: Sequence[LegendEntry]
    heads: Sequence[tuple[str, str]] = ()
    columns: Sequence[BarColumn] = ()


def legend(
    entries: Sequence[LegendEntry] | Legend,
    *,
    height: int,
    smallest: int = SMALLEST,
    largest: int = LARGEST,
) -> Image.Image:
    """Draw a legend of a given height; its width follows from the text.

    Text is as large as the height allows, within limits. Where one column does not hold all
    entries at the smallest size, there are more columns; where not even one entry fits, the
    legend is higher than asked, and so it may be with columns of bars. Long names are shortened
    with an ellipsis; nothing is clipped.

    Args:
        entries: the concepts, top to bottom, or more about them.
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
    if not _as_legend(entries).entries:
        return Image.new("RGB", (1, height), (PAPER, PAPER, PAPER))
    blocks = arranged(entries, height=height, smallest=smallest, largest=largest)
    return Image.fromarray(blocks.drawn(height))


def arranged(
    entries: Sequence[LegendEntry] | Legend,
    *,
    height: int,
    smallest: int = SMALLEST,
    largest: int = LARGEST,
) -> Blocks:
    """Choose the font size and the blocks: few blocks, unless that makes the text too small."""
    shown = _as_legend(entries)
    best: Blocks | None = None
    comfortable = min(COMFORTABLE, max(SMALLEST, height // COMFORTABLE_LINES))
    for count in range(1, len(shown.entries) + 1):
        size = largest
        while size >= smallest:
            higher = HIGHER if shown.columns and size <= COMFORTABLE else 1
            if Blocks(shown, count, size).height <= higher * height:
                break
            size -= 1
        if size >= smallest and (best is None or size > best.size):
            best = Blocks(shown, count, size)
        if best is not None and best.size >= comfortable:
            break
    return best or Blocks(shown, max(1, len(shown.entries)), smallest)


def broad(entries: Sequence[LegendEntry] | Legend, *, width: int) -> Blocks:
    """Split many entries into as many blocks as a width holds, at least one."""
    shown = _as_legend(entries)
    blocks = Blocks(shown, 1, COMFORTABLE)
    for count in range(2, len(shown.entries) + 1):
        more = Blocks(shown, count, COMFORTABLE)
        if more.width > width:
            break
        blocks = more
    return blocks


def comfortable_height(entries: Sequence[LegendEntry] | Legend) -> int:
    """Return how high a legend is in one block, with text that reads well."""
    shown = _as_legend(entries)
    return Blocks(shown, 1, COMFORTABLE).height if shown.entries else 0


def _as_legend(entries: Sequence[LegendEntry] | Legend) -> Legend:
    shown = entries if isinstance(entries, Legend) else Legend(entries)
    for column in shown.columns:
        if len(column.values) != len(shown.entries):
            raise UsageError(
                f"the column {column.heading!r} has {len(column.values)} values, but there are "
                f"{len(shown.entries)} entries"
            )
    return shown


class Blocks:
    """A legend at a font size, split into blocks that stand beside each other.

    Attributes:
        parts: the entries of each block.
    """

    def __init__(self, shown: Legend, count: int, size: int) -> None:
        self.shown, self.size = shown, size
        self.step = text.line_height(size)
        self.margin, self.gap = round(size * 0.6), round(size * 0.55)
        total = len(shown.entries)
        each = math.ceil(total / count)
        self.parts = [range(i, min(i + each, total)) for i in range(0, total, each)]
        self.bars = Bars(shown.columns, size)

    @cached_property
    def rooms(self) -> list[int]:
        """Width of each block's entries."""
        least = max((pair_width(*head, self.size) for head in self.shown.heads), default=0)
        first = indent(self.shown.entries[0], self.size)
        foot = max((text.width(name, self.size) for name in self.bars.foot), default=0)
        return [
            max(foot, first + least, *(entry_width(self.shown.entries[k], self.size) for k in part))
            for part in self.parts
        ]

    @property
    def width(self) -> int:
        """Width in pixels of all blocks."""
        return sum(room + self.bars.width + 2 * self.margin for room in self.rooms)

    @property
    def head(self) -> int:
        """Height in pixels of the headings, with a gap below."""
        rows = max(len(self.shown.heads), self.bars.head_rows)
        return rows * self.step + self.gap if rows else 0

    @property
    def height(self) -> int:
        """Height in pixels of the highest block."""
        heights = [
            sum(self.shown.entries[k].rows * self.step + self.gap for k in part) - self.gap
            for part in self.parts
        ]
        if self.bars.foot:
            heights[-1] += len(self.bars.foot) * self.step + self.gap
        return self.head + max(heights) + 2 * self.margin

    def drawn(self, height: int = 1) -> np.ndarray:
        """Return the picture, uint8 (height, width, 3), as high as asked or as needed."""
        total = max(height, self.height)
        return np.hstack([self._drawn(i, total) for i in range(len(self.parts))])

    def _drawn(self, index: int, height: int) -> np.ndarray:
        room, margin, size = self.rooms[index], self.margin, self.size
        canvas = np.full((height, room + self.bars.width + 2 * margin, 3), PAPER, np.uint8)
        right, y = margin + room, margin + self.head
        self._draw_head(canvas, right)
        for k in self.parts[index]:
            entry = self.shown.entries[k]
            high = entry.rows * self.step
            if self.shown.heads:
                canvas[y - self.gap // 2 - 1, margin:-margin] = RULE
            draw_entry(canvas, entry, x=margin, y=y, size=size, room=room)
            color = as_colors([entry.color], 1)[0]
            last = k == self.parts[index][-1]
            axis = high if last else high + self.gap
            self.bars.draw_row(canvas, k, color, x=right, y=y, height=axis)
            y += high + self.gap
        if index == len(self.parts) - 1:
            self.bars.draw_foot(canvas, x=right, y=y)
        return canvas

    def _draw_head(self, canvas: np.ndarray, right: int) -> None:
        bottom = self.margin + self.head - self.gap
        left = self.margin + indent(self.shown.entries[0], self.size)
        for i, (name, value) in enumerate(self.shown.heads):
            y = bottom - (len(self.shown.heads) - i) * self.step
            pair(canvas, name, value, left=left, right=right, y=y, size=self.size, color=text.SOFT)
        self.bars.draw_head(canvas, x=right, bottom=bottom)
