"""Matrix factorization: A (n x c) ~= W (n x k) H (k x c). Knows no image and no model.

- :class:`NMF`, :class:`SemiNMF`, :class:`OffsetNMF`: the factorizers, as scikit-learn estimators.
- :class:`RowBlocks`: a matrix too large for memory, read block by block.
- :func:`as_factorizer`: any scikit-learn decomposition or clustering in their place.
- :func:`starts`: the starts for several k from one singular value decomposition.
"""

from __future__ import annotations

from dff.nmf.adapters import EstimatorFactorizer, as_factorizer
from dff.nmf.estimator import NMF, SemiNMF
from dff.nmf.init import starts
from dff.nmf.offset import OffsetNMF
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
