"""Non-negative and semi-non-negative matrix factorization on torch.

scikit-learn is not needed here; :mod:`dff.nmf.scikit_learn` makes these classes its estimators.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.errors import FactorizationError, UsageError
from dff.nmf import inputs
from dff.nmf.distributed import Total, alone, over_group, place
from dff.nmf.fitting import Fit, Settings, encode_rows, minimise
from dff.nmf.products import PRECISIONS, choose_precision
from dff.nmf.rows import Rows
from dff.nmf.scale import raised, scaled, spread
from dff.nmf.start import STARTS, Start
from dff.nmf.steps import FREE, NONNEGATIVE, Constraint, explained
from dff.nmf.threads import SMALL, suited_threads

__all__ = ["NMF", "Base", "SemiNMF"]

SEVERAL = 4  # starts where rows are few


class Base:
    """What NMF and SemiNMF share: start, fit, order."""

    _constraint: Constraint

    def __init__(
        self,
        n_components: int = 5,
        *,
        max_iter: int = 200,
        tol: float = 1e-4,
        init: Any = "nndsvda",
        n_init: int | str = "auto",
        random_state: int | np.random.RandomState | None = 0,
        precision: str = "auto",
        distributed: bool = False,
    ) -> None:
        self.n_components = n_components
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.precision = precision
        self.distributed = distributed

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
        before, everywhere = place(rows.shape[0], total)
        inputs.check_components(self.n_components, everywhere, rows.shape[1])
        with torch.inference_mode(), suited_threads(rows.shape[0] * rows.shape[1]):
            power = spread(rows, total)
            codes, components = self._factorize(scaled(rows, power), before, everywhere, total)
            codes = raised(codes, power)
            self._scale_figures(power)
        self.components_ = inputs.like(components, X)
        return inputs.like(codes, X)

    def transform(self, X: Any) -> Any:
        """Return the codes W (n, k) >= 0 that best rebuild `X` (n, c) from components_.

        One pass over `X`; the rest is k x k work.
        """
        inputs.check_fitted(self)
        rows = self._rows(X, fitted=True)
        with torch.inference_mode(), suited_threads(rows.shape[0] * rows.shape[1]):
            inspector = self._inspector()
            components = torch.as_tensor(self.components_).to(*_place(rows))
            power = spread(rows)
            fit = scaled(rows, power)
            codes = encode_rows(fit, components, inspector=inspector).codes
            inspector.finish(fit)
        return inputs.like(raised(codes.T.contiguous(), power), X)

    def inverse_transform(self, X: Any) -> Any:
        """Return W H (n, c) for the codes W = `X` (n, k)."""
        inputs.check_fitted(self)
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
        least = 0 if self.distributed and not fitted else 1
        return inputs.as_rows(self, X, fitted=fitted, least=least)

    def _check_options(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"expected precision in {PRECISIONS}, got {self.precision!r}")
        if isinstance(self.init, str) and self.init not in STARTS:
            raise UsageError(f"expected init in {STARTS}, got {self.init!r}")
        count = 1 if self.n_init == "auto" else self.n_init
        named = isinstance(self.init, str)
        if not isinstance(count, (int, np.integer)) or count < 1 or (count > 1 and not named):
            raise UsageError(
                'expected n_init="auto" or an integer of 1 or more, and only 1 with components '
                f"given as init, got {self.n_init!r}"
            )
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

    def _inspector(self) -> inputs.Inspector:
        signed = self._constraint.floor < 0
        return inputs.Inspector(f"{type(self).__name__} (input X)", signed=signed)

    def _factorize(
        self, rows: Rows, before: int, everywhere: int, total: Total
    ) -> tuple[Tensor, Tensor]:
        """Return the codes (n, k) and components (k, c) of `rows`; set what the fit learnt."""
        device, kind = _place(rows)
        precision = choose_precision(self.precision, kind, device, everywhere * rows.shape[1])
        self.precision_ = str(precision).removeprefix("torch.")
        settings = Settings(self._constraint, precision, self.max_iter, self.tol, total)
        if isinstance(self.init, str):
            few = everywhere * rows.shape[1] <= SMALL
            n_init = (SEVERAL if few else 1) if self.n_init == "auto" else int(self.n_init)
            start = Start(
                self.init, self.n_components, n_init, self._seed(), self._inspector, settings,
                before, everywhere,
            )  # fmt: skip
            components = start(rows)
        else:
            components = self._given_start(rows.shape[1]).to(device, kind)
        fit = minimise(rows, components, self._inspector(), settings)
        self._warn_unless_settled(fit)
        self.n_iter_, self.loss_curve_ = len(fit.losses), np.array(fit.losses)
        return self._finish(rows, fit, total)

    def _given_start(self, columns: int) -> Tensor:
        start, floor = torch.as_tensor(self.init), self._constraint.floor
        if tuple(start.shape) != (self.n_components, columns) or start.min() < floor:
            raise UsageError(
                f"expected init to name a start or hold components of shape "
                f"({self.n_components}, {columns}), got shape {tuple(start.shape)}"
                + (" with negative entries" if start.min() < floor else "")
            )
        return start

    def _warn_unless_settled(self, fit: Fit) -> None:
        if not fit.settled:
            from sklearn.exceptions import ConvergenceWarning  # heavy, and seldom needed

            warnings.warn(
                f"{type(self).__name__} stopped at max_iter={self.max_iter} before the loss "
                "settled to tol; raise max_iter, or tol if the result is good enough",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _finish(self, rows: Rows, fit: Fit, total: Total) -> tuple[Tensor, Tensor]:
        """Order the components, give them unit length, encode all rows, keep the figures."""
        components, codes = _canonical(fit)
        # With opposite components codes may grow together: there, start as transform does.
        known = codes if self._constraint.floor == 0 else None
        encoding = encode_rows(rows, components, known)
        k = len(components)
        figures = torch.cat([encoding.gram.double(), encoding.agreement.unsqueeze(1)], dim=1)
        figures = total(figures)
        takes_off = explained(figures[:, k], figures[:, :k], components)
        order = takes_off.argsort(descending=True, stable=True)
        share = takes_off[order] / (fit.energy or 1.0)
        self.explained_share_ = share.cpu().numpy()
        self.rest_share_ = float(1 - share.sum()) if fit.energy else 0.0
        self.reconstruction_err_ = max(0.0, fit.energy - float(takes_off.sum())) ** 0.5
        return encoding.codes.T.index_select(1, order), components[order]

    def _scale_figures(self, power: int) -> None:
        """Make the figures of 2^-power A those of A."""
        self.reconstruction_err_ = math.ldexp(self.reconstruction_err_, power)
        self.loss_curve_ = np.ldexp(self.loss_curve_, 2 * power)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


def _canonical(fit: Fit) -> tuple[Tensor, Tensor]:
    """Return the components (k, c) by what they explain, and their codes (k, n).

    The components are of unit length, or zero where unused.
    """
    order = fit.statistics.explained(fit.components).argsort(descending=True, stable=True)
    lengths = torch.linalg.vector_norm(fit.components, dim=1, keepdim=True)
    used = (fit.statistics.gram.diagonal() > 0).unsqueeze(1) & (lengths > 0)
    scaled = fit.components / torch.where(used, lengths, 1.0)
    codes = fit.codes.mul_(torch.where(used, lengths, 0.0))
    return torch.where(used, scaled, 0.0)[order], codes[order]


def _place(rows: Rows) -> tuple[torch.device, torch.dtype]:
    """Return the device of `rows` and the type to compute in: float64 for float64, else float32."""
    _, first = next(iter(rows.blocks()))
    return first.device, torch.float64 if first.dtype == torch.float64 else torch.float32


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
        max_iter: most looks at the data.
        tol: settled when a look lowers the loss by less than this share of it.
        init: "nndsvda" (Boutsidis & Gallopoulos 2008, zeros filled with the mean), "random", or
            components (k, c) to start from.
        n_init: how many starts race for some iterations, of which the best goes on, beside the
            first where rows are few. All but the first are random, and have to explain 0.1 % more
            of ||A||² than it does. "auto": 4 where X has at most 2^19 entries, as few rows have
            many local minima, else 1. Of many rows a sample decides.
        random_state: seed of the fit's own generator; None for fresh entropy.
        precision: of the products with A: "float32"; "bfloat16", sums in float32; or "auto",
            bfloat16 for large float32 data on processors that have it in hardware.
        distributed: every rank of the default torch.distributed group fits its own rows, in step
            with the others; a rank may have none (an array of shape (0, c)).

    Attributes:
        components_: H (k, c), rows of unit length, by explained share, largest first. A component
            that the data does not use is zero.
        explained_share_: numpy (k,), the share of ||A||² that each component explains:
            (2<A, WₖHₖ> - <WₖHₖ, WH>) / ||A||². With `rest_share_` they sum to 1.
        rest_share_: ||A - WH||² / ||A||²; 0 for all-zero data.
        reconstruction_err_: ||A - WH|| (Frobenius).
        loss_curve_: numpy (n_iter_,), the best ||A - WH||² after each look.
        n_iter_: looks at all rows; one more encodes them. n_features_in_: c.
        precision_: "float64", "float32" or "bfloat16", as used for the products with A.

    Raises:
        FactorizationError: negative, NaN or infinite entries, or more components than min(n, c).
        UsageError: an option that cannot be right.
    """

    _constraint = NONNEGATIVE


class SemiNMF(Base):
    """Semi-NMF (Ding, Li & Jordan 2010) for signed activations: A ~= W H with W >= 0 and H free.

    The contract, options and attributes are those of :class:`NMF`.
    """

    _constraint = FREE
