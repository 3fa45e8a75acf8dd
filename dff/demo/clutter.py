"""What lies about in a landscape: each kind is a function from a `Spot` to filled outlines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dff.demo.canvas import Colour, mix
from dff.demo.shapes import Point, blob, ellipse, limb, place, polygon

__all__ = ["FLAT", "THINGS", "Shapes", "Spot", "bush"]

Shapes = list[tuple[np.ndarray, Colour]]
FLAT = ("flower", "tuft", "leaf", "flake", "fir")  # too small or too plain for relief
_WHITE: Colour = (255, 255, 255)


@dataclass(frozen=True)
class Spot:
    """Where a thing stands, how big it is, and the colours it may use.

    Lengths are in shares of the picture's side: foot (x, y), size s, and the `horizon`'s y.
    `jitter` is a number about 1, `rng` the source of any further chance.
    """

    x: float
    y: float
    s: float
    horizon: float
    jitter: float
    plant: Colour
    bark: Colour
    stone: Colour
    bright: Colour
    haze: Colour
    rng: np.random.Generator

    def point(self, right: float, up: float) -> Point:
        """Return the point so many sizes to the right of the foot and above it."""
        return self.x + right * self.s, self.y - up * self.s


def bush(x: float, y: float, wide: float) -> list[tuple[np.ndarray, float]]:
    """Return three round outlines over (x, y), and how much lighter each is (0 to 1)."""
    lobes = ((-0.8, 0.3, 0.7, 0.0), (0.8, 0.25, 0.75, 0.03), (0.0, 0.6, 0.95, 0.1))
    return [
        (ellipse((x + dx * wide, y - dy * wide), (wide * r, wide * r * 0.9), 0, 12), tone)
        for dx, dy, r, tone in lobes
    ]


def _bush(spot: Spot) -> Shapes:
    lobes = bush(spot.x, spot.y, 0.6 * spot.s)
    return [(p, mix(spot.plant, _WHITE, tone)) for p, tone in lobes]


def _tree(spot: Spot) -> Shapes:
    s = spot.s
    crown = bush(spot.x, spot.y - 1.3 * s, 0.8 * s)
    stem = limb([spot.point(0, 0), spot.point(0, 1.6)], [0.3 * s, 0.18 * s], 1)
    return [(stem, spot.bark), *((p, mix(spot.plant, _WHITE, tone)) for p, tone in crown)]


def _fir(spot: Spot) -> Shapes:
    s = spot.s
    shapes = [(limb([spot.point(0, 0), spot.point(0, 1)], [0.2 * s, 0.2 * s], 1), spot.bark)]
    for i, (w, low, top) in enumerate(((0.8, 0.3, 1.3), (0.65, 0.9, 1.8), (0.45, 1.5, 2.3))):
        tier = polygon(spot.point(-w, low), spot.point(0, top), spot.point(w, low))
        shapes.append((tier, mix(spot.plant, _WHITE, 0.05 * i)))
    return shapes


def _trunk(spot: Spot) -> Shapes:
    x, y, w = spot.x, spot.y, 0.3 * spot.s
    foot, top = [(x - 1.5 * w, y), (x - w, y - w)], [(x - 0.7 * w, -0.1), (x + 0.7 * w, -0.1)]
    return [(polygon(*foot, *top, (x + w, y - w), (x + 1.4 * w, y)), spot.bark)]


def _palm(spot: Spot) -> Shapes:
    s, top = spot.s, spot.point(0.5, 2)
    stem = limb([spot.point(0, 0), spot.point(0.1, 1), top], [0.22 * s, 0.18 * s, 0.14 * s], 3)
    frond = limb([(0, 0), (0.5, -0.15), (1, 0.2)], [0.12, 0.22, 0.02], 3)
    fan = [(place(frond, top, turn, s), spot.plant) for turn in (-0.2, 0.7, -1.2, 2.6, 3.6)]
    return [(stem, spot.bark), *fan]


def _cactus(spot: Spot) -> Shapes:
    s = spot.s
    shapes = [(limb([spot.point(0, 0), spot.point(0, 1.4)], [0.36 * s, 0.3 * s], 1), spot.plant)]
    for side in (-1, 1):
        elbow = [spot.point(0, 0.6), spot.point(side * 0.45, 0.6), spot.point(side * 0.45, 1)]
        shapes.append((limb(elbow, [0.2 * s, 0.22 * s, 0.18 * s], 3), spot.plant))
    return shapes


def _rock(spot: Spot) -> Shapes:
    corners = ((1, 0), (0.5, -0.9), (-0.5, -0.9), (-1, 0), (-0.5, 0.6), (0.5, 0.6))
    reach = spot.rng.uniform(0.75, 1.2, 6).tolist()
    ring = [
        (spot.x + 0.7 * spot.s * r * c, spot.y - 0.25 * spot.s + 0.45 * spot.s * r * d)
        for r, (c, d) in zip(reach, corners, strict=True)
    ]
    return [(blob(*ring, detail=2), spot.stone)]


def _tuft(spot: Spot) -> Shapes:
    blade = limb([(0, 0), (0.1, -0.5), (0.3, -0.9)], [0.14, 0.1, 0.01], 2)
    return [(place(blade, (spot.x, spot.y), a, spot.s), spot.plant) for a in (-0.6, -0.2, 0.3)]


def _flower(spot: Spot) -> Shapes:
    x, y, s = spot.x, spot.y, spot.s
    petals = [
        (ellipse((x + 0.14 * s * c, y + 0.14 * s * d), (0.13 * s, 0.13 * s), 0, 8), spot.bright)
        for c, d in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    return [*petals, (ellipse((x, y), (0.09 * s, 0.09 * s), 0, 8), (250, 220, 90))]


def _cloud(spot: Spot) -> Shapes:
    y = float(spot.rng.uniform(0.04, max(spot.horizon - 0.1, 0.06)))
    tone = mix(spot.haze, _WHITE, 0.5)
    return [(p, tone) for p, _ in bush(spot.x, y, 0.09 * spot.jitter)]


def _leaf(spot: Spot) -> Shapes:
    y, r = float(spot.rng.uniform(0, 1)), 0.012 * spot.jitter
    return [(ellipse((spot.x, y), (r * 1.4, r), spot.jitter * 3, 8), spot.plant)]


def _flake(spot: Spot) -> Shapes:
    return [(points, (246, 248, 252)) for points, _ in _leaf(spot)]


THINGS: dict[str, Callable[[Spot], Shapes]] = {
    "bush": _bush,
    "tree": _tree,
    "fir": _fir,
    "trunk": _trunk,
    "palm": _palm,
    "cactus": _cactus,
    "rock": _rock,
    "tuft": _tuft,
    "flower": _flower,
    "cloud": _cloud,
    "leaf": _leaf,
    "flake": _flake,
}
