"""Columns of signed bars beside a legend's entries, each with what its numbers come to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dff.rendering import text

__all__ = ["BarColumn", "Bars"]

BAR_EMS = 4.5  # length of the longest bar with its other side
GAP_EMS = 1.2  # between columns
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
        self.gap, self.length = round(GAP_EMS * size), round(BAR_EMS * size)
        groups = [list(group) for _, group in itertools.groupby(columns, lambda c: c.about)]
        self.groups = [(group, _Scale.of(group)) for group in groups]
        self.widths = [
            self.length + size // 2 + max(text.width(number, size) for number in _numbers(c, scale))
            for group, scale in self.groups
            for c in group
        ]
        self.width = sum(self.widths) + self.gap * len(self.widths)
        self.foot = [name for name, _ in _foot(columns)]

    @property
    def head_rows(self) -> int:
        """Lines above the entries."""
        if not self.columns:
            return 0
        lines = max(
            len(self._heading(*pair)) for pair in zip(self.columns, self.widths, strict=True)
        )
        return lines + any(column.about for column in self.columns)

    def draw_head(self, canvas: np.ndarray, *, x: int, bottom: int) -> None:
        """Draw what the columns are about, and their headings, down to `bottom`."""
        top = bottom - self.head_rows * self.step
        at = iter(self._places(x))
        for group, _ in self.groups:
            places = [next(at) for _ in group]
            left, right = places[0][0], sum(places[-1])
            text.put(
                canvas,
                group[0].about,
                x=left,
                y=top,
                size=self.size,
                room=right - left + self.gap,
                color=text.SOFT,
            )
            for column, (start, width) in zip(group, places, strict=True):
                lines = self._heading(column, width)
                for i, line in enumerate(lines):
                    y = bottom - (len(lines) - i) * self.step
                    text.put(canvas, line, x=start, y=y, size=self.size)

    def draw_row(
        self, canvas: np.ndarray, k: int, color: np.ndarray, *, x: int, y: int, height: int
    ) -> None:
        """Draw entry k's bars on the line at y, and the zeros over its height."""
        at = iter(self._places(x))
        for group, scale in self.groups:
            for column in group:
                left, width = next(at)
                zero = left + round(-scale.low / (scale.high - scale.low) * self.length)
                canvas[y : y + height, zero] = text.SOFT
                value = column.values[k]
                end = (
                    zero + round(value / (scale.high - scale.low) * self.length)
                    if math.isfinite(value)
                    else zero
                )
                thick = round(self.size * 0.8)
                top = y + (self.step - thick) // 2
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

    def _heading(self, column: BarColumn, width: int) -> list[str]:
        return text.wrapped(column.heading, self.size, width, lines=HEAD_LINES)

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
    down, across = np.ogrid[: inner.shape[0], : inner.shape[1]]
    inner[:] = color if end > zero else np.where(((down + across) % 4 < 2)[..., None], color, 255)


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
