"""The loop: look at A block by block, gather statistics, update the components, extrapolate.

One look does all that A is needed for, block by block: check it, encode it against the components,
and add its share to the statistics (see ``steps``). Three ideas make few looks enough:

- Many rows: the start is fitted on a sample of them in a basis of its leading singular vectors
  (Erichson et al. 2018), where a look costs next to nothing; all rows only finish it.
- Extrapolation: the components are pushed on along their last move before the next look (Ang &
  Gillis 2019); where that raised the loss, the best components are taken up again.
- The loss comes from the statistics, before and after the components' update, so stopping costs
  nothing and needs no look to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dff.nmf.distributed import Total, alone
from dff.nmf.inputs import Inspector
from dff.nmf.products import multiply
from dff.nmf.rows import Converter, Rows
from dff.nmf.steps import Constraint, Statistics, encode, least_squares, sweep
from dff.nmf.threads import side_by_side

__all__ = [
    "Encoding",
    "Fit",
    "Settings",
    "encode_rows",
    "first_solve",
    "look",
    "minimise",
    "next_solve",
    "summed",
]

MOMENTUM = 0.5  # share of the last move, at first

Solve = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(frozen=True)
class Settings:
    """How to minimise: what H may be, in which precision, how long, and the sum over ranks."""

    constraint: Constraint
    precision: torch.dtype
    max_iter: int
    tol: float
    total: Total = alone


@dataclass
class Fit:
    """What the loop found: components (k, c), the codes (k, n) and statistics they come from.

    And ||A||², and the losses.
    """

    components: Tensor
    codes: Tensor
    statistics: Statistics
    energy: float = 0.0
    losses: list[float] = field(default_factory=list)
    settled: bool = False


def look(
    rows: Rows,
    codes: Tensor,
    components: Tensor,
    solve: Solve,
    *,
    precision: torch.dtype,
    basis: Tensor | None = None,
    inspector: Inspector | None = None,
) -> Statistics:
    """Go once over A: solve for the codes (k, n), in place, and return the statistics they give.

    With a `basis` (r, c) of orthonormal rows, A is `rows` (n, r) times it. With bfloat16
    `precision` the products with A take rounded factors, and so does everything that is compared
    with those products: the statistics are those of the rounded factors.
    """
    rounded = components.to(precision)
    exact = rounded.to(components.dtype)
    gram = exact @ exact.T
    seen_as = rounded if basis is None else multiply(rounded, basis.T)

    def gather(part: Rows) -> tuple[Tensor, Tensor]:
        cross_total = torch.zeros_like(seen_as, dtype=gram.dtype)
        gram_total, converted = torch.zeros_like(gram), Converter(precision)
        for where, values in part.blocks():
            if inspector is not None:
                inspector(values)
            block = converted(values)
            own = codes[:, where]
            solve(own, gram, multiply(seen_as, block.T).to(gram.dtype))
            rounded_own = own.to(precision)
            cross_total += multiply(rounded_own, block)
            exact_own = rounded_own.to(gram.dtype)
            gram_total.addmm_(exact_own, exact_own.T)
        return cross_total, gram_total

    found = side_by_side(gather, rows.parts())
    cross, codes_gram = (sum(sums[1:], sums[0]) for sums in zip(*found, strict=True))
    return Statistics(cross if basis is None else multiply(cross, basis), codes_gram)


def summed(statistics: Statistics, total: Total) -> Statistics:
    """Return the statistics over all ranks, by one sum of k (c + k) numbers."""
    if total is alone:
        return statistics
    columns = statistics.cross.shape[-1]
    packed = total(torch.cat([statistics.cross, statistics.gram], dim=-1))
    return Statistics(packed[..., :columns].contiguous(), packed[..., columns:].contiguous())


def first_solve(codes: Tensor, gram: Tensor, cross: Tensor) -> None:
    """Sweep the codes up from zero, as long as it takes to come near the minimum.

    On few rows this ends in better local minima than a start at clipped least squares.
    """
    sweep(codes.zero_(), gram, cross, times=8)


def next_solve(codes: Tensor, gram: Tensor, cross: Tensor) -> None:
    """Sweep the codes on from where they are."""
    sweep(codes, gram, cross, times=2)


def minimise(
    rows: Rows,
    components: Tensor,
    energy: float | Inspector,
    settings: Settings,
    *,
    basis: Tensor | None = None,
) -> Fit:
    """Minimise ||A - W H||² over W >= 0 and H, from H = `components` (k, c).

    Settled once the update of the components lowers the loss by less than ``tol`` of it. `energy`
    is ||A||² over all ranks, or the inspector that the first look shall feed to get it. `basis` is
    that of :func:`look`.
    """
    constraint, precision, tol = settings.constraint, settings.precision, settings.tol
    inspector = energy if isinstance(energy, Inspector) else None
    codes = components.new_empty(len(components), rows.shape[0])
    fit = Fit(components, codes, Statistics(components, components[:, : len(components)]))
    best, momentum, pushed = float("inf"), MOMENTUM, False
    for turn in range(settings.max_iter):
        solve = next_solve if turn else first_solve
        seen = look(
            rows, codes, components, solve, precision=precision, basis=basis, inspector=inspector
        )
        if inspector is not None:
            energy, inspector = inspector.finish(rows, settings.total), None
        assert isinstance(energy, float)
        seen = summed(seen, settings.total)
        found = constraint.update(components, seen)
        loss = seen.loss(found, energy)
        if loss <= best:
            fit.settled = seen.loss(components, energy) - loss <= tol * abs(loss)
            step = found - fit.components
            fit.components, fit.statistics, best, pushed = found, seen, loss, turn > 0
            momentum = min(1.0, momentum * 1.05)
            components = found.add(step, alpha=momentum * pushed).clamp_min_(constraint.floor)
        else:
            fit.settled = not pushed  # all that is left is rounding
            components, momentum, pushed = fit.components, momentum / 1.5, False
        fit.energy = energy
        fit.losses.append(best)
        if fit.settled:
            break
    return fit


@dataclass(frozen=True)
class Encoding:
    """Codes (k, n), <A, WₖHₖ> (k,) float64, and Wᵀ W (k, k), of one process's rows."""

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

    def gather(part: Rows) -> Tensor:
        cross = components.new_empty(len(components), part.shape[0])
        converted, at = Converter(components.dtype), 0
        whole = slice(0, 0)
        for where, values in part.blocks():
            if inspector is not None:
                inspector(values)
            cross[:, at : at + len(values)] = multiply(components, converted(values).T)
            at += len(values)
            whole = slice(where.stop - at, where.stop)
        own = codes[:, whole]
        if start is None:
            own.copy_(least_squares(gram, cross).clamp_min_(0))
        encode(own, gram, cross)
        return cross.mul_(own).sum(1, dtype=torch.float64)

    agreements = side_by_side(gather, rows.parts())
    return Encoding(codes, sum(agreements[1:], agreements[0]), codes @ codes.T)
