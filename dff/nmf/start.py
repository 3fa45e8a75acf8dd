"""Where a factorization starts: NNDSVDa or random, fitted on samples where there are many rows.

Where several are asked for they race side by side, and the best goes on. The samples are fitted in
the basis of the leading singular vectors of the first of them (randomised compression; Erichson et
al. 2018): their rows are then as short as the basis has vectors, and a look costs next to nothing.
The second sample, larger and of other rows, takes the components out of what only the first one
held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dff.nmf.fitting import Fit, Settings, first_solve, minimise, next_solve, summed
from dff.nmf.init import Spectrum, nndsvda, random_nonnegative, spectrum
from dff.nmf.inputs import Inspector
from dff.nmf.products import multiply
from dff.nmf.rows import InMemory, Rows, sample
from dff.nmf.steps import Statistics

__all__ = ["STARTS", "Start", "race"]

STARTS = ("nndsvda", "random")
SAMPLE_ROWS = 4096  # the first sample has so many rows, or
SAMPLE_ROWS_PER_COMPONENT = 128  # so many for each component, where that is more;
LARGER = 2  # the second one this many times as many
SKETCH, SKETCH_PER_COMPONENT = 90, 2  # singular vectors in the basis
FIRST_TOL, SECOND_TOL = 1.0, 0.1  # shares of the tolerance that the samples are fitted to,
RACED_TOL = 0.2  # and all rows, where they are few,
SKETCH_ITER = 150  # or with so many looks
RACE = 10  # looks that starts are compared after
RACE_MOMENTUM = 0.8
LEAD = 1e-3  # by less, starts are alike


@dataclass(frozen=True)
class Start:
    """How to make components (k, c) to start from, for rows spread over ranks.

    Attributes:
        kind: one of `STARTS`.
        k: number of components.
        n_init: how many starts, of which the best is taken; all but the first are random.
        seed: of the generators of the samples and the starts.
        inspector: makes a new inspector of entries.
        settings: those of the whole fit.
        before: rows on the ranks before this one.
        everywhere: rows on all ranks.
    """

    kind: str
    k: int
    n_init: int
    seed: int
    inspector: Callable[[], Inspector]
    settings: Settings
    before: int
    everywhere: int

    def __call__(self, rows: Rows) -> Tensor:
        """Return components to start from, for `rows`, this rank's own of all.

        Raises:
            FactorizationError: a forbidden entry in the sample.
        """
        wanted = max(SAMPLE_ROWS, SAMPLE_ROWS_PER_COMPONENT * self.k)
        values, energy = self._sample(rows, wanted, self.seed)
        sampled = self.everywhere > wanted
        rank = SKETCH + SKETCH_PER_COMPONENT * self.k if sampled else self.k
        parts = spectrum(
            values, min(rank, values.shape[1]), seed=self.seed, total=self.settings.total
        )
        starts = [self._start(values, parts, number) for number in range(self.n_init)]
        if sampled:
            return self._from_samples(rows, wanted, parts, energy, starts)
        if len(starts) == 1:
            return starts[0]
        # The first start may end below a leader of the race: both are fitted.
        best = race(values.to(starts[0].dtype), energy, starts, self.settings)
        finals = [self._fit(values, energy, each, None, RACED_TOL) for each in (starts[0], best)]
        return min(finals, key=lambda fit: fit.losses[-1]).components

    def _from_samples(
        self, rows: Rows, wanted: int, parts: Spectrum, energy: float, starts: list[Tensor]
    ) -> Tensor:
        """Return what the best of `starts` becomes on the first sample, then on the second."""
        short, basis = parts.scaled_left, parts.right
        best = starts[0]
        if len(starts) > 1:
            best = race(short, energy, starts, self.settings, basis)
        first = self._fit(short, energy, best, basis, FIRST_TOL).components
        short, energy = self._sample(rows, LARGER * wanted, self.seed + 1, basis)
        return self._fit(short, energy, first, basis, SECOND_TOL).components

    def _sample(
        self, rows: Rows, count: int, seed: int, basis: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """Return this rank's share of `count` rows, checked, and ||·||² of all of them.

        They are in the precision of the fit, or with a `basis` (r, c) in that.
        """
        inspector, precision = self.inspector(), self.settings.precision

        def take(piece: Tensor) -> Tensor:
            inspector(piece)
            values = piece.to(precision)
            if basis is None:
                return values
            return multiply(values, basis.T.to(precision)).to(basis.dtype)

        values = sample(
            rows, count, seed=seed, take=take, before=self.before, everywhere=self.everywhere
        )
        return values, inspector.finish(rows, self.settings.total)

    def _start(self, values: Tensor, parts: Spectrum, number: int) -> Tensor:
        total = self.settings.total
        if number == 0 and self.kind == "nndsvda":
            return nndsvda(values, parts, self.k, total=total)
        return random_nonnegative(values, self.k, seed=self.seed + number, total=total)

    def _fit(
        self, short: Tensor, energy: float, start: Tensor, basis: Tensor | None, tol: float
    ) -> Fit:
        """Return the fit to `short` (n, r), times the `basis` (r, c) if any."""
        settings = replace(
            self.settings, precision=start.dtype, tol=tol * self.settings.tol,
            max_iter=min(self.settings.max_iter, SKETCH_ITER),
        )  # fmt: skip
        return minimise(InMemory(short), start, energy, settings, basis=basis)


def race(
    values: Tensor,
    energy: float,
    starts: Sequence[Tensor],
    settings: Settings,
    basis: Tensor | None = None,
) -> Tensor:
    """Return the best components (k, c) after some looks from each of `starts`, all at once.

    The first keeps its place unless another explains at least `LEAD` more of ||A||² = `energy`.

    A is `values` (n, c) in memory, or with a `basis` (r, c) of orthonormal rows `values` (n, r)
    times it. Few rows have many local minima, and there the time goes into starting small
    operations: many starts together take little longer than one.
    """
    components = torch.stack(list(starts))
    codes = components.new_zeros(*components.shape[:2], len(values))
    before = components
    for turn in range(RACE):
        gram = components @ components.mT
        seen_as = components if basis is None else components @ basis.T
        (next_solve if turn else first_solve)(codes, gram, seen_as @ values.T)
        cross = codes @ values
        seen = Statistics(cross if basis is None else cross @ basis, codes @ codes.mT)
        seen = summed(seen, settings.total)
        found = settings.constraint.update(components, seen)
        step, before = found - before, found
        momentum = RACE_MOMENTUM * (turn > 0)
        components = found.add(step, alpha=momentum).clamp_min_(settings.constraint.floor)
    agreement = (seen.cross * before).sum((1, 2))
    losses = (seen.gram * (before @ before.mT)).sum((1, 2)) - 2 * agreement
    losses[0] -= LEAD * energy
    return before[losses.argmin()]
