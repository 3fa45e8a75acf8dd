"""What a photo's colours say of where a concept is: the map is the prior, colours the evidence.

    log-odds(pixel) = STEEPNESS · (map − threshold) + log p(colour | inside) / p(colour | outside)

Inside and outside have histograms of their colours, every pixel counted as much as the prior has
it there: a horse's legs and tail, which its map hardly reaches, have the horse's colour and not
the grass's. What has no colour of its own keeps its map.

Source: colour models from a first guess, as in GrabCut (Rother, Kolmogorov and Blake 2004, section
3), with histograms (Boykov and Jolly 2001, section 3), once, and softly: the guided filter sets the
border in place of the graph cut.
"""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["weighed"]

STEEPNESS = 16.0
"""Log-odds that lie between a map of 0 and one of 1; colours can add MOST of them."""
MOST = 2.0
BINS = (10, 24, 24)  # of lightness and the two opponent colours, each of 256 levels
RARE = 1e-6  # the share that every bin has at least: what is rare proves little


def weighed(maps: np.ndarray, thresholds: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Return how likely each pixel belongs to each map, its colour being what it is.

    Args:
        maps: (k, h, w) in [0, 1], as large as the picture.
        thresholds: (k,), where a map alone would have its border.
        picture: (h, w, 3) uint8 RGB.

    Returns:
        float32 (k, h, w) in [0, 1]; above 0.5 is inside.
    """
    bins = _bins(picture)
    likely = np.empty(maps.shape, np.float32)
    for drawn, threshold, result in zip(maps, thresholds, likely, strict=True):
        prior = STEEPNESS * (drawn - np.float32(threshold))
        result[:] = _chance(prior + _evidence(bins, _chance(prior)))
    return likely


def _chance(odds: np.ndarray) -> np.ndarray:
    """Return the probability of log-odds."""
    return np.asarray(1 / (1 + np.exp(-odds)))


def _bins(picture: np.ndarray) -> np.ndarray:
    """Return which bin of colours each pixel (h, w) falls into."""
    colours = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.int64)
    return np.ravel_multi_index(
        tuple(colours[..., axis] * count // 256 for axis, count in enumerate(BINS)), BINS
    )


def _evidence(bins: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the log-odds (h, w) that colours add, where `inside` is the prior of each pixel."""
    ratio = np.log(_histogram(bins, inside) / _histogram(bins, 1 - inside))
    return np.asarray(np.clip(ratio, -MOST, MOST).astype(np.float32)[bins])


def _histogram(bins: np.ndarray, weights: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter  # heavy

    counts = np.bincount(bins.ravel(), weights.ravel(), int(np.prod(BINS))).reshape(BINS)
    smooth = gaussian_filter(counts, 1, mode="constant").ravel()
    return np.asarray(smooth / max(float(smooth.sum()), 1e-9) + RARE)
