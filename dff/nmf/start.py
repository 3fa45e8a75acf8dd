"""Where a factorization starts: NNDSVDa or random, fitted on samples where there are many rows.

The samples are fitted in the basis of the leading singular vectors of the first of them (randomised
compression; Erichson et al. 2018): their rows are then as short as the basis has vectors, and a
look costs next to nothing. The second sample, larger and of other rows, takes the components out of
what only the first one held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dff.nmf.distributed import Total
from dff.nmf.fitting import minimise
from dff.nmf.init import Spectrum, nndsvda, random_nonnegative, spectrum
from dff.nmf.inputs import Inspector
from dff.nmf.products import multiply
from dff.nmf.rows import InMemory, Rows, sample
from dff.nmf.steps import Constraint

__all__ = ["STARTS", "Start"]

STARTS = ("nndsvda", "random")
SAMPLE_ROWS = 4096  # the first sample has so many rows, or
SAMPLE_ROWS_PER_COMPONENT = 128  # so many for each component, where that is more;
LARGER = 2  # the second one this many times as many
SKETCH = 100  # singular vectors in the basis beyond the number of components
FIRST_TOL, SECOND_TOL = 1.0, 0.2  # shares of the tolerance that the samples are fitted to,
SKETCH_ITER = 60  # or with so many looks


@dataclass(frozen=True)
class Start:
    """How to make components (k, c) to start from, for rows spread over ranks.

    Attributes:
        kind: one of `STARTS`.
        k: number of components.
        seed: of the generators of the sample and the start.
        constraint: what the components may be.
        inspector: makes a new inspector of entries.
        precision: type of the products with A.
        tol: tolerance of the whole fit.
        max_iter: most looks at the data.
        total: the sum over ranks.
        before: rows on the ranks before this one.
        everywhere: rows on all ranks.
    """

    kind: str
    k: int
    seed: int
    constraint: Constraint
    inspector: Callable[[], Inspector]
    precision: torch.dtype
    tol: float
    max_iter: int
    total: Total
    before: int
    everywhere: int

    def __call__(self, rows: Rows) -> Tensor:
        """Return the components for `rows`, this rank's own of all.

        Raises:
            FactorizationError: a forbidden entry in the sample.
        """
        wanted = max(SAMPLE_ROWS, SAMPLE_ROWS_PER_COMPONENT * self.k)
        values, energy = self._sample(rows, wanted, self.seed)
        if self.everywhere <= wanted:
            return self._plain(values)
        rank = min(self.k + SKETCH, values.shape[1])
        parts = spectrum(values, rank, seed=self.seed, total=self.total)
        found = self._plain(values, parts)
        found = self._fitted(parts.scaled_left, energy, found, parts.right, FIRST_TOL)
        values, energy = self._sample(rows, LARGER * wanted, self.seed + 1)
        short = multiply(values, parts.right.T.to(values.dtype)).to(found.dtype)
        return self._fitted(short, energy, found, parts.right, SECOND_TOL)

    def _sample(self, rows: Rows, count: int, seed: int) -> tuple[Tensor, float]:
        """Return this rank's share of `count` rows, checked, in the precision, and all ||·||²."""
        inspector = self.inspector()
        values = sample(
            rows, count, seed=seed, kind=self.precision, visit=inspector,
            before=self.before, everywhere=self.everywhere,
        )  # fmt: skip
        return values, inspector.finish(rows, self.total)

    def _plain(self, values: Tensor, parts: Spectrum | None = None) -> Tensor:
        if self.kind == "random":
            return random_nonnegative(values, self.k, seed=self.seed, total=self.total)
        if parts is None:
            parts = spectrum(values, self.k, seed=self.seed, total=self.total)
        return nndsvda(values, parts, self.k, total=self.total)

    def _fitted(
        self, short: Tensor, energy: float, start: Tensor, basis: Tensor, tol: float
    ) -> Tensor:
        """Return the components that fit the rows `short` (n, r) times `basis` (r, c)."""
        return minimise(
            InMemory(short), start, self.constraint, energy, precision=start.dtype, basis=basis,
            max_iter=min(self.max_iter, SKETCH_ITER), tol=tol * self.tol, total=self.total,
        ).components  # fmt: skip
