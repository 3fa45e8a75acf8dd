"""Factorizations with an offset, A ≈ b + W·H: NMF above one, and any scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from dff.errors import FactorizationError, UsageError
from dff.nmf.estimators import like
from dff.nmf.rows import Inspector, MappedRows, Rows
from dff.nmf.scikit_learn import NMF, SemiNMF

__all__ = ["EstimatorFactorizer", "OffsetNMF", "as_factorizer"]


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
            self.offset_ = like(self._lowest(rows), X)
        offset = torch.as_tensor(self.offset_)
        return MappedRows(rows, lambda block: (block - offset.to(block)).clamp_min_(0))

    def _lowest(self, rows: Rows) -> Tensor:
        """Return the least value of each column, and at most 0."""
        inspector, lowest = Inspector(f"{type(self).__name__} (input X)", signed=True), []
        for _, block in rows.blocks():
            inspector(block)
            lowest.append(block.amin(0))
        inspector.finish(rows)
        return torch.stack(lowest).amin(0).clamp_max(0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = False
        return tags


class EstimatorFactorizer(BaseEstimator):
    """A scikit-learn estimator with the contract of :class:`dff.nmf.NMF`; numpy in its inside.

    Decompositions (PCA, FastICA, TruncatedSVD, MiniBatchNMF, dictionary learning) give their codes
    by ``transform`` and their components by ``inverse_transform``, which must be affine: H is what
    a code of one adds. Clusterings (KMeans, MiniBatchKMeans) give memberships of 0 and 1, and
    their centres. Components come by explained share, largest first.

    Attributes:
        components_: H (k, c). offset_: b (c,). codes_are_nonnegative_: whether no code of the
            fitted data was below zero, as heatmaps want it.
        explained_share_, rest_share_: as :class:`dff.nmf.NMF`, of ||A - b||².
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: None = None) -> EstimatorFactorizer:
        """Fit a clone of the estimator to `X` (n, c); return self."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: None = None) -> Any:
        """Fit to `X` (n, c) and return its codes W (n, k), the kind of array that `X` is."""
        array = _array(X)
        self.estimator_ = clone(self.estimator)
        try:
            self.estimator_.fit(array)
        except ValueError as error:
            raise FactorizationError(
                f"{_name(self.estimator)} refused the data: {error}"
            ) from error
        self.n_features_in_ = array.shape[1]
        codes = self._codes(array)
        self._read_components(array, codes.shape[1])
        self.codes_are_nonnegative_ = bool((codes >= 0).all())
        self._read_shares(array, codes)
        return _like(codes[:, self._order], X)

    def transform(self, X: Any) -> Any:
        """Return the codes W (n, k) of `X` (n, c)."""
        check_is_fitted(self)
        return _like(self._codes(_array(X))[:, self._order], X)

    def inverse_transform(self, X: Any) -> Any:
        """Return b + W H (n, c) for the codes W = `X` (n, k)."""
        check_is_fitted(self)
        return _like(self.offset_ + _array(X) @ self.components_, X)

    def _codes(self, array: NDArray[Any]) -> NDArray[Any]:
        if not _clusters(self.estimator_):
            return np.asarray(self.estimator_.transform(array), dtype=array.dtype)
        labels = self.estimator_.predict(array)
        count = len(self.estimator_.cluster_centers_)
        return np.eye(count, dtype=array.dtype)[labels]

    def _read_components(self, array: NDArray[Any], k: int) -> None:
        if _clusters(self.estimator_):
            self.components_ = np.asarray(self.estimator_.cluster_centers_, dtype=array.dtype)
            self.offset_ = np.zeros(array.shape[1], dtype=array.dtype)
            return
        probe = np.concatenate([np.zeros((1, k)), np.eye(k), 2 * np.eye(k)]).astype(array.dtype)
        rebuilt = np.asarray(self.estimator_.inverse_transform(probe))
        offset, once, twice = rebuilt[0], rebuilt[1 : k + 1], rebuilt[k + 1 :]
        if not np.allclose(twice - offset, 2 * (once - offset), rtol=1e-3, atol=1e-5):
            raise UsageError(
                f"expected a factorizer whose inverse_transform is affine, {_name(self.estimator)} "
                "bends: its concepts have no embedding; use NMF, PCA, FastICA or KMeans"
            )
        self.components_, self.offset_ = once - offset, offset

    def _read_shares(self, array: NDArray[Any], codes: NDArray[Any]) -> None:
        above = (array - self.offset_).astype(np.float64)
        energy = float((above**2).sum()) or 1.0
        h, w = self.components_.astype(np.float64), codes.astype(np.float64)
        overlap = ((w.T @ w) * (h @ h.T)).sum(1)
        shares = (2 * ((w.T @ above) * h).sum(1) - overlap) / energy
        self._order = np.argsort(-shares, kind="stable")
        self.explained_share_ = shares[self._order]
        self.components_ = self.components_[self._order]
        self.rest_share_ = float(1 - self.explained_share_.sum())
        self.reconstruction_err_ = max(0.0, self.rest_share_ * energy) ** 0.5


def as_factorizer(estimator: Any, n_components: int | None = None) -> Any:
    """Return an unfitted factorizer with the contract of :class:`dff.nmf.NMF` for `estimator`.

    Our own estimators come back as they are, scikit-learn's in an :class:`EstimatorFactorizer`;
    with `n_components`, a copy that finds so many.

    Raises:
        UsageError: a class instead of an instance, or an estimator that cannot give both codes for
            new rows and components (t-SNE and DBSCAN cannot).
    """
    if isinstance(estimator, type):
        raise UsageError(
            f"expected an estimator, got the class {estimator.__name__}: pass "
            f"{estimator.__name__}(...)"
        )
    if not isinstance(estimator, (NMF, SemiNMF, EstimatorFactorizer)):
        decomposes = hasattr(estimator, "transform") and hasattr(estimator, "inverse_transform")
        clusters = hasattr(estimator, "predict") and hasattr(estimator, "n_clusters")
        if not hasattr(estimator, "fit") or not (decomposes or clusters):
            raise UsageError(
                "expected a factorizer with fit, transform and inverse_transform, or a clustering "
                f"with predict and centres; {_name(estimator)} has not: use NMF, SemiNMF, PCA, "
                "FastICA, MiniBatchNMF or KMeans"
            )
        estimator = EstimatorFactorizer(estimator)
    return estimator if n_components is None else _resized(estimator, n_components)


def _resized(factorizer: Any, n_components: int) -> Any:
    """Return an unfitted copy that finds so many components, or clusters."""
    copy = clone(factorizer)
    parameters = copy.get_params()
    for name in ("n_components", "n_clusters", "estimator__n_components", "estimator__n_clusters"):
        if name in parameters:
            return copy.set_params(**{name: n_components})
    raise UsageError(
        f"{_name(factorizer.estimator)} has neither n_components nor n_clusters to say how many "
        "concepts it finds"
    )


def _clusters(estimator: Any) -> bool:
    return hasattr(estimator, "cluster_centers_")


def _name(estimator: Any) -> str:
    return type(estimator).__name__


def _array(data: Any) -> NDArray[Any]:
    array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
    if array.ndim != 2:
        raise FactorizationError(f"expected a matrix (rows, columns), got shape {array.shape}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _like(result: NDArray[Any], data: Any) -> Any:
    if not isinstance(data, Tensor):
        return result
    return data.new_tensor(result) if data.is_floating_point() else data.float().new_tensor(result)
