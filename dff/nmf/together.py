"""Several starts on few rows, fitted in one batch.

Few rows have many local minima, and the best of several starts is often a good deal lower than the
first. Such matrices are so small that starting an operation takes longer than the operation: all
starts go through it together, and NumPy, which starts one in a third of torch's time, does all but
the products with A. The loop is that of ``fitting.minimise``, each start with its own momentum;
after some passes the few that lead go on alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dff.nmf.fitting import (
    DECAY,
    FIRST_SWEEPS,
    GROWTH,
    MOMENTUM,
    NEXT_SWEEPS,
    Settings,
    summed,
)
from dff.nmf.updates import FREE, SWEEPS, Floats, Statistics, ridged, sweep_together

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
            batch.keep(np.sort(np.argsort(batch.standing, kind="stable")[:LEADERS]))
        if batch.settled.all():
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
        loss: that loss (s,).
        settled: (s,) bool, whether a pass has lowered it by less than the tolerance.
    """

    def __init__(self, components: Floats, a: Tensor, energy: float, settings: Settings) -> None:
        k, count, _ = components.shape
        self.a, self.energy, self.settings = a, energy, settings
        self.components = _Half(components)
        self.codes = _Half(np.zeros((k, count, len(a)), components.dtype))
        self.lowest, self.loss = components, np.full(count, np.inf)
        self.momentum, self.pushed = np.full(count, MOMENTUM), np.zeros(count, bool)
        self.settled, self.handicap = np.zeros(count, bool), np.full(count, LEAD * energy)
        self.handicap[0] = 0

    @property
    def standing(self) -> Floats:
        """What the starts are compared by (s,)."""
        return self.loss + self.handicap

    def keep(self, chosen: Floats) -> None:
        """Go on with some of the starts only."""
        self.components = _Half(self.components.values[:, chosen])
        self.codes = _Half(self.codes.values[:, chosen])
        self.lowest = self.lowest[:, chosen]
        self.loss, self.momentum = self.loss[chosen], self.momentum[chosen]
        self.pushed, self.settled = self.pushed[chosen], self.settled[chosen]
        self.handicap = self.handicap[chosen]

    def step(self, *, first: bool) -> None:
        """Go once over A."""
        h, w = self.components, self.codes
        overlap, ridge = h.gram(), self.settings.ridge
        h.times(self.a.T, out=w.cross)
        sweep_together(w.both, _ridged(overlap, ridge), FIRST_SWEEPS if first else NEXT_SWEEPS)
        w.times(self.a, out=h.cross)
        gram = _ridged(self._over_ranks(w.gram()), ridge)
        before = self._losses(gram, overlap)
        self._update(gram)
        after = self._losses(gram, h.gram())
        lower = after <= self.loss
        gained = before - after > self.settings.tol * np.abs(after)
        self.settled |= np.where(lower, ~gained, ~self.pushed)
        self._push(lower, lower & (not first))
        self.loss = np.where(lower, after, self.loss)

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

    def _update(self, gram: Floats) -> None:
        """Update H for the given W, in place."""
        h, constraint = self.components, self.settings.constraint
        if constraint is not FREE:
            sweep_together(h.both, gram, SWEEPS)
            return
        stacked = (torch.from_numpy(part) for part in (h.cross.transpose(1, 0, 2), gram))
        found = constraint.update(self.a, Statistics(*stacked))
        h.values[:] = found.numpy().transpose(1, 0, 2)

    def _push(self, lower: Floats, further: Floats) -> None:
        """Push H on along its last move where that lowered the loss; else go back to the best."""
        updated = self.components.values
        grown = np.minimum(1, self.momentum * GROWTH)
        step = (grown * further).astype(updated.dtype)[:, None]
        moved = updated + step * (updated - self.lowest)
        np.maximum(moved, self.settings.constraint.floor, out=moved)
        each = lower[:, None]
        self.lowest = np.where(each, updated, self.lowest)
        updated[:] = np.where(each, moved, self.lowest)
        self.momentum = np.where(lower, grown, self.momentum / DECAY)
        self.pushed = further


def _ridged(gram: Floats, ridge: float) -> Floats:
    return np.asarray(ridged(torch.from_numpy(gram), ridge))
