"""Columns of signed bars beside a legend's entries, each with what its numbers come to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dff.rendering import text

__all__ = ["BarColumn", "Bars"]

BAR_EMS = 4.5  # length of the longest bar with its other side
GAP_EMS = 1.2  # between columns
ABOUT_EMS = 10  # room for what a single column is about, in a line
LEAST_SIDE = 0.1  # of an axis, for the side of no bars
LARGE = 10.0  # numbers from this on have one decimal, smaller ones two
HEAD_LINES = 2  # of a heading


@dataclass(frozen=True)
class BarColumn:
    """One number for each entry of a legend, drawn as bars from a common zero.

    Attributes:
        heading: what the numbers are about, such as a class.
        values: one an entry, of either sign.
        about: what the numbers are; neighbouring columns that share it are drawn under it, on one
            scale.
        addends: (name, number) of what is added to the values, below them.
        total: (name, number) of what it all comes to; None where the values do not add up.
        notes: (name, text) below that.
    """

    heading: str
    values: Sequence[float]
    about: str = ""
    addends: Sequence[tuple[str, float]] = ()
    total: tuple[str, float] | None = None
    notes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class _Scale:
    """What columns under one description share: the ends of the axis, and decimals."""

    low: float
    high: float
    decimals: int

    @classmethod
    def of(cls, columns: Sequence[BarColumn]) -> _Scale:
        values = [v for column in columns for v in column.values if math.isfinite(v)]
        low, high = min([0.0, *values]), max([0.0, *values])
        totals = [abs(column.total[1]) for column in columns if column.total]
        largest = max([-low, high, *totals])
        low, high = min(low, -LEAST_SIDE * high), max(high, -LEAST_SIDE * low)
        return cls(low, high if high > low else 1.0, 1 if largest >= LARGE else 2)

    def written(self, value: float, *, sign: str = "+") -> str:
        if not math.isfinite(value):
            return "-"
        rounded = round(value, self.decimals) + 0.0  # never -0.00
        return f"{rounded:{sign if rounded else ''}.{self.decimals}f}"


class Bars:
    """Columns at a font size: how much room they take, and their drawing.

    Attributes:
        width: of all columns, in pixels; 0 without any.
        foot: (names of) the rows below the entries.
    """

    def __init__(self, columns: Sequence[BarColumn], size: int) -> None:
        self.columns, self.size = columns, size
        self.step = text.line_height(size)
        self.gap = round(GAP_EMS * size)
        groups = [list(group) for _, group in itertools.groupby(columns, lambda c: c.about)]
        self.groups = [(group, _Scale.of(group)) for group in groups]
        self.widths, self.lengths = [], []
        for group, scale in self.groups:
            numbers = [
                size // 2 + max(text.width(n, size) for n in _numbers(column, scale))
                for column in group
            ]
            about = min(text.width(group[0].about, size), ABOUT_EMS * size)
            least = (about - sum(numbers) - (len(group) - 1) * self.gap) / len(group)
            length = math.ceil(max(BAR_EMS * size, least))
            self.lengths += [length] * len(group)
            self.widths += [length + number for number in numbers]
        self.width = sum(self.widths) + self.gap * len(self.widths)
        self.foot = [name for name, _ in _foot(columns)]

    @cached_property
    def _heads(self) -> list[tuple[list[str], list[list[str]]]]:
        """Lines of what each group is about, and of the headings of its columns."""
        widths = iter(self.widths)
        heads = []
        for group, _ in self.groups:
            rooms = [next(widths) for _ in group]
            room = sum(rooms) + self.gap * (len(group) - 1)
            about = text.wrapped(group[0].about, self.size, room, lines=HEAD_LINES)
            lines = [
                text.wrapped(column.heading, self.size, width, lines=HEAD_LINES)
                for column, width in zip(group, rooms, strict=True)
            ]
            heads.append((about, lines))
        return heads

    @property
    def head_rows(self) -> int:
        """Lines above the entries."""
        headings = max((len(h) for _, lines in self._heads for h in lines), default=0)
        return headings + max((len(about) for about, _ in self._heads), default=0)

    def draw_head(self, canvas: np.ndarray, *, x: int, bottom: int) -> None:
        """Draw what the columns are about, and their headings, down to `bottom`."""
        places = iter(self._places(x))
        headings = max((len(h) for _, lines in self._heads for h in lines), default=0)
        for about, columns in self._heads:
            for i, lines in enumerate(columns):
                left = next(places)[0]
                if i == 0:
                    self._lines(canvas, about, left, bottom - headings * self.step, text.SOFT)
                self._lines(canvas, lines, left, bottom, text.INK)

    def draw_row(
        self, canvas: np.ndarray, k: int, color: np.ndarray, *, x: int, y: int, height: int
    ) -> None:
        """Draw entry k's bars on the line at y, and the zeros over its height."""
        at = zip(self._places(x), self.lengths, strict=True)
        thick = round(self.size * 0.8)
        top = y + (self.step - thick) // 2
        for group, scale in self.groups:
            for column in group:
                (left, width), length = next(at)
                unit = length / (scale.high - scale.low)
                zero = left + round(-scale.low * unit)
                canvas[y : y + height, zero] = text.SOFT
                value = column.values[k]
                end = zero + round(value * unit) if math.isfinite(value) else zero
                _bar(canvas[top : top + thick], zero, end, color)
                self._number(canvas, scale.written(value), left + width, y)

    def draw_foot(self, canvas: np.ndarray, *, x: int, y: int) -> None:
        """Draw what is added to the columns, and what they come to, with the names at the left."""
        for i, name in enumerate(self.foot):
            wide = text.width(name, self.size)
            text.put(canvas, name, x=x - wide, y=y + i * self.step, size=self.size, color=text.SOFT)
        at = iter(self._places(x))
        for group, scale in self.groups:
            for column in group:
                left, width = next(at)
                for name, number in _foot([column], scale):
                    row = y + self.foot.index(name) * self.step
                    if column.total and name == column.total[0]:
                        canvas[row, left : left + width] = text.SOFT
                    self._number(canvas, number, left + width, row)

    def _places(self, x: int) -> list[tuple[int, int]]:
        """Return each column's left end and width, the first one a gap right of x."""
        lefts = itertools.accumulate((w + self.gap for w in self.widths), initial=x + self.gap)
        return list(zip(lefts, self.widths, strict=False))

    def _lines(
        self, canvas: np.ndarray, lines: Sequence[str], x: int, bottom: int, color: text.Color
    ) -> None:
        for i, line in enumerate(lines):
            y = bottom - (len(lines) - i) * self.step
            text.put(canvas, line, x=x, y=y, size=self.size, color=color)

    def _number(self, canvas: np.ndarray, number: str, right: int, y: int) -> None:
        wide = text.width(number, self.size)
        text.put(canvas, number, x=right - wide, y=y, size=self.size)


def _bar(strip: np.ndarray, zero: int, end: int, color: np.ndarray) -> None:
    """Draw a bar with a dark outline: full to the right of zero, hatched to the left."""
    first, last = min(zero, end), max(zero, end)
    if first == last:
        return
    bar = strip[:, first : last + 1]
    bar[:] = text.INK
    inner = bar[1:-1, 1:-1]
    inner[:] = color
    if end < zero:
        height, width = inner.shape[:2]
        inner[(np.arange(height)[:, None] + np.arange(width)) % 4 >= 2] = 255


def _numbers(column: BarColumn, scale: _Scale) -> list[str]:
    return [*map(scale.written, column.values), *(number for _, number in _foot([column], scale))]


def _foot(columns: Sequence[BarColumn], scale: _Scale | None = None) -> list[tuple[str, str]]:
    """Return (name, text) of the rows below columns, each name once."""
    scale = scale or _Scale(0, 1, 2)
    rows: dict[str, str] = {}
    for column in columns:
        rows.update({name: scale.written(value) for name, value in column.addends})
    for column in columns:
        if column.total:
            rows[column.total[0]] = scale.written(column.total[1], sign="")
    for column in columns:
        rows.update(column.notes)
    return list(rows.items())
