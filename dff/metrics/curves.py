"""Curves: a class's probability as what explains it is taken out, or put in, step by step.

RISE's deletion and insertion (Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of
Black-box Models", BMVC 2018, section 4); :mod:`dff.scoring.faithfulness` draws those of concepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError
from dff.metrics.removal import blurred

__all__ = ["SOFTMAX", "Curve", "Forward", "check_mode", "pixel_curve", "probability"]

Forward = Callable[[Tensor], Tensor]
"""From inputs or coefficients (m, ...) to logits (m, classes), or from these to probabilities."""

MODES = ("deletion", "insertion")
SOFTMAX: Forward = partial(torch.softmax, dim=-1)


@dataclass(frozen=True, eq=False)
class Curve:
    """A class's probability against the share of concepts or pixels taken out (or put in).

    Attributes:
        shares: (n,) from 0 to 1.
        values: (n,) in [0, 1].
    """

    shares: np.ndarray
    values: np.ndarray

    @property
    def auc(self) -> float:
        """Area under the curve, in [0, 1]: small is good for deletion, large for insertion."""
        steps = np.diff(self.shares)
        return float((steps * (self.values[1:] + self.values[:-1]) / 2).sum())


def pixel_curve(
    score: Forward,
    image: Tensor,
    heatmap: np.ndarray,
    target: int,
    *,
    mode: str = "deletion",
    steps: int = 20,
    batch: int = 32,
    probabilities: Forward = SOFTMAX,
) -> Curve:
    """Take the pixels of an image away (or put them back), the hottest first, and watch a class.

    Deleted pixels become grey (0 after normalisation); insertion begins with the blurred image.
    Pixels of the same heat go in reading order.

    Args:
        score: from images (m, channels, height, width) to logits (m, classes).
        image: (channels, height, width), normalised.
        heatmap: (height, width).
        target: class index.
        mode: "deletion" or "insertion".
        steps: points of the curve, less one.
        batch: images at a time.
        probabilities: of logits (m, classes).

    Raises:
        UsageError: a heatmap of another size, or another mode.
    """
    check_mode(mode)
    height, width = image.shape[1:]
    if heatmap.shape != (height, width):
        raise UsageError(f"expected a heatmap {height} x {width}, got {heatmap.shape}")
    order = torch.from_numpy(np.argsort(-heatmap.ravel(), kind="stable").copy())
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    shares = np.linspace(0, 1, steps + 1)
    other = torch.zeros_like(image) if mode == "deletion" else blurred(image)
    first, last = (image, other) if mode == "deletion" else (other, image)
    values = []
    with torch.no_grad():
        for part in np.array_split(shares, -(-len(shares) // batch)):
            limits = torch.from_numpy(part * len(order))
            changed = (rank[None] < limits[:, None]).reshape(-1, 1, height, width).to(image.device)
            logits = score(torch.where(changed, last, first))
            values.append(probability(logits, target, probabilities))
    return Curve(shares, np.concatenate(values))


def probability(logits: Tensor, target: int, probabilities: Forward) -> np.ndarray:
    """Return the probability (m,) float64 of a class, from logits (m, classes).

    Raises:
        UsageError: there is no such class.
    """
    if not 0 <= target < logits.shape[1]:
        raise UsageError(f"the model has {logits.shape[1]} classes, so there is no class {target}")
    return probabilities(logits.float())[:, target].cpu().double().numpy()


def check_mode(mode: str) -> None:
    """Refuse what is no mode of a curve, with a UsageError."""
    if mode not in MODES:
        raise UsageError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
