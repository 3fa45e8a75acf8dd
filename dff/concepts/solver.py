"""The choice by sign: NMF where A is non-negative, semi-NMF where it has both signs.

Notation: A (pixels x channels) ~= W (pixels x concepts) · H (concepts x channels).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dff.nmf.estimators import NMF, SemiNMF

__all__ = ["encode", "solver"]


def solver(signed: bool) -> type[NMF] | type[SemiNMF]:
    """Return the factorization for activations of one sign, or of both."""
    return SemiNMF if signed else NMF


def encode(rows: Tensor, components: Tensor, *, signed: bool) -> Tensor:
    """Return W (pixels, k) >= 0 of A (pixels, channels) in given concepts: least squares.

    Args:
        rows: A; where the concepts have one sign, negative values are taken as 0.
        components: H (k, channels).
        signed: the concepts have both signs.
    """
    fitted: Any = solver(signed)(len(components))
    fitted.components_ = components.to(rows)
    fitted.n_features_in_ = rows.shape[1]
    return fitted.transform(rows if signed else rows.clamp_min(0))
