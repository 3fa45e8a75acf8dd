"""Outlines of drawn things, as float64 arrays of points (n, 2) in x (right) and y (down).

Curves are closed; lengths are in the unit of whoever places them. Nothing here touches a pixel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

__all__ = ["Point", "blob", "ellipse", "limb", "place", "polygon"]

Point = tuple[float, float]

_LEFT = np.array([-1.0, 1.0])  # of a direction (x, y) once its two are swapped
_CAP = np.array([[0.5, 0.866], [0.866, 0.5], [1, 0], [0.866, -0.5], [0.5, -0.866]])


def ellipse(centre: Point, radii: Point, angle: float = 0.0, points: int = 20) -> np.ndarray:
    """Return an ellipse; `angle` in radians turns it clockwise on the screen."""
    return place(_circle(points) * np.array(radii), centre, angle)


def polygon(*points: Point) -> np.ndarray:
    """Return straight edges between the given points."""
    return np.array(points, dtype=np.float64)


@functools.lru_cache(maxsize=512)
def blob(*points: Point, detail: int = 5) -> np.ndarray:
    """Return a smooth closed curve through the given points (Catmull-Rom)."""
    return _frozen(_closed(len(points), detail) @ np.array(points, dtype=np.float64))


def limb(spine: Sequence[Point], widths: Sequence[float], detail: int = 5) -> np.ndarray:
    """Return the outline of a bent, tapering limb with round ends.

    Args:
        spine: at least two points that the middle of the limb runs through.
        widths: the full width at each of them.
        detail: points drawn from one given point to the next.
    """
    assert len(spine) == len(widths) >= 2
    return _limb(tuple(spine), tuple(widths), detail)


@functools.lru_cache(maxsize=512)
def _limb(spine: tuple[Point, ...], widths: tuple[float, ...], detail: int) -> np.ndarray:
    basis, slope = _open(len(spine), detail)
    points = np.array(spine, dtype=np.float64)
    middle, along = basis @ points, slope @ points
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-9)
    half = np.maximum(basis @ np.array(widths, dtype=np.float64), 0)[:, None] / 2
    left = along[:, ::-1] * _LEFT
    side = left * half
    tip = middle[-1] + half[-1] * (_CAP[:, :1] * along[-1] + _CAP[:, 1:] * left[-1])
    root = middle[0] - half[0] * (_CAP[:, :1] * along[0] + _CAP[:, 1:] * left[0])
    return _frozen(np.concatenate([middle + side, tip, (middle - side)[::-1], root]))


def _frozen(points: np.ndarray) -> np.ndarray:
    points.setflags(write=False)
    return points


def place(points: np.ndarray, origin: Point, angle: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Return points turned by `angle` (radians, clockwise on the screen), scaled, then moved."""
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    return points @ np.array([[c, s], [-s, c]]) + np.array(origin)


@functools.lru_cache(maxsize=16)
def _circle(points: int) -> np.ndarray:
    turn = np.arange(points) * (2 * math.pi / points)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


@functools.lru_cache(maxsize=64)
def _closed(count: int, detail: int) -> np.ndarray:
    """Return the (count·detail, count) matrix from control points to a closed curve."""
    basis = np.zeros((count * detail, count))
    for row in range(count * detail):
        start, share = divmod(row, detail)
        for step, weight in enumerate(_catmull_rom(share / detail)):
            basis[row, (start + step - 1) % count] += weight
    return basis


@functools.lru_cache(maxsize=64)
def _open(count: int, detail: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (samples, count) matrices from control points to a curve and to its slope."""
    samples = (count - 1) * detail + 1
    basis = np.zeros((samples, count))
    for row in range(samples):
        start = min(row // detail, count - 2)
        for step, weight in enumerate(_catmull_rom(row / detail - start)):
            basis[row, min(max(start + step - 1, 0), count - 1)] += weight
    slope = np.asarray(np.gradient(basis, axis=0))
    return basis, slope


def _catmull_rom(t: float) -> tuple[float, float, float, float]:
    return (
        0.5 * (-t + 2 * t**2 - t**3),
        0.5 * (2 - 5 * t**2 + 3 * t**3),
        0.5 * (t + 4 * t**2 - 3 * t**3),
        0.5 * (-(t**2) + t**3),
    )
