"""Matrix factorization: A (n x c) ~= W (n x k) H (k x c). Knows no image and no model."""

from __future__ import annotations

from dff.nmf.estimator import NMF, SemiNMF

__all__ = ["NMF", "SemiNMF"]
