"""NMF and semi-NMF: options, checks of the caller's data, attributes.

scikit-learn is not needed here; ``scikit_learn`` makes these classes its estimators.

Nothing here writes to the caller's memory or copies a floating-point matrix.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.errors import FactorizationError, UsageError
from dff.nmf.backend import (
    PRECISIONS,
    RankShare,
    Total,
    alone,
    arithmetic_dtype,
    choose_precision,
    over_group,
    rank_share,
    suited_threads,
    times_power_of_two,
)
from dff.nmf.checks import check_components, tensor_rows
from dff.nmf.fitting import Factors, Progress, Settings, encode_rows, minimise, ordered_factors
from dff.nmf.initialization import (
    INITIALIZATIONS,
    LAST_TOL,
    Initializer,
    given_components,
)
from dff.nmf.rows import InMemory, Inspector, RowBlocks, Rows, as_tensor, scaled, unsafe_power
from dff.nmf.updates import FREE, NONNEGATIVE, Constraint

__all__ = ["NMF", "Base", "SemiNMF", "like"]

FLOATS = [np.float32, np.float64, np.float16]
SEVERAL_STARTS = 8  # under n_init="auto", where A has
SEVERAL_STARTS_ENTRIES = 1 << 19  # entries at most


class Base:
    """What NMF and SemiNMF share: start, fit, order."""

    _constraint: Constraint
    _start: str  # under init="auto"
    progress: Progress | None = None

    def __init__(
        self,
        n_components: int = 5,
        *,
        max_iter: int = 200,
        tol: float = 1e-4,
        init: Any = "auto",
        n_init: int | str = "auto",
        random_state: int | np.random.RandomState | None = 0,
        precision: str = "auto",
        distributed: bool = False,
        ridge: float = 0.0,
    ) -> None:
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.precision = precision
        self.distributed = distributed
        self.ridge = ridge

    def fit(self, X: Any, y: None = None) -> Any:
        """Learn the components of `X` (n, c); return self."""
        self.fit_transform(X)
        return self

    def fit_transform(self, X: Any, y: None = None) -> Any:
        """Learn the components of `X` (n, c) and return its codes W (n, k), non-negative.

        Under ``distributed=True`` `X` and the codes are this rank's own rows.
        """
        self._check_options()
        total = over_group() if self.distributed else alone
        rows = self._rows(X, fitted=False)
        share = rank_share(rows.shape[0], total)
        check_components(self.n_components, share.total_rows, rows.shape[1])
        with torch.inference_mode(), suited_threads(rows.shape[0] * rows.shape[1]):
            power = unsafe_power(rows, total)
            factors = self._factorize(scaled(rows, power), share, total)
            codes = times_power_of_two(factors.codes, power)
        self._keep(factors, power)
        self.components_ = like(factors.components, X)
        return like(codes, X)

    def transform(self, X: Any) -> Any:
        """Return the codes W (n, k) >= 0 that best rebuild `X` (n, c) from components_.

        One pass over `X`; the rest is k x k work.
        """
        _check_fitted(self)
        rows = self._rows(X, fitted=True)
        with torch.inference_mode(), suited_threads(rows.shape[0] * rows.shape[1]):
            inspector = self._inspector()
            components = torch.as_tensor(self.components_).to(*_device_and_dtype(rows))
            power = unsafe_power(rows)
            rows = scaled(rows, power)
            codes = encode_rows(rows, components, inspector=inspector).codes
            inspector.finish(rows)
        return like(times_power_of_two(codes.T.contiguous(), power), X)

    def inverse_transform(self, X: Any) -> Any:
        """Return W H (n, c) for the codes W = `X` (n, k)."""
        _check_fitted(self)
        codes = X if isinstance(X, Tensor) else np.asarray(X)
        k = len(self.components_)
        if codes.ndim != 2 or codes.shape[1] != k:
            raise FactorizationError(
                f"expected codes of shape (n, {k}), got {tuple(codes.shape)}: pass what transform "
                "returned"
            )
        if isinstance(codes, Tensor):
            return codes @ torch.as_tensor(self.components_).to(codes)
        return codes @ torch.as_tensor(self.components_).cpu().numpy()

    def _rows(self, X: Any, *, fitted: bool) -> Rows:
        """Return the rows of `X`, sharing its memory, and set or check ``n_features_in_``.

        Raises:
            FactorizationError: not a matrix, empty, or another number of columns than in the fit.
            TypeError: a sparse matrix.
        """
        least = 0 if self.distributed and not fitted else 1
        if isinstance(X, (RowBlocks, Tensor)):
            rows = X if isinstance(X, RowBlocks) else tensor_rows(X, least)
            self._check_width(rows.shape[1], fitted=fitted)
            return rows
        from sklearn.utils.validation import validate_data  # heavy, and not needed for tensors

        try:
            array = validate_data(
                self, X, dtype=FLOATS, ensure_all_finite=False, ensure_min_samples=least,
                reset=not fitted,
            )  # fmt: skip
        except ValueError as error:
            raise FactorizationError(str(error)) from error
        return InMemory(as_tensor(array))

    def _check_width(self, columns: int, *, fitted: bool) -> None:
        if not fitted:
            self.n_features_in_ = columns
        elif columns != self.n_features_in_:
            raise FactorizationError(
                f"X has {columns} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input: pass the layer it was fitted on"
            )

    def _check_options(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"expected precision in {PRECISIONS}, got {self.precision!r}")
        if isinstance(self.init, str) and self.init not in ("auto", *INITIALIZATIONS):
            raise UsageError(f"expected init in {('auto', *INITIALIZATIONS)}, got {self.init!r}")
        count = 1 if self.n_init == "auto" else self.n_init
        named = isinstance(self.init, str)
        if not isinstance(count, (int, np.integer)) or count < 1 or (count > 1 and not named):
            raise UsageError(
                'expected n_init="auto" or an integer of 1 or more, and only 1 with components '
                f"given as init, got {self.n_init!r}"
            )
        if self.max_iter < 1 or min(self.tol, self.ridge) < 0:
            raise UsageError(
                "expected max_iter >= 1, tol >= 0 and ridge >= 0, got "
                f"{self.max_iter}, {self.tol} and {self.ridge}"
            )

    def _seed(self) -> int:
        """Return an integer seed, drawn from random_state where that is a generator."""
        if self.random_state is None:
            return int(np.random.SeedSequence().generate_state(1)[0])
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(self.random_state.randint(2**31 - 1))

    def _inspector(self) -> Inspector:
        signed = self._constraint.floor < 0
        return Inspector(f"{type(self).__name__} (input X)", signed=signed)

    def _factorize(self, rows: Rows, share: RankShare, total: Total) -> Factors:
        """Return W and H of `rows`; set what the fit learnt on the way."""
        device, dtype = _device_and_dtype(rows)
        entries = share.total_rows * rows.shape[1]
        precision = choose_precision(self.precision, dtype, device, entries)
        self.precision_ = str(precision).removeprefix("torch.")
        settings = Settings(
            self._constraint, precision, self.max_iter, self.tol, total, float(self.ridge)
        )
        if isinstance(self.init, str):
            several = SEVERAL_STARTS if entries <= SEVERAL_STARTS_ENTRIES else 1
            n_init = several if self.n_init == "auto" else int(self.n_init)
            name = self._start if self.init == "auto" else self.init
            initializer = Initializer(
                name, self.n_components, n_init, self._seed(), self._inspector, settings, share
            )
            components, fitted = initializer(rows)
        else:
            shape = int(self.n_components), rows.shape[1]
            components = given_components(self.init, shape, self._constraint).to(device, dtype)
            fitted = False
        tol = self.tol * LAST_TOL if fitted else self.tol
        told = replace(settings, progress=self.progress, tol=tol)
        fit = minimise(rows, components, told, inspector=self._inspector(), fitted=fitted)
        self._warn_unless(fit.settled)
        self.n_iter_, self.loss_curve_ = len(fit.losses), np.array(fit.losses)
        return ordered_factors(rows, fit, settings)

    def _warn_unless(self, settled: bool) -> None:
        if not settled:
            from sklearn.exceptions import ConvergenceWarning  # heavy, and seldom needed

            warnings.warn(
                f"{type(self).__name__} stopped at max_iter={self.max_iter} before the loss "
                "settled to tol; raise max_iter, or tol if the result is good enough",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _keep(self, factors: Factors, power: int) -> None:
        """Set the figures of A, from those of 2^-power A."""
        self.explained_share_ = factors.explained_share.cpu().numpy()
        self.rest_share_ = factors.rest_share
        self.reconstruction_err_ = math.ldexp(factors.error, power)
        self.loss_curve_ = np.ldexp(self.loss_curve_, 2 * power)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


def _check_fitted(estimator: Base) -> None:
    """Refuse, as scikit-learn does, what has not been fitted yet."""
    if not hasattr(estimator, "components_"):
        from sklearn.exceptions import NotFittedError  # heavy

        raise NotFittedError(f"this {type(estimator).__name__} is not fitted yet: call fit first")


class NMF(Base):
    """Non-negative matrix factorization A ~= W H by HALS, for A (n x c), W (n x k), H (k x c) >= 0.

    numpy or torch in, the same kind out, on the data's device, in float32 or float64 (float16 and
    integers are computed in float32); :class:`RowBlocks` and memory maps are read block by block.
    The input is never changed. Deterministic for an integer `random_state`, and exact in powers of
    two: 2^p A gives the same components and 2^p times the codes. Memory holds, beyond
    the input, at most three times W and H, 4096 rows (128 for each component, where that is more)
    and 32 MiB of blocks.

    Args:
        n_components: k, from 1 to min(n, c).
        max_iter: most passes over the data.
        tol: settled when a pass lowers the loss by less than this share of it; where rows are so
            few that all of them are fitted from several starts, by a fiftieth of that, as the
            loss of so few falls slowly.
        init: "nndsvda" (Boutsidis & Gallopoulos 2008, zeros filled with the mean), "k-means",
            "random", or components (k, c) to start from. "auto": NNDSVDa, and k-means for
            :class:`SemiNMF`.
        n_init: how many starts are fitted, of which the best is taken; of many, the first and the
            three that lead after ten passes are fitted to the end, and another than the first has
            to explain 0.01 % more of ||A||² than that one. "auto": 8 where X has at most 2^19
            entries, as few rows have many local minima, else 1. Of many rows a sample decides.
        random_state: seed of the fit's own generator; None for fresh entropy.
        precision: of the products with A: "float32"; "bfloat16", sums in float32; or "auto",
            bfloat16 for large float32 data on processors that have it in hardware.
        distributed: every rank of the default torch.distributed group fits its own rows, in step
            with the others; a rank may have none (an array of shape (0, c)).
        ridge: of the loss ||A - WH||² + ridge · Σₖ ||WₖHₖ||² that is minimised, 0 or more: what
            cancels out costs, so that components of both signs come closer to the data.

    Attributes:
        progress: None, or what you set: it is called after each pass over all rows with (passes
            made, how many are expected in all): as the gains fall, at most `max_iter`. The second
            is 0 as long as nothing can be said, and changes; in the last call both are `n_iter_`.
        components_: H (k, c), rows of unit length, by explained share, largest first. A component
            that the data does not use is zero.
        explained_share_: numpy (k,), the share of ||A||² that each component explains:
            (2<A, WₖHₖ> - <WₖHₖ, WH>) / ||A||². With `rest_share_` they sum to 1.
        rest_share_: ||A - WH||² / ||A||²; 0 for all-zero data.
        reconstruction_err_: ||A - WH|| (Frobenius).
        loss_curve_: numpy (n_iter_,), the best loss after each pass.
        n_iter_: passes over all rows; one more encodes them. n_features_in_: c.
        precision_: "float64", "float32" or "bfloat16", as used for the products with A.

    Raises:
        FactorizationError: negative, NaN or infinite entries, or more components than min(n, c).
        UsageError: an option that cannot be right.
    """

    _constraint = NONNEGATIVE
    _start = "nndsvda"


class SemiNMF(Base):
    """Semi-NMF (Ding, Li & Jordan 2010) for signed activations: A ~= W H with W >= 0 and H free.

    The contract, options and attributes are those of :class:`NMF`. It starts from k-means, whose
    loss it never exceeds where all rows are clustered.
    """

    _constraint = FREE
    _start = "k-means"


def _device_and_dtype(rows: Rows) -> tuple[torch.device, torch.dtype]:
    """Return the device of `rows` and the type to compute in."""
    _, first = next(iter(rows.blocks()))
    return first.device, arithmetic_dtype(first)


def like(result: Tensor, data: Any) -> Any:
    """Return `result` as what `data` is: a tensor for a tensor, else a numpy array."""
    return result if isinstance(data, Tensor) else result.cpu().numpy()
