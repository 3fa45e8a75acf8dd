"""Rows drawn evenly from all of A, however many processes hold it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dff.nmf.backend import RankShare
from dff.nmf.rows import InMemory, Rows

__all__ = ["sampled_rows"]

PIECE_ROWS = 512  # drawn at once


def sampled_rows(
    rows: Rows, count: int, share: RankShare, *, seed: int, take: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what `take` makes of the rows of this process that are among `count` of all rows.

    One row is drawn from each of `count` even stretches of all rows: neighbours are much alike
    (they come from one image), so this covers the data better than independent draws. All ranks
    draw the same, and keep those of their `share`. `take` is given the rows piece by piece.
    """
    if isinstance(rows, InMemory) and count >= share.total_rows:
        return take(rows.values)
    generator = torch.Generator().manual_seed(seed)
    count = min(count, share.total_rows)
    edges = torch.arange(count + 1) * share.total_rows // count
    within = torch.rand(count, generator=generator, dtype=torch.float64)
    chosen = edges[:-1] + (within * edges.diff()).long() - share.row_offset
    return _drawn(rows, chosen[(chosen >= 0) & (chosen < rows.shape[0])], take)


def _drawn(rows: Rows, chosen: Tensor, take: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `take` makes of the `chosen` rows (ascending), read block by block."""
    drawn: Tensor | None = None
    for where, block in rows.blocks():
        if drawn is None:
            nothing = take(block[:0])
            drawn = nothing.new_empty(len(chosen), nothing.shape[1])
        low, high = torch.searchsorted(chosen, torch.tensor([where.start, where.stop])).tolist()
        for first in range(low, high, PIECE_ROWS):
            last = min(first + PIECE_ROWS, high)
            places = (chosen[first:last] - where.start).to(block.device)
            drawn[first:last] = take(block.index_select(0, places))
    assert drawn is not None
    return drawn
