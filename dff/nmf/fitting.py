"""The loop around the update formula: passes over A, extrapolation, when to stop, the result.

One pass does all that A is needed for, block by block: check it, encode it against the components,
and add its share to the statistics (see ``updates``). Two ideas make few passes enough, beside an
initialization that is nearly there (see ``initialization``):

- Extrapolation: the components are pushed on along their last move before the next pass (see
  ``descent``).
- The loss comes from the statistics, before and after the components' update, so stopping costs
  nothing and needs no pass to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dff.nmf.backend import Total, alone, multiply, side_by_side
from dff.nmf.descent import Descent, expected_passes
from dff.nmf.rows import Converter, Inspector, Rows
from dff.nmf.updates import (
    Constraint,
    Statistics,
    encode,
    explained,
    least_squares,
    ridged,
    sweep,
)

__all__ = [
    "Factors",
    "Fit",
    "Progress",
    "Settings",
    "encode_rows",
    "first_solve",
    "minimise",
    "next_solve",
    "ordered_factors",
    "pass_over",
    "summed",
]

FIRST_SWEEPS, NEXT_SWEEPS = 8, 2  # of the codes, in the first pass and in those after it

Solve = Callable[[Tensor, Tensor, Tensor], None]
"""Improves codes (k, b), in place, for gram = H Hᵀ (k, k) and cross = H Aᵀ (k, b)."""


Progress = Callable[[int, int], None]
"""Called after each pass with (passes made, how many are expected in all); see `NMF`."""


@dataclass(frozen=True)
class Settings:
    """How to minimise: what H may be, in which precision, how long, and the sum over ranks.

    With a `ridge` the loss is ||A - W H||² + ridge · Σₖ ||WₖHₖ||². `progress` is told of each pass.
    """

    constraint: Constraint
    precision: torch.dtype
    max_iter: int
    tol: float
    total: Total = alone
    ridge: float = 0.0
    progress: Progress | None = None


@dataclass
class Fit:
    """What the loop has reached.

    Attributes:
        components: H (k, c), of the least loss so far.
        statistics: those that H was updated with.
        codes: Wᵀ (k, n) of the last pass.
        energy: ||A||² over all ranks.
        losses: the least loss after each pass.
        settled: whether it ended before ``max_iter``.
    """

    components: Tensor
    statistics: Statistics
    codes: Tensor
    energy: float
    losses: list[float] = field(default_factory=list)
    settled: bool = False


def minimise(
    rows: Rows,
    components: Tensor,
    settings: Settings,
    *,
    energy: float = 0.0,
    inspector: Inspector | None = None,
    basis: Tensor | None = None,
    fitted: bool = False,
) -> Fit:
    """Minimise the loss of the settings over W >= 0 and H, from H = `components` (k, c).

    Settled once the update of the components lowers the loss by less than ``tol`` of it. `energy`
    is ||A||² over all ranks; where it is not known, the first pass feeds the `inspector` to get
    it. `basis` is that of :func:`pass_over`. Where the components are `fitted` to these very rows,
    the codes are first solved for to the end, so that nothing of the fit is lost.
    """
    update, floor = settings.constraint.update, settings.constraint.floor
    codes = components.new_empty(len(components), rows.shape[0])
    no_statistics = Statistics(components, components[:, : len(components)])
    fit = Fit(components, no_statistics, codes, energy)
    descent, gains = Descent(settings.tol), list[float]()
    for turn in range(settings.max_iter):
        solve = next_solve if turn else (last_solve if fitted else first_solve)
        statistics = pass_over(
            rows, codes, components, solve, settings, basis=basis, inspector=inspector
        )
        if inspector is not None:
            fit.energy, inspector = inspector.finish(rows, settings.total), None
        updated = update(components, statistics)
        before, after = (statistics.loss(h, fit.energy) for h in (components, updated))
        (lower,), (step,) = descent.judge(before, after)
        if lower:
            components = updated.add(updated - fit.components, alpha=float(step)).clamp_min_(floor)
            fit.components, fit.statistics = updated, statistics
        else:
            components = fit.components
        fit.losses.append(float(descent.loss[0]))
        fit.settled = bool(descent.settled[0])
        if settings.progress is not None:
            gains.append((before - after) / (abs(after) or 1.0) if lower else 0.0)
            last = fit.settled or turn + 1 == settings.max_iter
            expected = expected_passes(gains, settings.tol, settings.max_iter)
            settings.progress(turn + 1, turn + 1 if last else expected)
        if fit.settled:
            break
    return fit


def first_solve(codes: Tensor, gram: Tensor, cross: Tensor) -> None:
    """Sweep the codes up from zero, as long as it takes to come near the minimum.

    On few rows this ends in better local minima than a start at clipped least squares.
    """
    sweep(codes.zero_(), gram, cross, times=FIRST_SWEEPS)


def last_solve(codes: Tensor, gram: Tensor, cross: Tensor) -> None:
    """Sweep the codes up from zero to their minimum."""
    encode(codes.zero_(), gram, cross)


def next_solve(codes: Tensor, gram: Tensor, cross: Tensor) -> None:
    """Sweep the codes on from where they are."""
    sweep(codes, gram, cross, times=NEXT_SWEEPS)


def pass_over(
    rows: Rows,
    codes: Tensor,
    components: Tensor,
    solve: Solve,
    settings: Settings,
    *,
    basis: Tensor | None = None,
    inspector: Inspector | None = None,
) -> Statistics:
    """Go once over A: solve for the codes (k, n), in place, and return the statistics they give.

    The codes are those of `rows`, the statistics those of all ranks. With a `basis` (r, c) of
    orthonormal rows, A is `rows` (n, r) times it. In bfloat16 precision the products with A take
    rounded factors, and so does everything that is compared with those products: the statistics
    are those of the rounded factors. A ridge is in their Gram matrix.
    """
    precision = settings.precision
    rounded = components.to(precision)
    exact = rounded.to(components.dtype)
    gram = ridged(exact @ exact.T, settings.ridge)
    projected = rounded if basis is None else multiply(rounded, basis.T)

    def gather(part: Rows) -> tuple[Tensor, Tensor]:
        # Sums over blocks in float64: the same to rounding, in whichever order they are added.
        part_cross = torch.zeros_like(projected, dtype=torch.float64)
        part_gram = torch.zeros_like(gram, dtype=torch.float64)
        converted = Converter(precision)
        for where, values in part.blocks():
            if inspector is not None:
                inspector(values)
            block, block_codes = converted(values), codes[:, where]
            solve(block_codes, gram, multiply(projected, block.T).to(gram.dtype))
            rounded_codes = block_codes.to(precision)
            part_cross += multiply(rounded_codes, block)
            exact_codes = rounded_codes.to(gram.dtype)
            part_gram += exact_codes @ exact_codes.T
        return part_cross, part_gram

    gathered = zip(*side_by_side(gather, rows.parts()), strict=True)
    cross, codes_gram = (sum(sums[1:], sums[0]) for sums in gathered)
    statistics = summed(Statistics(cross, codes_gram), settings.total)
    cross, codes_gram = statistics.cross.to(gram.dtype), statistics.gram.to(gram.dtype)
    cross = cross if basis is None else multiply(cross, basis)
    return Statistics(cross, ridged(codes_gram, settings.ridge))


def summed(statistics: Statistics, total: Total) -> Statistics:
    """Return the statistics over all ranks, by one sum of k (c + k) numbers."""
    if total is alone:
        return statistics
    columns = statistics.cross.shape[-1]
    packed = total(torch.cat([statistics.cross, statistics.gram], dim=-1))
    return Statistics(packed[..., :columns].contiguous(), packed[..., columns:].contiguous())


@dataclass(frozen=True)
class Encoding:
    """Codes (k, n), <A, WₖHₖ> (k,) and Wᵀ W (k, k) in float64, of one process's rows."""

    codes: Tensor
    agreement: Tensor
    gram: Tensor


def encode_rows(
    rows: Rows,
    components: Tensor,
    start: Tensor | None = None,
    *,
    inspector: Inspector | None = None,
) -> Encoding:
    """Go once over A and return the codes against fixed `components` (k, c), in their precision.

    They are solved for from `start` (k, n), which is changed in place, where there is one.
    """
    gram = components @ components.T
    codes = components.new_empty(len(components), rows.shape[0]) if start is None else start
    inverse = least_squares(gram, torch.eye(len(gram)).to(gram)) if start is None else gram

    def gather(part: Rows) -> tuple[Tensor, Tensor]:
        agreement = components.new_zeros(len(components), dtype=torch.float64)
        part_gram = torch.zeros_like(gram, dtype=torch.float64)
        converted = Converter(components.dtype)
        for where, values in part.blocks():
            if inspector is not None:
                inspector(values)
            block, block_codes = converted(values), codes[:, where]
            cross = multiply(components, block.T)
            if start is None:
                block_codes.copy_((inverse @ cross).clamp_min_(0))
            encode(block_codes, gram, cross)
            agreement += cross.mul_(block_codes).sum(1, dtype=torch.float64)
            part_gram += block_codes @ block_codes.T
        return agreement, part_gram

    gathered = zip(*side_by_side(gather, rows.parts()), strict=True)
    agreement, codes_gram = (sum(sums[1:], sums[0]) for sums in gathered)
    return Encoding(codes, agreement, codes_gram)


@dataclass(frozen=True)
class Factors:
    """The result: components by explained share, largest first.

    Attributes:
        codes: W (n, k), of one process's rows.
        components: H (k, c), rows of unit length, or zero where unused.
        explained_share: (k,), float64, of ||A||².
        rest_share: ||A - W H||² / ||A||²; 0 where A is zero.
        error: ||A - W H||.
    """

    codes: Tensor
    components: Tensor
    explained_share: Tensor
    rest_share: float
    error: float


def ordered_factors(rows: Rows, fit: Fit, settings: Settings) -> Factors:
    """Give the components unit length, encode all rows against them, and order both."""
    components, codes = _unit_components(fit)
    # With opposite components codes may grow together: there, start as transform does.
    start = codes if settings.constraint.floor == 0 else None
    encoding, k = encode_rows(rows, components, start), len(components)
    figures = torch.cat([encoding.gram.double(), encoding.agreement.unsqueeze(1)], dim=1)
    figures = settings.total(figures)
    takes_off = explained(figures[:, k], figures[:, :k], components)
    order = takes_off.argsort(descending=True, stable=True)
    share = takes_off[order] / (fit.energy or 1.0)
    return Factors(
        codes=encoding.codes.T.index_select(1, order),
        components=components[order],
        explained_share=share,
        rest_share=float(1 - share.sum()) if fit.energy else 0.0,
        error=max(0.0, fit.energy - float(takes_off.sum())) ** 0.5,
    )


def _unit_components(fit: Fit) -> tuple[Tensor, Tensor]:
    """Return the components (k, c) by what they explain, and their codes (k, n).

    The components are of unit length, or zero where unused.
    """
    order = fit.statistics.explained(fit.components).argsort(descending=True, stable=True)
    lengths = torch.linalg.vector_norm(fit.components, dim=1, keepdim=True)
    used = (fit.statistics.gram.diagonal() > 0).unsqueeze(1) & (lengths > 0)
    unit = fit.components / torch.where(used, lengths, 1.0)
    codes = fit.codes.mul_(torch.where(used, lengths, 0.0))
    return torch.where(used, unit, 0.0)[order], codes[order]
