"""Pictures and drawn maps fitted to a size: the one caller of OpenCV's ``resize``."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["fitted", "within"]

WAYS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


def fitted(values: np.ndarray, size: tuple[int, int], *, way: str = "area") -> np.ndarray:
    """Return a picture, or a drawn map, of another size; the same array where it has it already.

    Args:
        values: (h, w) or (h, w, channels).
        size: (height, width) in pixels.
        way: "area" averages, for what shrinks; "linear", "cubic" and "nearest" interpolate.
    """
    if values.shape[:2] == tuple(size):
        return values
    return np.asarray(cv2.resize(values, (size[1], size[0]), interpolation=WAYS[way]))


def within(size: tuple[int, int], longest: float, *, least: int = 1) -> tuple[int, int]:
    """Return the (height, width) of the same shape whose longer side is `longest` pixels."""
    scale = longest / max(size)
    return max(least, round(size[0] * scale)), max(least, round(size[1] * scale))
