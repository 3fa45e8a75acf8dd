"""ROAD, Remove And Debias: a class's probability as pixels are removed and filled from around.

Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError
from dff.metrics.removal import NOISE, imputed
from dff.metrics.trial import Trial

__all__ = ["PERCENTILES", "Road", "road"]

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


@dataclass(frozen=True, eq=False)
class Road:
    """Changes of the class's probability, removed less unchanged.

    Attributes:
        percentiles: (p,) shares of the pixels that were kept, in percent.
        most: (p, n) where the most relevant pixels are removed; below 0 if they matter.
        least: (p, n) where the least relevant are; near 0 if they do not.
    """

    percentiles: tuple[float, ...]
    most: np.ndarray
    least: np.ndarray

    @property
    def combined(self) -> np.ndarray:
        """(n,): half of what least loses less than most, averaged; more is better.

        Between -0.5 and 0.5 for probabilities, 0 for a map that says nothing.
        """
        return (self.least.mean(0) - self.most.mean(0)) / 2


def road(
    trial: Trial,
    *,
    percentiles: Sequence[float] = PERCENTILES,
    noise: float = NOISE,
    seed: int = 0,
) -> Road:
    """Remove pixels from the percentile of each map on, by noisy linear imputation.

    Pixels of the same value go together, so more than asked may go; where this would be all of
    them, those of the lowest value stay. Of a constant map no pixel is removed.

    Args:
        trial: images and their maps.
        percentiles: p shares of the pixels to keep, each above 0 and below 100.
        noise: of :func:`dff.metrics.imputed`.
        seed: of the noise, which starts anew for each image.

    Raises:
        UsageError: a percentile that is out of range.
    """
    for percentile in percentiles:
        if not 0 < percentile < 100:
            raise UsageError(f"percentiles are above 0 and below 100, not {percentile}")
    changes = []
    for index, (image, heat) in enumerate(zip(trial.inputs, trial.maps, strict=True)):
        generator = torch.Generator().manual_seed(seed)
        removed = [_removed(rank, p) for rank in (-heat, heat) for p in percentiles]
        images = [imputed(image, mask, noise=noise, generator=generator) for mask in removed]
        after = _confidence(trial, images, index)
        changes.append((after - trial.before[index]).reshape(2, len(percentiles)))
    least, most = np.stack(changes, -1)
    return Road(tuple(percentiles), most, least)


def _removed(rank: np.ndarray, percentile: float) -> np.ndarray:
    """Return which pixels (height, width) go: those of the highest rank."""
    threshold = np.percentile(rank, percentile)
    removed = rank >= threshold
    return rank > threshold if removed.all() else removed


def _confidence(trial: Trial, images: list[Tensor], index: int) -> np.ndarray:
    return trial.confidence(torch.stack(images), [trial.targets[index]] * len(images))
