"""Powers of two: a factorization of 2^p A is that of A times 2^p, bit for bit.

All steps are homogeneous in A (the start too, see ``init``), and a product by a power of two is
exact, so that holds by itself as long as nothing over- or underflows. Squares of float32 do so
from 1e19 and 1e-19: where entries lie outside a safe band, A is scaled first, at the price of a
copy (block by block where it is not in memory).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dff.nmf.distributed import Total, alone
from dff.nmf.rows import InMemory, Rows

__all__ = ["raised", "scaled", "spread"]

SAFE = 8  # the largest entry is taken as it is from 2^-8 to 2^8
SEEN = 1 << 16  # entries that are looked at, at most: even rows of a larger matrix
EXPONENTS = 2200  # all of float64


def raised(values: Tensor, power: int) -> Tensor:
    """Return values · 2^power; in two steps, as neither 2^149 nor its inverse are in float32."""
    half = power // 2
    return values * 2.0**half * 2.0 ** (power - half) if power else values


def spread(rows: Rows, total: Total = alone) -> int:
    """Return the p that 2^-p A is fit to be factorized with: 0 for entries of ordinary size.

    That of the first block's largest entry, and the same on all ranks. Of a large block some rows
    are seen.
    """
    first = rows.values if isinstance(rows, InMemory) else next(iter(rows.blocks()))[1]
    some = first[:: max(1, first.numel() // SEEN)]
    largest = float(torch.linalg.vector_norm(some, float("inf"))) if some.numel() else 0.0
    found = math.frexp(largest)[1] if 0 < largest < math.inf else None
    if total is not alone:  # there are sums only: of who has which exponent
        present = torch.zeros(EXPONENTS, device=first.device)
        present[0 if found is None else found + EXPONENTS // 2] = 1
        held = total(present)[1:].nonzero()
        found = int(held.max()) + 1 - EXPONENTS // 2 if len(held) else None
    return 0 if found is None or abs(found) <= SAFE else found


@dataclass(frozen=True)
class _Scaled:
    """The rows of 2^-power A, made block by block."""

    rows: Rows
    power: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for where, block in self.rows.blocks():
            yield where, raised(_exact(block), -self.power)

    def parts(self) -> list[_Scaled]:
        return [_Scaled(part, self.power) for part in self.rows.parts()]


def scaled(rows: Rows, power: int) -> Rows:
    """Return the rows of 2^-power A."""
    if not power:
        return rows
    if isinstance(rows, InMemory):
        return InMemory(raised(_exact(rows.values), -power))
    return _Scaled(rows, power)


def _exact(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
