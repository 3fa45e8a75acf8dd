"""The concept tree: which concept of more comes out of which of fewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Branch", "branch", "cosines"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Branch:
    """A step of the concept tree, from the concepts at ``counts[i]`` to those at ``counts[i+1]``.

    Attributes:
        overlap: (later, earlier), cosine of the coefficients of the two concepts over the rows.
        parents: for each later concept, the earlier one that it overlaps most, counted from 0.
    """

    overlap: Floats
    parents: tuple[int, ...]


def branch(earlier: Tensor, later: Tensor) -> Branch:
    """Return the step from W (pixels, fewer concepts) to W (pixels, more concepts)."""
    overlap = cosines(later.T, earlier.T)
    return Branch(overlap, tuple(int(parent) for parent in overlap.argmax(1)))


def cosines(first: Any, second: Any) -> Floats:
    """Return the cosines of the rows of (a, m) with those of (b, m), (a, b); 0 for zero rows."""
    left, right = (np.asarray(torch.as_tensor(x).cpu(), dtype=np.float64) for x in (first, second))
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    return np.divide(left @ right.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
