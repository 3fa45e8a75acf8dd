"""Non-negative matrix factorization as a scikit-learn estimator, on torch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from dff.errors import FactorizationError, UsageError
from dff.nmf import init, inputs
from dff.nmf.steps import Statistics, encode, least_squares, sweep

__all__ = ["NMF", "SemiNMF"]

PRECISIONS = ("auto", "float32", "bfloat16")


class _Factorizer(TransformerMixin, BaseEstimator):
    """What NMF and SemiNMF share: the loop, the order of the components, the contract."""

    def __init__(
        self,
        n_components: int = 5,
        *,
        max_iter: int = 200,
        tol: float = 1e-4,
        init: str = "nndsvda",
        random_state: int | np.random.RandomState | None = 0,
        precision: str = "auto",
    ) -> None:
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.random_state = random_state
        self.precision = precision

    def fit(self, X: Any, y: None = None) -> Any:
        """Learn the components of `X` (n, c); return self."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: None = None) -> Any:
        """Learn the components of `X` (n, c) and return its codes W (n, k), non-negative."""
        self._check_options()
        a = inputs.as_matrix(self, X, fitted=False)
        inputs.check_components(self.n_components, *a.shape)
        with torch.inference_mode():
            norm = inputs.energy(a)
            inputs.check_finite(a, norm)
            self._check_sign(a)
            codes, components = self._factorize(a, norm)
        self.components_ = inputs.like(components, X)
        return inputs.like(codes.T.contiguous(), X)

    def transform(self, X: Any) -> Any:
        """Return the codes W (n, k) >= 0 that best rebuild `X` (n, c) from components_."""
        check_is_fitted(self)
        a = inputs.as_matrix(self, X, fitted=True)
        with torch.inference_mode():
            inputs.check_finite(a, inputs.energy(a))
            self._check_sign(a)
            components = torch.as_tensor(self.components_).to(a)
            cross = components @ a.T
            codes = encode(components @ components.T, cross)
        return inputs.like(codes.T.contiguous(), X)

    def inverse_transform(self, X: Any) -> Any:
        """Return W H (n, c) for the codes W = `X` (n, k)."""
        check_is_fitted(self)
        codes = X if isinstance(X, Tensor) else np.asarray(X)
        k = len(self.components_)
        if codes.ndim != 2 or codes.shape[1] != k:
            raise FactorizationError(
                f"expected codes of shape (n, {k}), got {tuple(codes.shape)}: pass what transform "
                "returned"
            )
        if isinstance(codes, Tensor):
            return codes @ torch.as_tensor(self.components_).to(codes)
        return codes @ np.asarray(torch.as_tensor(self.components_).cpu())

    def _check_options(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"expected precision in {PRECISIONS}, got {self.precision!r}")
        if self.init not in ("nndsvda", "random"):
            raise UsageError(f"expected init 'nndsvda' or 'random', got {self.init!r}")
        if self.max_iter < 1 or self.tol < 0:
            raise UsageError(
                f"expected max_iter >= 1 and tol >= 0, got {self.max_iter} and {self.tol}"
            )

    def _seed(self) -> int:
        """Return an integer seed, drawn from random_state where that is a generator."""
        if self.random_state is None:
            return int(np.random.SeedSequence().generate_state(1)[0])
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(self.random_state.randint(2**31 - 1))

    def _start(self, a: Tensor) -> Tensor:
        make = init.nndsvda if self.init == "nndsvda" else init.random_nonnegative
        return make(a, self.n_components, seed=self._seed())

    def _factorize(self, a: Tensor, norm: float) -> tuple[Tensor, Tensor]:
        """Return the codes (k, n) and components (k, c) of `a`; set what the fit learnt."""
        self.precision_ = "float64" if a.dtype == torch.float64 else "float32"
        if norm == 0:
            components = a.new_zeros(self.n_components, a.shape[1])
            codes = a.new_zeros(self.n_components, len(a))
            return self._finish(codes, components, Statistics(components, codes @ codes.T), norm, 0)
        components = self._start(a)
        codes = a.new_zeros(self.n_components, len(a))
        loss, steps = norm, 0
        for steps in range(1, self.max_iter + 1):
            sweep(codes, components @ components.T, components @ a.T, times=2 if steps > 1 else 8)
            statistics = Statistics(codes @ a, codes @ codes.T)
            components = self._update(components, statistics)
            previous, loss = loss, statistics.loss(components, norm)
            if previous - loss <= self.tol * norm / 10:
                break
        else:
            warnings.warn(
                f"{type(self).__name__} stopped at max_iter={self.max_iter} before the loss "
                "settled to tol; raise max_iter, or tol if the result is good enough",
                ConvergenceWarning,
                stacklevel=3,
            )
        codes = encode(components @ components.T, components @ a.T)
        return self._finish(codes, components, Statistics(codes @ a, codes @ codes.T), norm, steps)

    def _finish(
        self, codes: Tensor, components: Tensor, statistics: Statistics, norm: float, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Order by share, scale components to unit length, and keep the figures of the fit."""
        explained = statistics.explained(components)
        order = explained.argsort(descending=True, stable=True)
        lengths = torch.linalg.vector_norm(components, dim=1)
        lengths = torch.where(lengths > 0, lengths, 1.0)[order].unsqueeze(1)
        share = explained[order] / (norm or 1.0)
        self.explained_share_ = share.cpu().numpy()
        self.rest_share_ = float(1 - share.sum()) if norm else 0.0
        self.reconstruction_err_ = max(0.0, norm - float(explained.sum())) ** 0.5
        self.n_iter_ = max(1, steps)
        return codes[order] * lengths, components[order] / lengths

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


class NMF(_Factorizer):
    """Non-negative matrix factorization A ~= W H by HALS, for A (n x c), W (n x k), H (k x c) >= 0.

    numpy or torch in, the same kind out, on the data's device, in float32 or float64; the input is
    never changed. Deterministic for an integer `random_state`.

    Args:
        n_components: k, from 1 to min(n, c).
        max_iter: most passes over the data.
        tol: stop when an iteration lowers the loss by less than `tol` / 10 of ||A||².
        init: "nndsvda" (Boutsidis & Gallopoulos 2008, zeros filled with the mean) or "random".
        random_state: seed of the fit's own generator; None for fresh entropy.
        precision: "float32", "bfloat16" (A kept in bfloat16, sums in float32), or "auto".

    Attributes:
        components_: H (k, c), rows of unit length (or zero), by explained share, largest first.
        explained_share_: numpy (k,), the share of ||A||² that each component explains:
            (2<A, WₖHₖ> - <WₖHₖ, WH>) / ||A||². With `rest_share_` they sum to 1 exactly.
        rest_share_: ||A - WH||² / ||A||², 0 for all-zero data.
        reconstruction_err_: ||A - WH|| (Frobenius).
        n_iter_: passes made. n_features_in_: c. precision_: what the data was kept in.

    Raises:
        FactorizationError: negative, NaN or infinite entries, or more components than min(n, c).
        UsageError: an option that cannot be right.
    """

    def _check_sign(self, a: Tensor) -> None:
        inputs.check_nonnegative(a, f"{type(self).__name__} (input X)")

    def _update(self, components: Tensor, statistics: Statistics) -> Tensor:
        return sweep(components, statistics.gram, statistics.cross, times=4)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class SemiNMF(_Factorizer):
    """Semi-NMF (Ding, Li & Jordan 2010) for signed activations: A ~= W H with W >= 0 and H free.

    The contract, options and attributes are those of :class:`NMF`.
    """

    def _check_sign(self, a: Tensor) -> None:
        """Signed data is what this is for."""

    def _update(self, components: Tensor, statistics: Statistics) -> Tensor:
        return least_squares(statistics.gram, statistics.cross)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
