"""Where the rows of A come from: memory, a memory-mapped file, or blocks made anew on each look.

A factorization only ever asks for A's shape, for its blocks in order, and for a sample of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dff.errors import FactorizationError, UsageError
from dff.nmf.threads import workers

__all__ = ["BLOCK_BYTES", "Converter", "InMemory", "RowBlocks", "Rows", "as_tensor", "sample"]

BLOCK_BYTES = 1 << 24  # small enough to stay in a processor's cache between two uses
PARTS_BLOCK_BYTES = 1 << 25  # of the blocks in use at once, where parts are worked on side by side
DEVICE_BLOCK_BYTES = 1 << 28  # large enough on a GPU that starting its kernels does not count
PIECE_ROWS = 512  # sampled at once


class Rows(Protocol):
    """A matrix A (n, c) that can be read block by block, as often as needed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c)."""

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which rows, their values (b, c) in float32, float64 or bfloat16), in order."""

    def parts(self) -> Sequence[Rows]:
        """Return rows that together are these, in order, to work on side by side.

        Their blocks say which rows of the whole they are.
        """


class InMemory:
    """The rows of a tensor (n, c), perhaps memory-mapped; blocks are views.

    The tensor may be one of `parts` of a whole, which has `first` rows before it.
    """

    def __init__(self, values: Tensor, first: int = 0, parts: int = 1) -> None:
        self.values = values
        self.shape = (values.shape[0], values.shape[1])
        self._first = first
        here = values.device.type == "cpu"
        self._block_bytes = (
            min(BLOCK_BYTES, PARTS_BLOCK_BYTES // parts) if here else DEVICE_BLOCK_BYTES
        )

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which rows, view of them); one empty view where there are none.

        Rows in half precision are given as float32, in memory that the next block overwrites.
        """
        half = self.values.dtype == torch.float16
        exact = Converter(torch.float32 if half else self.values.dtype)
        height = max(256, self._block_bytes // (max(4, self.values.element_size()) * self.shape[1]))
        for first in range(0, max(1, len(self.values)), height):
            block = self.values[first : first + height]
            start = self._first + first
            yield slice(start, start + len(block)), exact(block)

    def parts(self) -> list[InMemory]:
        """Return views, one for each worker."""
        rows = len(self.values)
        count = 1
        if self.values.device.type == "cpu":
            count = min(workers(self.values.numel()), max(1, rows))
        edges = [rows * index // count for index in range(count + 1)]
        return [InMemory(self.values[a:b], a, count) for a, b in pairwise(edges)]


class RowBlocks:
    """The rows of a matrix too large for memory, as blocks that can be read again and again.

    Args:
        blocks: an iterable that starts over each time: a list of arrays or memory maps, or an
            object whose ``__iter__`` reads or computes them anew. Each block is (rows, c), numpy or
            torch, float16 and bfloat16 included; it is read in pieces as float32 (float64 stays).
            A generator runs once only and is refused.

    Raises:
        UsageError: not an iterable that starts over.
        FactorizationError: blocks that are not matrices, or not of one width; no rows at all.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        if not hasattr(source, "__iter__") or iter(source) is source:
            raise UsageError(
                "expected row blocks that can be read more than once, got "
                f"{type(source).__name__}, which runs once: pass a list of arrays, or an object "
                "whose __iter__ starts over"
            )
        self._source = source
        self._shape: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c), from one look at every block's shape."""
        if self._shape is None:
            shapes = [self._matrix_shape(block) for block in self._source]
            widths = {columns for _, columns in shapes}
            rows = sum(count for count, _ in shapes)
            if len(widths) != 1 or rows == 0:
                raise FactorizationError(
                    f"expected row blocks of one width with at least one row, got {rows} rows of "
                    f"widths {sorted(widths)}: 0 sample(s) or mixed layers cannot be factorized"
                )
            self._shape = (rows, widths.pop())
        return self._shape

    @staticmethod
    def _matrix_shape(block: Any) -> tuple[int, int]:
        shape = tuple(getattr(block, "shape", ()))
        if len(shape) != 2:
            raise FactorizationError(
                f"expected row blocks of shape (rows, columns), got {type(block).__name__} of "
                f"shape {shape}: reshape each to one row a pixel"
            )
        return shape

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which rows, their values), split to pieces of at most `BLOCK_BYTES`."""
        height = max(256, BLOCK_BYTES // (4 * self.shape[1]))
        first, exact = 0, Converter(torch.float32)
        for block in self._source:
            for start in range(0, len(block), height):
                piece = as_tensor(block[start : start + height])
                piece = piece if piece.dtype == torch.float64 else exact(piece)
                yield slice(first, first + len(piece)), piece
                first += len(piece)
        if first != self.shape[0]:
            raise FactorizationError(
                f"the row blocks gave {self.shape[0]} rows at first and {first} now: they must be "
                "the same on every look"
            )

    def parts(self) -> list[RowBlocks]:
        """Return the whole: one reader reads it in order."""
        return [self]


class Converter:
    """Gives blocks in a type of products, one after the other in the same memory."""

    def __init__(self, kind: torch.dtype) -> None:
        self.kind = kind
        self._buffer: Tensor | None = None

    def __call__(self, block: Tensor) -> Tensor:
        """Return `block` (b, c) in the type, valid until the next call."""
        if block.dtype == self.kind:
            return block
        if self._buffer is None or len(self._buffer) < len(block):
            self._buffer = torch.empty(block.shape, dtype=self.kind, device=block.device)
        return self._buffer[: len(block)].copy_(block)


def as_tensor(values: Any) -> Tensor:
    """Return a tensor that shares the memory of `values`, numpy or torch, where torch can take it.

    Read-only memory is taken too, without torch's warning.
    """
    if isinstance(values, Tensor):
        return values.detach()
    if min(values.strides, default=0) < 0 or not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="), order="C")
    if not values.flags.writeable:
        interface = dict(values.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        holder = type("_View", (), {"__array_interface__": interface, "owner": values})()
        values = np.asarray(holder)
    return torch.from_numpy(values)


def sample(
    rows: Rows,
    count: int,
    *,
    seed: int,
    take: Callable[[Tensor], Tensor],
    before: int = 0,
    everywhere: int | None = None,
) -> Tensor:
    """Return what `take` makes of the rows of this process that are among `count` of all rows.

    One row is drawn from each of `count` even stretches of all rows: neighbours are much alike
    (they come from one image), so this covers the data better than independent draws. All ranks
    draw the same: of the rows `everywhere`, those of this process come after so many `before`.
    `take` is given the rows piece by piece.
    """
    own, everywhere = rows.shape[0], everywhere or rows.shape[0]
    if isinstance(rows, InMemory) and count >= everywhere:
        return take(rows.values)
    generator = torch.Generator().manual_seed(seed)
    count = min(count, everywhere)
    edges = torch.arange(count + 1) * everywhere // count
    place = torch.rand(count, generator=generator, dtype=torch.float64)
    chosen = edges[:-1] + (place * edges.diff()).long() - before
    return _drawn(rows, chosen[(chosen >= 0) & (chosen < own)], take)


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
