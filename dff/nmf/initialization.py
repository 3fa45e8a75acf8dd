"""Components to start from: NNDSVDa, k-means, random or given; fitted on samples of many rows.

Only the components H are made: the codes follow from them and the data. NNDSVDa (Boutsidis &
Gallopoulos 2008) needs the leading singular triplets of A, from a randomised SVD (Halko, Martinsson
& Tropp 2011, algorithm 4.4); k-means is for H of both signs (see ``clusters``). Generators are its
own: the global random state is left alone.

Of many rows two samples are fitted, in the basis of the leading singular vectors of the first
(randomised compression; Erichson et al. 2018): rows are then as short as the basis has vectors, and
a pass costs next to nothing. The second, larger and of other rows, takes the components out of what
only the first one held. Several starts are fitted, and the best goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dff.errors import UsageError
from dff.nmf.backend import (
    RankShare,
    Total,
    alone,
    arithmetic_dtype,
    multiply,
    stable_decomposition,
)
from dff.nmf.clusters import centres, everywhere
from dff.nmf.fitting import Fit, Settings, minimise
from dff.nmf.rows import InMemory, Inspector, Rows
from dff.nmf.together import best_of
from dff.nmf.updates import Constraint

__all__ = ["INITIALIZATIONS", "SAMPLE_ROWS", "Initializer", "given_components", "starts"]

INITIALIZATIONS = ("nndsvda", "k-means", "random")
OVERSAMPLING, POWER_ITERATIONS = 10, 2  # of the randomised SVD
SAMPLE_ROWS = 4096  # the first sample has so many rows, or
SAMPLE_ROWS_PER_COMPONENT = 128  # so many for each component, where that is more;
LARGER = 2  # the second one this many times as many
SKETCH, SKETCH_PER_COMPONENT = 90, 2  # singular vectors in the basis
FIRST_TOL, SECOND_TOL = 1.0, 0.1  # shares of the tolerance that the samples are fitted to,
FEW_TOL, LAST_TOL = 0.2, 0.02  # and all rows, where they are few: the starts, then the best one,
SKETCH_ITER = 150  # or with so many passes
PIECE_ROWS = 512  # of a sample, drawn at once


@dataclass(frozen=True)
class Initializer:
    """How to make components (k, c) to start from, for rows spread over ranks.

    Attributes:
        name: one of `INITIALIZATIONS`.
        k: number of components.
        n_init: how many starts, of which the best is taken; they differ by their seeds, and are
            random but for the first where the name is "nndsvda".
        seed: of the generators of the samples and the starts.
        new_inspector: makes a new inspector of entries.
        settings: those of the whole fit.
        share: where the rows of this rank lie among all.
    """

    name: str
    k: int
    n_init: int
    seed: int
    new_inspector: Callable[[], Inspector]
    settings: Settings
    share: RankShare

    def __call__(self, rows: Rows) -> tuple[Tensor, bool]:
        """Return components to start from, for `rows`, this rank's own of all.

        And whether they have been fitted to all rows already.

        Raises:
            FactorizationError: a forbidden entry in the sample.
        """
        count = max(SAMPLE_ROWS, SAMPLE_ROWS_PER_COMPONENT * self.k)
        values, energy = self._sample(rows, count, self.seed)
        sampled = self.share.total_rows > count
        rank = SKETCH + SKETCH_PER_COMPONENT * self.k if sampled else self.k
        spectrum = leading_spectrum(
            values, min(rank, values.shape[1]), seed=self.seed, total=self.settings.total
        )
        make = self._maker(values, spectrum, sampled=sampled)
        candidates = [make(number) for number in range(self.n_init)]
        if sampled:
            return self._from_samples(rows, count, spectrum, energy, candidates), False
        if len(candidates) == 1:
            return candidates[0], False
        settings = self._settings(candidates[0].dtype, FEW_TOL)
        return best_of(values, energy, candidates, settings), True

    def _from_samples(
        self, rows: Rows, count: int, spectrum: Spectrum, energy: float, candidates: list[Tensor]
    ) -> Tensor:
        """Return what the best candidate becomes on the first sample, then on the second."""
        sample, basis = spectrum.scaled_left, spectrum.right
        fits = [self._fit(sample, energy, start, basis, FIRST_TOL) for start in candidates]
        start = min(fits, key=lambda fit: fit.losses[-1]).components
        sample, energy = self._sample(rows, LARGER * count, self.seed + 1, basis)
        return self._fit(sample, energy, start, basis, SECOND_TOL).components

    def _sample(
        self, rows: Rows, count: int, seed: int, basis: Tensor | None = None
    ) -> tuple[Tensor, float]:
        """Return this rank's share of `count` rows, checked, and ||·||² of all of them.

        They are in the precision of the fit, or with a `basis` (r, c) in that.
        """
        inspector, precision = self.new_inspector(), self.settings.precision

        def take(piece: Tensor) -> Tensor:
            inspector(piece)
            values = piece.to(precision)
            if basis is None:
                return values
            return multiply(values, basis.T.to(precision)).to(basis.dtype)

        values = sampled_rows(rows, count, self.share, seed=seed, take=take)
        return values, inspector.finish(rows, self.settings.total)

    def _maker(
        self, values: Tensor, spectrum: Spectrum, *, sampled: bool
    ) -> Callable[[int], Tensor]:
        """Return what makes the start of a number, for rows that are a sample or all there are."""
        total, dtype = self.settings.total, spectrum.right.dtype
        if self.name == "k-means":
            reduced = spectrum.scaled_left if sampled else values.to(dtype)
            points = everywhere(reduced, total)

            def clustered(number: int) -> Tensor:
                found = centres(points, self.k, seed=self.seed + number)
                return found @ spectrum.right if sampled else found

            return clustered

        mean = mean_magnitude(values, total)

        def factored(number: int) -> Tensor:
            if number == 0 and self.name == "nndsvda":
                return nndsvda(mean, spectrum, self.k, total=total)
            return random_nonnegative(mean, (self.k, values.shape[1]), dtype, self.seed + number)

        return factored

    def _fit(
        self, sample: Tensor, energy: float, start: Tensor, basis: Tensor | None, tol: float
    ) -> Fit:
        """Return the fit to `sample` (n, r), times the `basis` (r, c) if any."""
        settings = self._settings(start.dtype, tol)
        return minimise(InMemory(sample), start, settings, energy=energy, basis=basis)

    def _settings(self, precision: torch.dtype, tol: float) -> Settings:
        """Return the settings for a sample, fitted to so much of the tolerance."""
        most = min(self.settings.max_iter, SKETCH_ITER)
        tol = tol * self.settings.tol
        return replace(self.settings, precision=precision, tol=tol, max_iter=most)


def sampled_rows(
    rows: Rows, count: int, share: RankShare, *, seed: int, take: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return what `take` makes of the rows of this process that are among `count` of all rows.

    One row is drawn from each of `count` even stretches of all rows: neighbours are much alike
    (they come from one image), so this covers the data better than independent draws. All ranks
    draw the same, and keep those of their `share`. `take` is given the rows piece by piece.
    """
    if isinstance(rows, InMemory) and count >= share.total_rows:
        return take(rows.values)
    generator = torch.Generator().manual_seed(seed)
    count = min(count, share.total_rows)
    edges = torch.arange(count + 1) * share.total_rows // count
    within = torch.rand(count, generator=generator, dtype=torch.float64)
    chosen = edges[:-1] + (within * edges.diff()).long() - share.row_offset
    return _drawn(rows, chosen[(chosen >= 0) & (chosen < rows.shape[0])], take)


def _drawn(rows: Rows, chosen: Tensor, take: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `take` makes of the `chosen` rows (ascending), read block by block."""
    drawn: Tensor | None = None
    for where, block in rows.blocks():
        if drawn is None:
            nothing = take(block[:0])
            drawn = nothing.new_empty(len(chosen), nothing.shape[1])
        low, high = torch.searchsorted(chosen, torch.tensor([where.start, where.stop])).tolist()
        for first in range(low, high, PIECE_ROWS):
            last = min(first + PIECE_ROWS, high)
            places = (chosen[first:last] - where.start).to(block.device)
            drawn[first:last] = take(block.index_select(0, places))
    assert drawn is not None
    return drawn


def given_components(init: Any, shape: tuple[int, int], constraint: Constraint) -> Tensor:
    """Return the caller's components as a tensor; refuse another shape than (k, c), or sign.

    Raises:
        UsageError: they are such.
    """
    components = torch.as_tensor(init)
    negative = bool(components.min() < constraint.floor)
    if tuple(components.shape) != shape or negative:
        raise UsageError(
            f"expected init to name a start or hold components of shape {shape}, got shape "
            f"{tuple(components.shape)}" + (" with negative entries" if negative else "")
        )
    return components


def starts(a: Tensor, counts: Sequence[int], *, random_state: int = 0) -> list[Tensor]:
    """Return NNDSVDa components (k, c) of `a` (n, c) for each k of `counts`, from one SVD."""
    with torch.inference_mode():
        spectrum = leading_spectrum(a, max(counts), seed=random_state)
        mean = mean_magnitude(a, alone)
        return [nndsvda(mean, spectrum, k) for k in counts]


@dataclass(frozen=True)
class Spectrum:
    """The leading singular vectors of A (n x c), largest singular value first.

    Attributes:
        right: right singular vectors as rows, of shape (r, c).
        scaled_left: left singular vectors times their values, A rightᵀ, of shape (n, r).
    """

    right: Tensor
    scaled_left: Tensor


def leading_spectrum(a: Tensor, rank: int, *, seed: int, total: Total = alone) -> Spectrum:
    """Return the `rank` leading singular triplets of `a` (n, c); `total` sums over ranks of rows.

    The products are made in the type of `a` and everything else in float32 (float64 for that).
    """
    dtype, columns = arithmetic_dtype(a), a.shape[1]
    generator = torch.Generator().manual_seed(seed)
    width = min(rank + OVERSAMPLING, columns)
    basis = torch.randn(columns, width, generator=generator).to(a.device, dtype)
    for _ in range(POWER_ITERATIONS):
        image = multiply(a, basis.to(a.dtype))
        basis, _ = torch.linalg.qr(total(multiply(image.T, a).to(dtype)).T)
    image = multiply(a, basis.to(a.dtype)).to(dtype)
    _, vectors = stable_decomposition(torch.linalg.eigh, total(image.T @ image).double())
    leading = vectors.flip(1)[:, :rank].to(dtype)
    return Spectrum(right=(basis @ leading).T.contiguous(), scaled_left=image @ leading)


def nndsvda(mean: Tensor, spectrum: Spectrum, k: int, *, total: Total = alone) -> Tensor:
    """Return the NNDSVDa components (k, c) of A (n, c) from `k` or more singular vectors.

    Zeros are filled with the `mean` of |A|. Of each pair of singular vectors the sign half that
    carries more energy is kept. A counts at its ordinary scale (:func:`_ordinary`), so that the
    components of 2^p A are the same.
    """
    fill, unit = _ordinary(mean)
    left, right = spectrum.scaled_left[:, :k], spectrum.right[:k]
    sides = torch.stack([left.clamp_min(0), (-left).clamp_min(0)])
    left_norms = total(sides.square().sum(1)).sqrt()
    halves = torch.stack([right.clamp_min(0), (-right).clamp_min(0)])
    right_norms = torch.linalg.vector_norm(halves, dim=2)
    strength = left_norms * unit * right_norms
    side, each = strength.argmax(0), torch.arange(len(right), device=right.device)
    norms = right_norms[side, each].clamp_min(torch.finfo(right.dtype).tiny)
    components = halves[side, each] * (strength[side, each].sqrt() / norms).unsqueeze(1)
    return torch.where(components > 0, components, torch.where(fill > 0, fill, 1.0))


def random_nonnegative(
    mean: Tensor, shape: tuple[int, int], dtype: torch.dtype, seed: int
) -> Tensor:
    """Return random components (k, c): |normal| at the ordinary scale of the mean of |A|."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(shape, generator=generator).abs_()
    return draw.to(mean.device, dtype) * (_ordinary(mean)[0] / shape[0]).sqrt()


def _ordinary(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean brought to [1/4, 1/2), as activations have, and the power of two for that."""
    mantissa, exponent = torch.frexp(mean)
    return mantissa / 2, torch.ldexp(torch.ones_like(mean), -1 - exponent)


def mean_magnitude(a: Tensor, total: Total) -> Tensor:
    """Return the mean of |a| over all ranks, a scalar tensor; in bfloat16 of every eighth row."""
    some = a[::8] if a.dtype == torch.bfloat16 else a
    lengths = torch.linalg.vector_norm(some.to(arithmetic_dtype(a)), ord=1, dim=1)
    figures = total(torch.stack([lengths.sum(), lengths.new_tensor(float(some.numel()))]))
    return figures[0] / figures[1]
