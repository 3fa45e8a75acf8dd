"""Masks of interpolated maps at a photo's own pixels, without ever drawing them.

A map of h x w cells, interpolated linearly, is piecewise linear along every pixel column, with
knots at the cells' centres. So where it exceeds a threshold in a column follows from the h values
at the knots: O(width · h) work instead of O(width · height), whatever the size of the photo, and
the result comes as the runs that COCO's run-length encoding is made of.

A *run* is (start, end), half-open, of positions x · height + y (column by column, as in COCO).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dff.maps.grid import Grid, upsample

__all__ = ["Runs", "largest_component", "runs_above", "runs_of"]


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask: runs `starts` and `ends` (m,) int64, ascending, none empty, none crossing columns."""

    starts: np.ndarray
    ends: np.ndarray
    height: int
    width: int

    def drawn(self) -> np.ndarray:
        """Return the mask (height, width) of bool."""
        steps = np.zeros(self.height * self.width + 1, np.int8)
        steps[self.starts] += 1
        np.subtract.at(steps, self.ends, 1)
        inside = np.cumsum(steps[:-1], dtype=np.int8).astype(bool)
        return inside.reshape(self.width, self.height).T

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int((self.ends - self.starts).sum())

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """(x0, y0, x1, y1), half-open, in pixels; None for an empty mask."""
        if not len(self.starts):
            return None
        columns = self.starts // self.height
        tops = self.starts - columns * self.height
        bottoms = self.ends - columns * self.height
        return int(columns[0]), int(tops.min()), int(columns[-1]) + 1, int(bottoms.max())


def runs_above(
    maps: np.ndarray, thresholds: np.ndarray, grid: Grid, size: tuple[int, int]
) -> list[Runs]:
    """Return where interpolated maps exceed their thresholds, at the pixels of a photo.

    The same pixels as ``upsample(maps, size, grid) > threshold``, to rounding.

    Args:
        maps: (k, h, w) float32, at least 0.
        thresholds: (k,), at least 0.
        grid: where the cells lie.
        size: (height, width) of the photo.
    """
    height, width = size
    cells = maps.shape[1]
    rowwise = replace(
        grid, height=cells, stride=(1.0, grid.stride[1]), offset=(0.5, grid.offset[1])
    )
    values = upsample(maps.astype(np.float64), (cells, width), rowwise).transpose(0, 2, 1)
    limit = thresholds[:, None, None]
    # knots: the (real) pixel at which each row of cells has its centre
    centres = (grid.offset[0] + np.arange(cells) * grid.stride[0]) * height / grid.height - 0.5
    knots = np.clip(np.ceil(centres), 0, height).astype(np.int64)
    above, below = values[..., :-1], values[..., 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = centres[:-1] + (limit - above) / (below - above) * np.diff(centres)
    inside_above, inside_below = above > limit, below > limit
    first = np.where(inside_above, knots[:-1], _whole(np.floor(crossing) + 1, height))
    last = np.where(inside_below, knots[1:], _whole(np.ceil(crossing), height))
    first = np.maximum(first, knots[:-1])
    last = np.where(inside_above | inside_below, np.minimum(last, knots[1:]), first)
    starts, ends = _with_borders(values > limit, first, last, knots, height)
    return [_joined(s, e, height, width) for s, e in zip(starts, ends, strict=True)]


def _whole(values: np.ndarray, height: int) -> np.ndarray:
    return np.clip(np.nan_to_num(values, posinf=height, neginf=0), 0, height).astype(np.int64)


def _with_borders(
    inside: np.ndarray, first: np.ndarray, last: np.ndarray, knots: np.ndarray, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Add the constant borders before the first and after the last knot: (k, width, h + 1)."""
    top_end = np.where(inside[..., :1], knots[0], 0)
    bottom_start = np.full_like(top_end, knots[-1])
    bottom_end = np.where(inside[..., -1:], height, knots[-1])
    starts = np.concatenate([np.zeros_like(top_end), first, bottom_start], axis=-1)
    ends = np.concatenate([top_end, last, bottom_end], axis=-1)
    return starts, ends


def _joined(starts: np.ndarray, ends: np.ndarray, height: int, width: int) -> Runs:
    """Drop empty pieces (width, m) and join those that touch within a column."""
    offset = np.arange(width, dtype=np.int64)[:, None] * height
    filled = ends > starts
    first, last = (starts + offset)[filled], (ends + offset)[filled]
    if len(first) > 1:
        apart = (first[1:] != last[:-1]) | (first[1:] % height == 0)
        first = first[np.concatenate([[True], apart])]
        last = last[np.concatenate([apart, [True]])]
    return Runs(first, last, height, width)


def runs_of(mask: np.ndarray) -> Runs:
    """Return the runs of a mask (height, width) of bool."""
    height, width = mask.shape
    padded = np.zeros((width, height + 2), np.int8)
    padded[:, 1:-1] = mask.T
    steps = np.diff(padded, axis=1).ravel()  # height + 1 a column
    (starts, ends) = (np.flatnonzero(steps == sign).astype(np.int64) for sign in (1, -1))
    return Runs(starts - starts // (height + 1), ends - ends // (height + 1), height, width)


def largest_component(runs: Runs) -> Runs:
    """Return the largest 8-connected component of a mask; the first of equals."""
    count = len(runs.starts)
    if count < 2:
        return runs
    # Keys with room between columns, so that runs of different columns never seem to touch.
    column = runs.starts // runs.height
    shift = column * 2
    starts, ends = runs.starts + shift, runs.ends + shift
    step = runs.height + 2
    low = np.searchsorted(ends, starts + step, "left")
    high = np.searchsorted(starts, ends + step, "right")
    if column[-1] - column[0] + 1 == count and bool((high - low)[:-1].all()):
        return runs  # one run a column, each touching the next
    touching = np.maximum(high - low, 0)
    left = np.repeat(np.arange(count), touching)
    right = np.arange(len(left)) - np.repeat(np.cumsum(touching) - touching, touching)
    right = right + np.repeat(low, touching)
    from scipy.sparse import coo_matrix  # heavy, and needed for masks of several parts only
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    components, label = connected_components(graph, directed=False)
    if components == 1:
        return runs
    areas = np.bincount(label, weights=runs.ends - runs.starts)
    kept = label == int(areas.argmax())
    return replace(runs, starts=runs.starts[kept], ends=runs.ends[kept])
