"""What the losses of passes decide: how far to push on along the last move, and when to stop.

Extrapolation (Ang & Gillis 2019): before the next pass the components are pushed on along their
last move, by a share of it that grows as long as the loss falls; where that raised the loss, the
best components are taken up again, and the share shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Descent", "expected_passes"]

MOMENTUM = 0.5  # share of the last move, at first
GROWTH, DECAY = 1.05, 1.5  # of the momentum, after a pass that lowered the loss, or did not


class Descent:
    """What the losses of passes say: who goes on along the last move, and who has settled.

    Several starts (see ``together``) are judged at once, each by itself.

    Attributes:
        loss: the least so far (starts,).
        settled: (starts,) bool, whether the update of a pass has lowered the loss by less than the
            tolerance; or all that is left is rounding.
    """

    def __init__(self, tol: float, starts: int = 1) -> None:
        self.tol, self._first = tol, True
        self.loss, self.settled = np.full(starts, np.inf), np.zeros(starts, bool)
        self._momentum, self._pushed = np.full(starts, MOMENTUM), np.zeros(starts, bool)

    def judge(self, before: Any, after: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Take the losses before and after the components' update in a pass, (starts,) each.

        Returns:
            Which of the updated components are the best so far, and go on from where they are
            (others go back to the best), and the share of the last move by which they are pushed
            on further; both (starts,).
        """
        lower = after <= self.loss
        gained = before - after > self.tol * np.abs(after)
        self.settled |= np.where(lower, ~gained, ~self._pushed)
        self.loss = np.where(lower, after, self.loss)
        grown = np.minimum(1, self._momentum * GROWTH)
        self._momentum = np.where(lower, grown, self._momentum / DECAY)
        self._pushed, self._first = lower & (not self._first), False
        return lower, self._momentum * self._pushed

    def keep(self, chosen: NDArray[Any]) -> None:
        """Go on with some of the starts only."""
        self.loss, self.settled = self.loss[chosen], self.settled[chosen]
        self._momentum, self._pushed = self._momentum[chosen], self._pushed[chosen]


def expected_passes(gains: Sequence[float], tol: float, most: int) -> int:
    """Return how many passes a fit that has not settled will take in all, if it goes on so.

    Gains fall by about the same factor each pass: here by that from the first to the last.

    Args:
        gains: what each pass so far has taken off the loss, as a share of it; 0 where nothing.
        tol: the gain that settles.
        most: passes at most.

    Returns:
        From len(gains) to `most`; 0 where gains have not fallen yet, and nothing can be said.
    """
    last = max((i for i, gain in enumerate(gains) if gain > 0), default=0)
    if not last or gains[last] >= gains[0] or not tol:
        return 0
    rate = math.log(gains[0] / gains[last]) / last
    further = math.log(max(1.0, gains[last] / tol)) / rate
    return min(most, max(len(gains) + 1, last + 1 + math.ceil(further)))
