"""NMF of signed data above a per-channel offset, which stays a term of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError
from dff.nmf import inputs
from dff.nmf.estimator import NMF
from dff.nmf.rows import Rows

__all__ = ["OffsetNMF"]


@dataclass(frozen=True)
class _Above:
    """The rows of A - b, made block by block, for an offset b (c,); below it, 0."""

    rows: Rows
    offset: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for where, block in self.rows.blocks():
            values = block if block.dtype == torch.float64 else block.float()
            yield where, (values - self.offset.to(values)).clamp_min_(0)

    def parts(self) -> list[_Above]:
        return [_Above(part, self.offset) for part in self.rows.parts()]


class OffsetNMF(NMF):
    """A ~= b + W H with W, H >= 0: NMF of what lies above b, the least value of each channel.

    For signed activations, to compare with :class:`SemiNMF`. The offset is never added to the
    concepts; ``inverse_transform`` adds it to their sum. Shares are of ||A - b||². New rows below
    the offset are taken at it.

    Attributes:
        offset_: b (c,), the least value of each column and at most 0, as numpy or torch.
        The others are those of :class:`NMF`.
    """

    def inverse_transform(self, X: Any) -> Any:
        """Return b + W H (n, c) for the codes W = `X` (n, k)."""
        product = super().inverse_transform(X)
        if isinstance(product, Tensor):
            return product + torch.as_tensor(self.offset_).to(product)
        return product + np.asarray(torch.as_tensor(self.offset_).cpu())

    def _rows(self, X: Any, *, fitted: bool) -> Rows:
        if self.distributed:
            raise UsageError("OffsetNMF fits in one process: use SemiNMF with distributed=True")
        rows = super()._rows(X, fitted=fitted)
        if not fitted:
            self.offset_ = inputs.like(self._lowest(rows), X)
        return _Above(rows, torch.as_tensor(self.offset_))

    def _lowest(self, rows: Rows) -> Tensor:
        """Return the least value of each column, and at most 0."""
        inspector, lowest = inputs.Inspector(f"{type(self).__name__} (input X)", signed=True), []
        for _, block in rows.blocks():
            inspector(block)
            lowest.append(block.amin(0))
        inspector.finish(rows)
        return torch.stack(lowest).amin(0).clamp_max(0)
