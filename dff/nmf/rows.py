"""A, read block by block: where its rows come from, and whether they may be factorized.

Rows lie in memory, in a memory-mapped file, or in blocks made anew on each pass. A factorization
only ever asks for A's shape, for its blocks in order, and for parts to work on side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dff.errors import FactorizationError, UsageError
from dff.nmf.backend import (
    Total,
    alone,
    arithmetic_dtype,
    times_power_of_two,
    unsafe_exponent,
    workers,
)

__all__ = [
    "Converter",
    "InMemory",
    "Inspector",
    "MappedRows",
    "RowBlocks",
    "Rows",
    "as_tensor",
    "scaled",
    "unsafe_power",
]

BLOCK_BYTES = 1 << 22  # small enough to stay in a processor's cache between two uses
PARTS_BLOCK_BYTES = 1 << 25  # of the blocks in use at once, where parts are worked on side by side
DEVICE_BLOCK_BYTES = 1 << 28  # large enough on a GPU that starting its kernels does not count
SEEN_ENTRIES = 1 << 16  # of a block, to find its largest: even rows of a larger one


class Rows(Protocol):
    """A matrix A (n, c) that can be read block by block, as often as needed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c)."""

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which rows, their values (b, c) in float32, float64 or bfloat16), in order."""

    def parts(self) -> Sequence[Rows]:
        """Return rows that together are these; their blocks say which rows of the whole."""


class InMemory:
    """The rows of a tensor (n, c), perhaps memory-mapped; blocks are views.

    The tensor may be one of `parts` of a whole, which has `row_offset` rows before it.
    """

    def __init__(self, values: Tensor, row_offset: int = 0, parts: int = 1) -> None:
        self.values = values
        self.shape = (values.shape[0], values.shape[1])
        self._row_offset = row_offset
        on_cpu = values.device.type == "cpu"
        self._block_bytes = (
            min(BLOCK_BYTES, PARTS_BLOCK_BYTES // parts) if on_cpu else DEVICE_BLOCK_BYTES
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
            start = self._row_offset + first
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
        source: an iterable that starts over each time: a list of arrays or memory maps, which may
            be read side by side, or an object whose ``__iter__`` reads or computes them anew. Each
            block is (rows, c), numpy or torch, float16 and bfloat16 included; it is read in pieces
            as float32 (float64 stays). A generator runs once only and is refused.
        row_offset: how many rows lie before these, where they are a part of a whole.

    Raises:
        UsageError: not an iterable that starts over.
        FactorizationError: blocks that are not matrices, or not of one width; no rows at all.
    """

    def __init__(self, source: Iterable[Any], row_offset: int = 0) -> None:
        if not hasattr(source, "__iter__") or iter(source) is source:
            raise UsageError(
                "expected row blocks that can be read more than once, got "
                f"{type(source).__name__}, which runs once: pass a list of arrays, or an object "
                "whose __iter__ starts over"
            )
        self._source = source
        self._row_offset = row_offset
        self._shape: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c), read once from every block's shape."""
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
                place = self._row_offset + first
                yield slice(place, place + len(piece)), piece
                first += len(piece)
        if first != self.shape[0]:
            raise FactorizationError(
                f"the row blocks gave {self.shape[0]} rows at first and {first} now: they must be "
                "the same on every pass"
            )

    def parts(self) -> list[RowBlocks]:
        """Return runs of a list's blocks, one for each worker, none divided; or else the whole."""
        source, parts, first = self._source, [], self._row_offset
        if not isinstance(source, (list, tuple)):
            return [self]
        count = min(workers(self.shape[0] * self.shape[1]), len(source))
        for a, b in pairwise(len(source) * index // count for index in range(count + 1)):
            parts.append(RowBlocks(source[a:b], first))
            first += parts[-1].shape[0]
        return parts


@dataclass(frozen=True)
class MappedRows:
    """The rows of another matrix, mapped block by block as they are read.

    `mapping` is given blocks (b, c) in float32 or float64, and returns as many rows in new memory.
    """

    source: Rows
    mapping: Callable[[Tensor], Tensor]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, c)."""
        return self.source.shape

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which rows, their mapped values)."""
        for where, block in self.source.blocks():
            yield where, self.mapping(block.to(arithmetic_dtype(block)))

    def parts(self) -> list[MappedRows]:
        """Return the parts of the source, mapped."""
        return [MappedRows(part, self.mapping) for part in self.source.parts()]


def unsafe_power(rows: Rows, total: Total = alone) -> int:
    """Return the p that 2^-p A is fit to be factorized with: 0 for entries of ordinary size.

    A factorization of 2^p A is that of A times 2^p, bit for bit: all steps are homogeneous in A,
    and a product by a power of two is exact, as long as nothing over- or underflows. Squares of
    float32 do so from 1e19 and 1e-19. The p is that of the first block's largest entry, and the
    same on all ranks; of a large block some rows are seen.
    """
    first = rows.values if isinstance(rows, InMemory) else next(iter(rows.blocks()))[1]
    some = first[:: max(1, first.numel() // SEEN_ENTRIES)]
    largest = float(torch.linalg.vector_norm(some, float("inf"))) if some.numel() else 0.0
    return unsafe_exponent(largest, first.device, total)


def scaled(rows: Rows, power: int) -> Rows:
    """Return the rows of 2^-power A: a copy of those in memory, else made block by block."""
    if not power:
        return rows
    if isinstance(rows, InMemory):
        return InMemory(times_power_of_two(rows.values.to(arithmetic_dtype(rows.values)), -power))
    return MappedRows(rows, lambda block: times_power_of_two(block, -power))


class Converter:
    """Gives blocks in a type, one after the other in the same memory."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._buffer: Tensor | None = None

    def __call__(self, block: Tensor) -> Tensor:
        """Return `block` (b, c) in the type, valid until the next call."""
        if block.dtype == self.dtype:
            return block
        if self._buffer is None or len(self._buffer) < len(block):
            self._buffer = torch.empty(block.shape, dtype=self.dtype, device=block.device)
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


class Inspector:
    """Checks the entries of A while it is read, and sums ||A||².

    Call it with each block, from any thread; then ``finish`` gives the energy, or the error.
    Nothing is waited for in between, so a GPU is not held up. Messages name the `recipient` of A.
    """

    def __init__(self, recipient: str, *, signed: bool) -> None:
        self.recipient = recipient
        self.signed = signed
        self.energies: list[Tensor] = []
        self.lowest: list[Tensor] = []

    def __call__(self, block: Tensor) -> None:
        """Take in a block (b, c)."""
        if len(block) == 0:
            return
        # Along rows in float32, then in float64: one long float32 sum is off by as much as 0.1%.
        norms = torch.linalg.vector_norm(block, dim=1, dtype=arithmetic_dtype(block))
        self.energies.append(norms.double().square().sum())
        if not self.signed:
            self.lowest.append(block.amin())

    def finish(self, rows: Rows, total: Total = alone) -> float:
        """Return ||A||² over all ranks; raise on all of them if any holds a forbidden entry."""
        energies = torch.stack(self.energies) if self.energies else torch.zeros(0)
        energy = energies.sort().values.sum()  # the same in whichever order the blocks came
        finite = bool(energy.isfinite())
        wrong = not finite or (bool(self.lowest) and float(torch.stack(self.lowest).min()) < 0)
        figures = [float(energy) if finite else 0.0, float(wrong)]
        if total is not alone:
            together = torch.tensor(figures, dtype=torch.float64, device=energy.device)
            figures = total(together).tolist()
        if wrong:
            self._explain(rows)
        if figures[1] > 0:
            raise FactorizationError(
                f"another rank of the process group passed entries that {self.recipient} cannot "
                "take: see its message"
            )
        return float(figures[0])

    def _explain(self, rows: Rows) -> None:
        """Read A again and raise with how many entries are wrong, and where."""
        size = rows.shape[0] * rows.shape[1]
        broken = "remove those rows, or run the model in float32"
        checks: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
            ("NaN", lambda block: block.isnan(), broken),
            ("infinity (inf)", lambda block: block.isinf(), broken),
        ]
        if not self.signed:
            remedy = "use SemiNMF for signed activations, or factorize after a ReLU"
            checks.append(("Negative values", lambda block: block < 0, remedy))
        for name, test, remedy in checks:
            count, place = _count(rows, test)
            if count:
                raise FactorizationError(
                    f"{name} in data passed to {self.recipient}: {count} of {size} entries, first "
                    f"at row {place[0]}, column {place[1]}; {remedy}"
                )
        raise FactorizationError("the entries are so large that their squares overflow: rescale")


def _count(rows: Rows, test: Callable[[Tensor], Tensor]) -> tuple[int, tuple[int, int]]:
    """Return how many entries pass `test`, and the first of them (row, column)."""
    count, place = 0, (-1, -1)
    for where, block in rows.blocks():
        hits = test(block).nonzero()
        if len(hits) and not count:
            place = (where.start + int(hits[0, 0]), int(hits[0, 1]))
        count += len(hits)
    return count, place
