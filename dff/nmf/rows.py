"""Where the rows of A come from: memory, a memory-mapped file, or blocks made anew on each look.

A factorization only ever asks for A's shape, for its blocks in order, and for a sample of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dff.errors import FactorizationError, UsageError

__all__ = ["BLOCK_BYTES", "InMemory", "RowBlocks", "Rows", "sample"]

BLOCK_BYTES = 1 << 23  # of float32: small enough to stay in a processor's cache between two uses

KEPT_ENTRIES = 1 << 27  # a bfloat16 copy of 256 MiB at most


class Rows(Protocol):
    """A matrix A (n, c) that can be read block by block, as often as needed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c)."""

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which rows, their values (b, c) in float32, float64 or bfloat16), in order."""


class InMemory:
    """The rows of a tensor (n, c), perhaps memory-mapped (`on_disk`); blocks are views."""

    def __init__(
        self, values: Tensor, *, block_rows: int | None = None, on_disk: bool = False
    ) -> None:
        self.values = values
        self.on_disk = on_disk
        self.shape = (values.shape[0], values.shape[1])
        row_bytes = values.element_size() * values.shape[1]
        self.block_rows = block_rows or max(256, BLOCK_BYTES // row_bytes)

    def worth_keeping_in(self, precision: torch.dtype) -> bool:
        """Return whether a copy in another `precision` beats converting each block on each look."""
        return (
            precision != self.values.dtype
            and not self.on_disk
            and self.values.numel() <= KEPT_ENTRIES
        )

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which rows, view of them)."""
        for first in range(0, len(self.values), self.block_rows):
            where = slice(first, min(first + self.block_rows, len(self.values)))
            yield where, self.values[where]


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
        first = 0
        for block in self._source:
            for start in range(0, len(block), height):
                piece = _as_float(block[start : start + height])
                yield slice(first, first + len(piece)), piece
                first += len(piece)
        if first != self.shape[0]:
            raise FactorizationError(
                f"the row blocks gave {self.shape[0]} rows at first and {first} now: they must be "
                "the same on every look"
            )


def _as_float(piece: Any) -> Tensor:
    """Return a tensor of `piece` in float32, or in float64 where it is that."""
    if isinstance(piece, Tensor):
        return piece.detach() if piece.dtype == torch.float64 else piece.detach().float()
    kind = np.float64 if piece.dtype == np.float64 else np.float32
    array = np.asarray(piece)
    if array.dtype == kind and array.flags.writeable and array.flags.c_contiguous:
        return torch.from_numpy(array)
    return torch.from_numpy(np.array(array, dtype=kind, order="C"))


def sample(rows: Rows, count: int, *, seed: int) -> Tensor:
    """Return `count` rows (count, c), drawn without replacement by a generator of its own."""
    total = rows.shape[0]
    if isinstance(rows, InMemory) and count >= total:
        return rows.values
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(total, generator=generator)[:count].sort().values
    if isinstance(rows, InMemory):
        return rows.values[chosen.to(rows.values.device)]
    parts = []
    for where, block in rows.blocks():
        low, high = torch.searchsorted(chosen, torch.tensor([where.start, where.stop]))
        parts.append(block[(chosen[low:high] - where.start).to(block.device)])
    return torch.cat(parts)
