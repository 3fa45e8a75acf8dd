"""How trunks are drawn, and what every other part has to know: pose, coat, and joints.

Animals look right. Lengths are in trunk lengths, the origin is the middle of the trunk, y points
down. Every part is a function from a pose to layers of paint, from back to front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dff.demo.canvas import Colour, Layer
from dff.demo.shapes import Point, ellipse, limb

__all__ = ["BODIES", "DARK", "Body", "Coat", "Pose"]

DARK: Colour = (38, 28, 30)


@dataclass(frozen=True)
class Pose:
    """How an animal holds itself; angles in radians, `stride` and `flap` from -1 to 1."""

    nod: float
    swish: float
    stride: float
    flap: float


@dataclass(frozen=True)
class Coat:
    """Colours and marks of skin: `marks` names one of the patterns of a trunk."""

    main: Colour
    second: Colour
    marks: str = "plain"


@dataclass(frozen=True)
class Body:
    """Where the other parts join a trunk."""

    layers: list[Layer]
    neck: Point
    hips: tuple[Point, ...]
    tail: Point
    wing: Point


def _marks(coat: Coat, width: float, height: float) -> list[np.ndarray]:
    """Return the pattern of a trunk of the given half width and half height."""
    if coat.marks == "stripes":
        along = np.linspace(-1.0, 1.35, 10)
        return [
            limb(
                [(x * width, -1.6 * height), (x * width + 0.05, 0), (x * width - 0.03, height)],
                [0.085, 0.075, 0.03],
                detail=3,
            )
            for x in along
        ]
    if coat.marks == "blotches":
        spots = [
            (-0.55, -0.45, 0.2, 0.15),
            (0.15, 0.25, 0.19, 0.13),
            (0.62, -0.5, 0.16, 0.17),
            (-0.25, 0.75, 0.13, 0.1),
            (-0.9, 0.3, 0.1, 0.1),
            (0.05, -0.85, 0.12, 0.08),
        ]
        return [ellipse((x * width, y * height), (a, b), x, 10) for x, y, a, b in spots]
    if coat.marks in ("scales", "feathers"):
        radius = 0.05 if coat.marks == "scales" else 0.062
        rows, columns = int(2 * height / (radius * 2.3)) + 2, int(2.5 * width / (radius * 2.9)) + 1
        return [
            ellipse(
                (-1.1 * width + (2 * c + r % 2) * radius * 1.45, -height + r * radius * 2.3),
                (radius, radius * 0.72),
                0.0,
                7,
            )
            for r in range(rows)
            for c in range(columns)
        ]
    if coat.marks == "belly":
        return [ellipse((0.05, height * 1.05), (width * 0.95, height * 0.55))]
    return []


def _trunk(
    coat: Coat,
    spine: list[Point],
    widths: list[float],
    neck: list[Point],
    thick: list[float],
    *,
    hips: tuple[Point, ...],
    tail: Point,
    wing: Point,
) -> Body:
    half = (max(x for x, _ in spine) - min(x for x, _ in spine)) / 2 + 0.1
    marks = _marks(coat, half, max(widths) / 2)
    layers = [
        Layer(
            "body", limb(spine, widths), coat.main, marks, coat.second, joined=[limb(neck, thick)]
        )
    ]
    return Body(layers, neck[-1], hips, tail, wing)


def _slim(coat: Coat, pose: Pose) -> Body:
    end = (0.66, -0.42 - 0.08 * pose.nod)
    return _trunk(
        coat,
        [(-0.4, 0.0), (-0.1, 0.03), (0.2, 0.02), (0.4, -0.02)],
        [0.44, 0.42, 0.43, 0.42],
        [(0.32, 0.0), (0.5, -0.2), end],
        [0.4, 0.3, 0.24],
        hips=((-0.44, 0.1), (-0.3, 0.1), (0.3, 0.1), (0.45, 0.1)),
        tail=(-0.57, -0.1),
        wing=(0.12, -0.12),
    )


def _stout(coat: Coat, pose: Pose) -> Body:
    end = (0.72, -0.2 - 0.06 * pose.nod)
    return _trunk(
        coat,
        [(-0.42, 0.02), (-0.1, 0.0), (0.2, -0.06), (0.44, -0.04)],
        [0.5, 0.54, 0.62, 0.52],
        [(0.36, -0.06), (0.56, -0.14), end],
        [0.46, 0.4, 0.32],
        hips=((-0.46, 0.16), (-0.3, 0.18), (0.34, 0.16), (0.5, 0.14)),
        tail=(-0.64, -0.12),
        wing=(0.1, -0.2),
    )


def _lithe(coat: Coat, pose: Pose) -> Body:
    end = (0.64, -0.26 - 0.06 * pose.nod)
    return _trunk(
        coat,
        [(-0.42, 0.06), (-0.1, 0.04), (0.2, 0.04), (0.42, 0.02)],
        [0.38, 0.36, 0.38, 0.36],
        [(0.36, 0.0), (0.5, -0.12), end],
        [0.34, 0.28, 0.24],
        hips=((-0.46, 0.14), (-0.32, 0.14), (0.32, 0.14), (0.46, 0.12)),
        tail=(-0.58, 0.0),
        wing=(0.1, -0.08),
    )


def _long(coat: Coat, pose: Pose) -> Body:
    end = (0.78, -0.3 - 0.08 * pose.nod)
    return _trunk(
        coat,
        [(-0.5, 0.12), (-0.15, 0.1), (0.2, 0.1), (0.46, 0.08)],
        [0.34, 0.42, 0.4, 0.32],
        [(0.38, 0.08), (0.62, -0.02), end],
        [0.32, 0.26, 0.2],
        hips=((-0.46, 0.2), (-0.3, 0.22), (0.28, 0.22), (0.44, 0.18)),
        tail=(-0.6, 0.1),
        wing=(0.08, -0.02),
    )


def _upright(coat: Coat, pose: Pose) -> Body:
    end = (0.34, -0.46 - 0.05 * pose.nod)
    return _trunk(
        coat,
        [(-0.34, 0.24), (-0.1, 0.08), (0.12, -0.08), (0.24, -0.22)],
        [0.3, 0.5, 0.56, 0.44],
        [(0.2, -0.2), (0.28, -0.34), end],
        [0.44, 0.36, 0.3],
        hips=((-0.06, 0.26), (0.12, 0.22)),
        tail=(-0.42, 0.26),
        wing=(0.0, -0.1),
    )


def _round(coat: Coat, pose: Pose) -> Body:
    end = (0.42, -0.24 - 0.05 * pose.nod)
    return _trunk(
        coat,
        [(-0.24, 0.12), (-0.05, 0.06), (0.14, 0.04), (0.26, 0.02)],
        [0.56, 0.62, 0.54, 0.42],
        [(0.2, 0.0), (0.3, -0.12), end],
        [0.4, 0.34, 0.28],
        hips=((-0.3, 0.26), (-0.16, 0.3), (0.16, 0.28), (0.3, 0.24)),
        tail=(-0.48, 0.02),
        wing=(-0.02, -0.1),
    )


BODIES = {
    "slim": _slim,
    "stout": _stout,
    "lithe": _lithe,
    "long": _long,
    "upright": _upright,
    "round": _round,
}
