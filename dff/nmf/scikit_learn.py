"""The factorizers as scikit-learn's estimators: parameters, clones, pipelines, ``set_output``."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from dff.nmf import estimators

__all__ = ["NMF", "SemiNMF"]


class _Estimator(estimators.Base, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """scikit-learn's contract on top of a factorizer."""

    # Defined again: scikit-learn wraps, for set_output, what a class of its own kind defines.
    def fit_transform(self, X: Any, y: None = None) -> Any:
        """Learn the components of `X` (n, c) and return its codes W (n, k), non-negative."""
        return super().fit_transform(X)

    def transform(self, X: Any) -> Any:
        """Return the codes W (n, k) >= 0 that best rebuild `X` (n, c) from components_."""
        return super().transform(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self._constraint.floor == 0
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class NMF(estimators.NMF, _Estimator):
    __doc__ = estimators.NMF.__doc__


class SemiNMF(estimators.SemiNMF, _Estimator):
    __doc__ = estimators.SemiNMF.__doc__
