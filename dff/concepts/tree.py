"""Concept trees: which concept of more comes out of which of fewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dff.rendering import colors as palette

__all__ = ["RGB", "Branch", "as_tuples", "branch", "cosines"]

Floats = NDArray[np.float64]
RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Branch:
    """A step of the concept tree, from the concepts at ``counts[i]`` to those at ``counts[i+1]``.

    Attributes:
        overlap: (later, earlier), cosine of the coefficients of the two concepts over the rows.
        parents: for each later concept, the earlier one that it overlaps most, counted from 0.
    """

    overlap: Floats
    parents: tuple[int, ...]

    def inherited(self, colors: Sequence[RGB]) -> tuple[RGB, ...]:
        """Return the later concepts' colours: those that stay keep theirs, from the earlier ones.

        They are matched one to one, so that the overlaps have the largest sum; the others take the
        palette's first colours that are free.
        """
        from scipy.optimize import linear_sum_assignment  # heavy

        later, earlier = linear_sum_assignment(self.overlap, maximize=True)
        kept = {int(i): colors[int(j)] for i, j in zip(later, earlier, strict=True)}
        free = (c for c in as_tuples(palette(len(self.overlap) + len(colors))) if c not in colors)
        return tuple(kept[i] if i in kept else next(free) for i in range(len(self.overlap)))


def as_tuples(colors: NDArray[np.uint8]) -> tuple[RGB, ...]:
    """Return colours (n, 3) as plain numbers."""
    return tuple((int(r), int(g), int(b)) for r, g, b in colors)


def branch(earlier: Tensor, later: Tensor) -> Branch:
    """Return the step from W (pixels, fewer concepts) to W (pixels, more concepts)."""
    overlap = cosines(later.T, earlier.T)
    return Branch(overlap, tuple(int(parent) for parent in overlap.argmax(1)))


def cosines(first: Any, second: Any) -> Floats:
    """Return the cosines of the rows of (a, m) with those of (b, m), (a, b); 0 for zero rows."""
    left, right = (np.asarray(torch.as_tensor(x).cpu(), dtype=np.float64) for x in (first, second))
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    return np.divide(left @ right.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
