"""Matrix factorization: A (n x c) ≈ W (n x k) · H (k x c). Knows no image and no model.

Read ``updates`` first: the update formula and its derivation. Then, each using those before it:

- ``updates``: HALS and least squares, one iteration as functions of small matrices.
- ``descent``: extrapolation and stopping, from the losses of passes.
- ``fitting``: the loop: passes over A, and the ordered result.
- ``initialization``: NNDSVDa, k-means or random components, fitted on samples; ``clusters`` has
  the k-means, ``together`` the fit of several starts at once.
- ``estimators``: :class:`NMF`, :class:`SemiNMF`: options, checks and attributes.
- ``scikit_learn``: the same as scikit-learn's estimators.
- ``affine``: A ≈ b + W·H: :class:`OffsetNMF`, and any scikit-learn decomposition or clustering.

Below them:

- ``rows``: A read block by block, from memory or :class:`RowBlocks`, and its entries checked.
- ``checks``: what a factorization may be given.
- ``backend``: what arithmetic runs on: types, powers of two, oneDNN, LAPACK, threads, processes.

What needs scikit-learn, which is heavy, is imported when it is first used. The rest of the
program factorizes by ``estimators``, which does not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dff.nmf.initialization import starts
from dff.nmf.rows import RowBlocks

if TYPE_CHECKING:
    from dff.nmf.affine import EstimatorFactorizer, OffsetNMF, as_factorizer
    from dff.nmf.scikit_learn import NMF, SemiNMF

__all__ = [
    "NMF",
    "EstimatorFactorizer",
    "OffsetNMF",
    "RowBlocks",
    "SemiNMF",
    "as_factorizer",
    "starts",
]

_HOMES = {
    "EstimatorFactorizer": "dff.nmf.affine",
    "NMF": "dff.nmf.scikit_learn",
    "OffsetNMF": "dff.nmf.affine",
    "SemiNMF": "dff.nmf.scikit_learn",
    "as_factorizer": "dff.nmf.affine",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dff.nmf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
