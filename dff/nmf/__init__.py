"""Matrix factorization: A (n x c) ~= W (n x k) H (k x c). Knows no image and no model."""

from __future__ import annotations

from dff.nmf.estimator import NMF, SemiNMF
from dff.nmf.rows import RowBlocks

__all__ = ["NMF", "RowBlocks", "SemiNMF"]
