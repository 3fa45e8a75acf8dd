"""From maps to masks by a threshold: Otsu's, or a given one."""

from __future__ import annotations

import numpy as np

from dff.errors import UsageError

__all__ = ["binarize", "otsu"]


def otsu(maps: np.ndarray) -> np.ndarray:
    """Return Otsu's threshold (...) of each map (..., h, w) in [0, 1].

    It is the one of 256 levels that leaves the least variance inside the two sides, the lowest
    of equals; a constant map has none, and gets 0.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    maps = np.asarray(maps)
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).astype(np.float32, copy=False)
    levels = np.clip(flat * 255 + 0.5, 0, 255).astype(np.int64)
    levels += np.arange(len(flat))[:, None] * 256
    histogram = np.bincount(levels.ravel(), minlength=len(flat) * 256).reshape(len(flat), 256)
    share = histogram / flat.shape[1]
    below = np.cumsum(share, axis=1)
    moment = np.cumsum(share * np.arange(256), axis=1)
    rest = 1 - below
    valid = (below > 1e-7) & (rest > 1e-7)
    spread = (moment[:, -1:] * below - moment) ** 2
    between = np.divide(spread, below * rest, out=np.zeros_like(spread), where=valid)
    return np.asarray(between.argmax(axis=1) / 255).reshape(maps.shape[:-2])


def binarize(heatmap: np.ndarray, threshold: float | str = "otsu") -> np.ndarray:
    """Return the boolean mask (h, w) of a map in [0, 1] above `threshold` (a number or "otsu").

    Pixels of value 0 are never inside, so an absent concept has an empty mask.
    """
    if isinstance(threshold, str):
        if threshold != "otsu":
            raise UsageError(f"threshold must be a number in [0, 1] or 'otsu', not {threshold!r}")
        threshold = float(otsu(heatmap))
    return (np.asarray(heatmap) > threshold) & (np.asarray(heatmap) > 0)
