"""What is left of a class where an image is multiplied by its map.

Y is the class's probability for the image, O for the image times its map, a mask in [0, 1]
(:func:`dff.metrics.trial.as_masks`); grey is 0. All return (n,), one number an image.

The parts of ADCC (Poppi et al., "Revisiting the Evaluation of Class Activation Mapping for
Explainability", CVPR workshop 2021, section 3) are average drop, coherency and complexity, and it
is their :func:`harmonic_mean`; pytorch-grad-cam's ARCC takes ROAD in place of the drop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from dff.metrics.trial import Maps, Trial, as_masks, checked_maps

__all__ = [
    "Explain",
    "average_drop",
    "coherency",
    "complexity",
    "drop",
    "harmonic_mean",
    "increase",
]

Explain = Callable[[Tensor, list[int]], Maps]
"""From images (n, channels, height, width) and their classes to maps (n, height, width)."""


def drop(trial: Trial) -> np.ndarray:
    """Return how much probability is lost, max(0, Y - O); less is better."""
    return np.maximum(trial.before - trial.masked, 0)


def average_drop(trial: Trial) -> np.ndarray:
    """Return the share of the probability that is lost, max(0, Y - O) / Y; less is better.

    Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1. 0 where Y is not above 0, as
    logits may be.
    """
    lost = drop(trial)
    return np.divide(lost, trial.before, out=np.zeros_like(lost), where=trial.before > 0)


def increase(trial: Trial) -> np.ndarray:
    """Return 1 where the class became likelier, O > Y, else 0; more is better (Grad-CAM++)."""
    return (trial.masked > trial.before).astype(np.float64)


def complexity(trial: Trial) -> np.ndarray:
    """Return the mean of the map as a mask, in [0, 1]; less is better."""
    return trial.masks.mean((1, 2), dtype=np.float64)


def coherency(trial: Trial, explain: Explain) -> np.ndarray:
    """Return how like each map is to the map of the image masked by it; more is better.

    Pearson's correlation brought to [0, 1]; a constant map correlates with nothing: 0.5.

    Args:
        trial: images and their maps.
        explain: the method that made them, asked about the masked images.
    """
    again = checked_maps(explain(trial.masked_images, trial.targets), trial.inputs)
    first, second = (_standardized(as_masks(maps)) for maps in (trial.maps, again))
    return ((first * second).sum(1) + 1) / 2


def harmonic_mean(*parts: np.ndarray) -> np.ndarray:
    """Return the harmonic mean (n,) of parts (n,) in [0, 1]; 0 where one of them is."""
    stacked = np.stack(parts).astype(np.float64)
    with np.errstate(divide="ignore"):
        return len(parts) / (1 / np.maximum(stacked, 0)).sum(0)


def _standardized(maps: np.ndarray) -> np.ndarray:
    """Return maps as rows (n, pixels) of mean 0 and length 1; constant ones as 0."""
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    rows = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)
