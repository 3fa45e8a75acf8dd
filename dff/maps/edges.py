"""Fit heatmaps to the edges of the picture they lie on.

A grid of activations is coarser than the picture, so an upsampled map runs over the edges of what
it shows. The guided filter makes it, within windows of about a grid cell, a linear function of
the picture's colours: where the picture has an edge, the map gets one.

Source: He, Sun and Tang, "Guided Image Filtering", ECCV 2010, with a colour guide (section 3.4);
with wide windows, found on a shrunk picture, as in He and Sun, "Fast Guided Filter", 2015.
"""

from __future__ import annotations

import cv2
import numpy as np

from dff.errors import UsageError
from dff.maps.sizes import fitted

__all__ = ["guided", "refine", "sharpened"]

PEAK, MOST_GAIN = 0.99, 4.0
"""The quantile of a map that drawing keeps, and how much stronger it is made for that at most."""


SAMPLED = 64
"""The rows, or columns where these are fewer, that the quantile is taken of."""


def refine(
    maps: np.ndarray, picture: np.ndarray, *, radius: int, tolerance: float = 0.01
) -> np.ndarray:
    """Return maps whose edges follow those of the picture.

    Args:
        maps: (k, h, w) or (h, w), values in [0, 1], as large as the picture.
        picture: (h, w, 3) uint8 RGB.
        radius: half the side of the window, in pixels: about as far as a cell of the grid that
            the maps come from sees (:func:`dff.maps.masks.window_radius`).
        tolerance: differences of colour (0 to 1) well below it are no edges.

    Returns:
        float32, of the shape of `maps`, in [0, 1].

    Raises:
        UsageError: maps and picture differ in size, or `radius` is below 1.
    """
    picture = np.asarray(picture)
    stack = np.asarray(maps, np.float32)
    if picture.dtype != np.uint8 or picture.shape != (*stack.shape[-2:], 3):
        raise UsageError(
            f"expected a uint8 picture {(*stack.shape[-2:], 3)} for maps {stack.shape}, not "
            f"{picture.dtype} {picture.shape}; upsample the maps to the picture first"
        )
    if radius < 1 or tolerance <= 0:
        raise UsageError(f"radius must be 1 or more ({radius}) and tolerance above 0 ({tolerance})")
    return guided(stack, picture, radius=radius, tolerance=tolerance)


def guided(
    maps: np.ndarray, picture: np.ndarray, *, radius: int, tolerance: float = 0.01
) -> np.ndarray:
    """Return maps (..., h, w) as :func:`refine` does; they may be drawn smaller than the picture.

    What is smaller gets the edges of the picture as it is, and its size.
    """
    guide = picture.astype(np.float32) / 255
    shrink = max(1, radius // 8)
    small, near = _shrunk(guide, shrink), max(1, round(radius / shrink))
    mean = _average(small, near)
    inverse = _inverse_covariance(small, mean, near, tolerance)
    refined = []
    for one in maps.reshape(-1, *maps.shape[-2:]):
        line = _line(fitted(one, small.shape[:2]), small, mean, inverse, near)
        line = fitted(line, guide.shape[:2], way="linear")
        refined.append(_dot(line[..., :3], guide) + line[..., 3])
    return np.clip(np.stack(refined), 0, 1).reshape(*maps.shape[:-2], *guide.shape[:2])


def sharpened(maps: np.ndarray, picture: np.ndarray, *, radius: int) -> np.ndarray:
    """Return maps to draw over a picture: :func:`refine`, with each map as strong as it was.

    Averages over windows lower the peaks of maps, so that colours fade; each map is made stronger
    until its 99% quantile is what it was, at most fourfold. Colours need borders alone, so that a
    window of one cell does; masks, which shall hold whole objects, take wider ones.

    Args:
        maps: (k, h, w), values in [0, 1], as large as the picture.
        picture: (h, w, 3) uint8 RGB.
        radius: half the side of the window, in pixels: a cell of the maps' grid.

    Returns:
        float32 (k, h, w) in [0, 1].

    Raises:
        UsageError: as :func:`refine`.
    """
    refined = refine(maps, picture, radius=radius)
    step = max(1, min(maps.shape[1:]) // SAMPLED)
    samples = (one[:, ::step, ::step] for one in (maps, refined))
    before, after = (np.quantile(sample, PEAK, axis=(1, 2)) for sample in samples)
    gain = np.clip(before / np.maximum(after, 1e-6), 1, MOST_GAIN)
    return np.minimum(refined * gain[:, None, None].astype(np.float32), 1)


def _shrunk(values: np.ndarray, times: int) -> np.ndarray:
    if times == 1:
        return values
    height, width = (max(1, round(side / times)) for side in values.shape[:2])
    return fitted(values, (height, width))


def _average(values: np.ndarray, radius: int) -> np.ndarray:
    side = 2 * radius + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT))


def _inverse_covariance(
    guide: np.ndarray, mean: np.ndarray, radius: int, tolerance: float
) -> np.ndarray:
    """Return the inverse (h, w, 3, 3) of the windows' colour covariance plus tolerance²."""
    pairs = guide[..., :, None] * guide[..., None, :]
    second = _average(pairs.reshape(*guide.shape[:2], 9), radius).reshape(pairs.shape)
    covariance = second - mean[..., :, None] * mean[..., None, :]
    damped = covariance + np.float32(tolerance**2) * np.eye(3, dtype=np.float32)
    # By cofactors: of so many small matrices many times as fast as a factorization of each.
    rows = damped[..., 0, :], damped[..., 1, :], damped[..., 2, :]
    cofactors = np.stack([np.cross(rows[1], rows[2]), np.cross(rows[2], rows[0]),
                          np.cross(rows[0], rows[1])], -1)  # fmt: skip
    return cofactors / _dot(rows[0], cofactors[..., 0])[..., None, None]


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products (h, w) of vectors (h, w, 3); as wholes they go faster than one by one."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _line(
    one: np.ndarray, guide: np.ndarray, mean: np.ndarray, inverse: np.ndarray, radius: int
) -> np.ndarray:
    """Return (h, w, 4) the slopes and the offset that make the guide's colours into the map."""
    level = _average(one, radius)
    covariance = _average(guide * one[..., None], radius) - mean * level[..., None]
    slope = np.einsum("hwij,hwj->hwi", inverse, covariance)
    offset = level - _dot(slope, mean)
    return _average(np.dstack([slope, offset]), radius)
