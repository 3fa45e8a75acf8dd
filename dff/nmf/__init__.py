"""Matrix factorization: A (n x c) ≈ W (n x k) · H (k x c). Knows no image and no model.

Read ``updates`` first: the update formula and its derivation. Then, each using those before it:

- ``updates``: HALS and least squares, one iteration as functions of small matrices.
- ``fitting``: the loop: passes over A, extrapolation, stopping, the ordered result.
- ``initialization``: NNDSVDa or random components, fitted on samples, and the race of several.
- ``estimators``: :class:`NMF`, :class:`SemiNMF`: options, checks and attributes, as scikit-learn's.
- ``affine``: A ≈ b + W·H: :class:`OffsetNMF`, and any scikit-learn decomposition or clustering.

Below them:

- ``rows``: A read block by block, from memory or :class:`RowBlocks`, and its entries checked.
- ``backend``: what arithmetic runs on: types, powers of two, oneDNN, LAPACK, threads, processes.
"""

from __future__ import annotations

from dff.nmf.affine import EstimatorFactorizer, OffsetNMF, as_factorizer
from dff.nmf.estimators import NMF, SemiNMF
from dff.nmf.initialization import starts
from dff.nmf.rows import RowBlocks

__all__ = [
    "NMF",
    "EstimatorFactorizer",
    "OffsetNMF",
    "RowBlocks",
    "SemiNMF",
    "as_factorizer",
    "starts",
]
