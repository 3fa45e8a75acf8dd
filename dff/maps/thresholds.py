"""From maps to masks by a threshold: a map's own, or a given one."""

from __future__ import annotations

import numpy as np

from dff.errors import UsageError

__all__ = ["binarize", "minimum_error", "otsu"]

LEVELS = 256
SPREAD = 0.06  # of the values of one side, as a share of the map's peak


def otsu(maps: np.ndarray) -> np.ndarray:
    """Return Otsu's threshold (...) of each map (..., h, w) in [0, 1].

    It is the one of 256 levels that leaves the least variance inside the two sides, the lowest
    of equals; a constant map has none, and gets 0.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    maps = np.asarray(maps)
    return _highest(_sides(maps)[1]).reshape(maps.shape[:-2])


def minimum_error(maps: np.ndarray) -> np.ndarray:
    """Return the threshold (...) of each map (..., h, w) in [0, 1] that makes it most likely.

    The map is taken for two levels, each with the same noise about it (a standard deviation of
    0.06 of the map's peak), and with as many pixels as lie on its side: so what is small is
    expected to be small. Otsu's is the same with sides of equal size; it lies lower the less of
    the map a thing fills, and its mask comes out too large. A constant map gets 0.

    Source: Kittler and Illingworth, "Minimum error thresholding", 1986, of a variance that both
    sides share (Kurita, Otsu and Abdelmalek, "Maximum likelihood thresholding based on population
    mixture models", 1992) and that is known (Barron, "A generalization of Otsu's method and
    minimum error thresholding", 2020, with nu without end).
    """
    maps = np.asarray(maps)
    peaks = np.maximum(maps.max((-2, -1)), np.finfo(np.float32).tiny)
    share, between = _sides(maps / peaks[..., None, None].astype(np.float32))
    surprise = sum(part * np.log(np.maximum(part, 1e-9)) for part in (share, 1 - share))
    found = _highest(between / (SPREAD * (LEVELS - 1)) ** 2 + 2 * surprise).reshape(maps.shape[:-2])
    return np.asarray(found * peaks)


def _sides(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what thresholds at each of 256 levels make of each map, (maps, 256) each.

    The share of pixels at or below, and the variance between the two sides, in levels squared; 0
    where one is empty.
    """
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).astype(np.float32, copy=False)
    top = LEVELS - 1
    levels = np.clip(flat * top + 0.5, 0, top).astype(np.int64)
    levels += np.arange(len(flat))[:, None] * LEVELS
    counts = np.bincount(levels.ravel(), minlength=len(flat) * LEVELS).reshape(-1, LEVELS)
    share = counts / flat.shape[1]
    below = np.cumsum(share, axis=1)
    moment = np.cumsum(share * np.arange(LEVELS), axis=1)
    rest = 1 - below
    valid = (below > 1e-7) & (rest > 1e-7)
    spread = (moment[:, -1:] * below - moment) ** 2
    return below, np.divide(spread, below * rest, out=np.zeros_like(spread), where=valid)


def _highest(merit: np.ndarray) -> np.ndarray:
    """Return the level in [0, 1] of the most merit (maps, 256), the lowest of equals."""
    return np.asarray(merit.argmax(axis=1) / (LEVELS - 1))


def binarize(heatmap: np.ndarray, threshold: float | str = "otsu") -> np.ndarray:
    """Return the boolean mask (h, w) of a map in [0, 1] above `threshold` (a number or "otsu").

    Pixels of value 0 are never inside, so an absent concept has an empty mask.
    """
    if isinstance(threshold, str):
        if threshold != "otsu":
            raise UsageError(f"threshold must be a number in [0, 1] or 'otsu', not {threshold!r}")
        threshold = float(otsu(heatmap))
    return (np.asarray(heatmap) > threshold) & (np.asarray(heatmap) > 0)
