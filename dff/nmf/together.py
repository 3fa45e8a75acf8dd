"""Several starts on few rows, fitted in one batch.

Few rows have many local minima, and the best of several starts is often a good deal lower than the
first. Such matrices are so small that starting an operation takes longer than the operation: all
starts go through it together, and NumPy, which starts one in a third of torch's time, does all but
the products with A. The loop is that of ``fitting.minimise``, and so is what its losses say
(``descent``); after some passes the few that lead go on alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dff.nmf.descent import Descent
from dff.nmf.fitting import FIRST_SWEEPS, NEXT_SWEEPS, Settings, summed
from dff.nmf.updates import Floats, Statistics, ridged, sweep_together

__all__ = ["best_of"]

RACE, LEADERS = 10, 3  # after so many passes, so many of the starts go on
LEAD = 1e-4  # of ||A||²; by less, starts are alike, and the first is taken: its parts overlap least


def best_of(values: Tensor, energy: float, starts: Sequence[Tensor], settings: Settings) -> Tensor:
    """Return what the best of the starts (k, c) becomes on A = `values` (n, c), in memory.

    All but the first have to end lower than that by `LEAD`. `energy` is ||A||² over all ranks.
    """
    a = values.to("cpu", starts[0].dtype)
    batch = _Batch(np.stack([start.cpu().numpy() for start in starts], 1), a, energy, settings)
    for turn in range(settings.max_iter):
        batch.step(first=turn == 0)
        if turn + 1 == RACE:
            batch.keep(LEADERS)
        if batch.descent.settled.all():
            break
    return torch.from_numpy(batch.lowest[:, batch.standing.argmin()].copy()).to(starts[0])


class _Half:
    """One factor of all starts, X (k, s, m), and the cross term that it is swept towards.

    Both lie in one array, so that a step of a sweep is one product and one comparison.
    """

    def __init__(self, values: Floats) -> None:
        k, count, columns = values.shape
        self.both = np.zeros((2 * k, count, columns), values.dtype)
        self.values, self.cross = self.both[:k], self.both[k:]
        self.values[:] = values

    def gram(self) -> Floats:
        """Return X Xᵀ (s, k, k) of each start."""
        each = self.values.transpose(1, 0, 2)
        return np.matmul(each, each.mT)

    def times(self, matrix: Tensor, out: Floats) -> None:
        """Write X (k, s, m) times a matrix (m, p) to `out` (k, s, p), contiguous."""
        (k, count, inner), columns = self.values.shape, out.shape[2]
        flat = torch.from_numpy(self.values.reshape(k * count, inner))
        torch.mm(flat, matrix, out=torch.from_numpy(out.reshape(k * count, columns)))

    def agreement(self) -> Floats:
        """Return <cross, X> (s,), float64."""
        return np.einsum("ksm,ksm->s", self.cross, self.values).astype(float)


class _Batch:
    """Some starts on A (n, c): `components` H (k, s, c), `codes` Wᵀ (k, s, n), and their losses.

    Attributes:
        lowest: H (k, s, c) of the least loss so far.
        descent: that loss, and what follows from it.
    """

    def __init__(self, components: Floats, a: Tensor, energy: float, settings: Settings) -> None:
        k, count, _ = components.shape
        self.a, self.energy, self.settings = a, energy, settings
        self.components = _Half(components)
        self.codes = _Half(np.zeros((k, count, len(a)), components.dtype))
        self.lowest, self.descent = components, Descent(settings.tol, count)
        self.handicap = np.full(count, LEAD * energy)
        self.handicap[0] = 0

    @property
    def standing(self) -> Floats:
        """What the starts are compared by (s,)."""
        return self.descent.loss + self.handicap

    def keep(self, count: int) -> None:
        """Go on with the `count` that stand best, and the first: several never end above one."""
        best = np.argsort(self.standing, kind="stable")[:count]
        chosen = np.union1d(best, [0])
        self.components = _Half(self.components.values[:, chosen])
        self.codes = _Half(self.codes.values[:, chosen])
        self.lowest, self.handicap = self.lowest[:, chosen], self.handicap[chosen]
        self.descent.keep(chosen)

    def step(self, *, first: bool) -> None:
        """Go once over A."""
        h, w = self.components, self.codes
        overlap, ridge = h.gram(), self.settings.ridge
        h.times(self.a.T, out=w.cross)
        sweep_together(w.both, _ridged(overlap, ridge), FIRST_SWEEPS if first else NEXT_SWEEPS)
        w.times(self.a, out=h.cross)
        gram = _ridged(self._over_ranks(w.gram()), ridge)
        before = self._losses(gram, overlap)
        self.settings.constraint.update_together(h.both, gram)
        self._go_on(*self.descent.judge(before, self._losses(gram, h.gram())))

    def _over_ranks(self, gram: Floats) -> Floats:
        """Return Wᵀ W (s, k, k) summed over the ranks, as the cross term of H is, in place."""
        cross = self.components.cross
        stacked = Statistics(torch.from_numpy(cross.transpose(1, 0, 2)), torch.from_numpy(gram))
        total = summed(stacked, self.settings.total)
        if total is not stacked:
            cross[:] = total.cross.numpy().transpose(1, 0, 2)
        return np.asarray(total.gram)

    def _losses(self, gram: Floats, overlap: Floats) -> Floats:
        """Return the loss (s,), float64, as far as float32 sums go; `gram` has the ridge."""
        return self.energy - 2 * self.components.agreement() + (gram * overlap).sum((1, 2))

    def _go_on(self, lower: Floats, step: Floats) -> None:
        """Push H on along its last move where that lowered the loss; else go back to the best."""
        updated = self.components.values
        moved = updated + step.astype(updated.dtype)[:, None] * (updated - self.lowest)
        np.maximum(moved, self.settings.constraint.floor, out=moved)
        self.lowest = np.where(lower[:, None], updated, self.lowest)
        updated[:] = np.where(lower[:, None], moved, self.lowest)


def _ridged(gram: Floats, ridge: float) -> Floats:
    return np.asarray(ridged(torch.from_numpy(gram), ridge))
