"""Matrix factorization: A (n x c) ~= W (n x k) H (k x c). Knows no image and no model.

- :class:`NMF`, :class:`SemiNMF`, :class:`OffsetNMF`: the factorizers, as scikit-learn estimators.
- :class:`RowBlocks`: a matrix too large for memory, read block by block.
- :func:`as_factorizer`: any scikit-learn decomposition or clustering in their place.
- :func:`starts`: the starts for several k from one singular value decomposition.

What needs scikit-learn is imported when it is first used. The rest of the program factorizes by
:mod:`dff.nmf.estimator`, which does not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dff.nmf.init import starts
from dff.nmf.rows import RowBlocks

if TYPE_CHECKING:
    from dff.nmf.adapters import EstimatorFactorizer, as_factorizer
    from dff.nmf.scikit_learn import NMF, OffsetNMF, SemiNMF

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
    "EstimatorFactorizer": "dff.nmf.adapters",
    "NMF": "dff.nmf.scikit_learn",
    "OffsetNMF": "dff.nmf.scikit_learn",
    "SemiNMF": "dff.nmf.scikit_learn",
    "as_factorizer": "dff.nmf.adapters",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dff.nmf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
