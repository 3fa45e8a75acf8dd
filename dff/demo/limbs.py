"""How legs, tails and wings are drawn.

Animals look right. Lengths are in trunk lengths, y points down;
the origin is the middle of the trunk, and each part begins at a joint of the body.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dff.demo.anatomy import DARK, Body, Coat, Pose
from dff.demo.canvas import Colour, Layer, mix
from dff.demo.shapes import Point, blob, ellipse, limb, place, polygon

__all__ = ["LEGS", "TAILS", "WINGS"]


def _walk(pose: Pose, count: int) -> list[float]:
    """Return how far each leg swings, the far ones of each pair first."""
    swing = 0.3 * pose.stride
    return [swing, -swing, -swing, swing][:count]


@dataclass(frozen=True)
class _Leg:
    """The make of a leg: how long, how wide at hip, knee and ankle, the foot's colour (None is the
    coat's), how far the toe sticks out in ankles, and how far the knee bends back."""

    length: float
    widths: tuple[float, float, float]
    foot: Colour | None
    toe: float
    bend: float = 0.0


def _draw_leg(
    leg: _Leg, hip: Point, swing: float, coat: Coat, *, far: bool, bend: float
) -> list[Layer]:
    shade = 0.3 if far else 0.0
    main, sole = mix(coat.main, DARK, shade), mix(leg.foot or coat.main, DARK, shade)
    w = leg.widths[2]
    knee = (hip[0] + 0.5 * leg.length * math.sin(swing) + bend, hip[1] + 0.5 * leg.length)
    ankle = (hip[0] + 0.9 * leg.length * math.sin(swing), hip[1] + 0.95 * leg.length)
    shaft = limb([hip, knee, ankle], leg.widths, detail=4)
    paw = blob(
        (ankle[0] - 0.55 * w, ankle[1] + 0.05),
        (ankle[0] - 0.4 * w, ankle[1] - 0.07),
        (ankle[0] + 0.5 * w, ankle[1] - 0.07),
        (ankle[0] + (0.6 + leg.toe) * w, ankle[1] + 0.05),
        detail=3,
    )
    stripes = [
        polygon(
            (-1, hip[1] + y),
            (1, hip[1] + y + 0.02),
            (1, hip[1] + y + 0.08),
            (-1, hip[1] + y + 0.06),
        )
        for y in ((0.16, 0.3, 0.44) if coat.marks == "stripes" else ())
    ]
    return [
        Layer("legs", shaft, main, stripes, mix(coat.second, DARK, shade)),
        Layer("legs", paw, sole),
    ]


def _legs(leg: _Leg) -> Callable[[Coat, Pose, Body], tuple[list[Layer], list[Layer]]]:
    def draw(coat: Coat, pose: Pose, body: Body) -> tuple[list[Layer], list[Layer]]:
        """Return the layers of the far legs and of the near legs."""
        sides: tuple[list[Layer], list[Layer]] = ([], [])
        for i, (hip, swing) in enumerate(zip(body.hips, _walk(pose, len(body.hips)), strict=True)):
            far = i % 2 == (0 if i < 2 else 1)
            bend = leg.bend if i < len(body.hips) / 2 else -leg.bend
            sides[0 if far else 1].extend(_draw_leg(leg, hip, swing, coat, far=far, bend=bend))
        return sides

    return draw


def _tail(
    spine: list[Point],
    widths: list[float],
    *,
    at_end: Callable[[Coat], list[Layer]] | None = None,
    tip: float = 0.0,
    hair: bool = False,
) -> Callable[[Coat, Pose, Body], list[Layer]]:
    def draw(coat: Coat, pose: Pose, body: Body) -> list[Layer]:
        main = mix(coat.second, DARK, 0.25) if hair else coat.main
        marks = [ellipse(spine[-1], (tip, tip), 0, 14)] if tip else []
        if hair:
            marks = [
                limb([(x + dx * 0.4, y) for x, y in spine], [0.02] * len(spine), 3)
                for dx in (-0.14, 0.1)
            ]
        ink = coat.second if not hair else mix(main, (255, 255, 255), 0.35)
        layers = [
            *(at_end(coat) if at_end else []),
            Layer("tail", limb(spine, widths), main, marks, ink),
        ]
        turn = 0.35 * pose.swish
        return [
            Layer(
                y.part,
                place(y.points, body.tail, turn),
                y.colour,
                [place(m, body.tail, turn) for m in y.marks],
                y.ink,
            )
            for y in layers
        ]

    return draw


def _tuft(coat: Coat) -> list[Layer]:
    return [
        Layer(
            "tail",
            blob(
                (-0.3, -0.16),
                (-0.44, -0.2),
                (-0.52, -0.36),
                (-0.44, -0.5),
                (-0.3, -0.42),
                (-0.24, -0.26),
            ),
            coat.second,
        )
    ]


def _spade(coat: Coat) -> list[Layer]:
    return [
        Layer(
            "tail",
            blob((-0.6, -0.24), (-0.74, -0.2), (-0.72, -0.5), (-0.48, -0.38), detail=4),
            coat.second,
        )
    ]


def _fan(coat: Coat, pose: Pose, body: Body) -> list[Layer]:
    layers = []
    for i, spread in enumerate((-0.3, 0.1, 0.5)):
        turn = spread - 0.35 + 0.3 * pose.swish
        quill = blob((0.08, -0.07), (-0.3, -0.1), (-0.48, 0.0), (-0.3, 0.1), (0.08, 0.07))
        band = [ellipse((-0.4, 0), (0.06, 0.12), 0, 10)]
        layers.append(
            Layer(
                "tail",
                place(quill, body.tail, turn),
                mix(coat.main, DARK, 0.15 * (i % 2)),
                [place(b, body.tail, turn) for b in band],
                coat.second,
            )
        )
    return layers


def _feathered(coat: Coat, pose: Pose, body: Body) -> tuple[list[Layer], list[Layer]]:
    """Return the layers of the far wing and of the near wing."""
    sides = []
    for far in (True, False):
        lift = -0.1 - 0.38 * pose.flap - (0.25 if far else 0)
        joint = (body.wing[0] + (0.1 if far else 0), body.wing[1])
        tone = 0.28 if far else 0.0
        layers = []
        for i, (turn, length) in enumerate(
            ((-0.42, 0.62), (-0.2, 0.78), (0.02, 0.86), (0.26, 0.86))
        ):
            feather = limb([(0.1, 0), (-0.5 * length, 0.03), (-length, -0.05)], [0.2, 0.22, 0.1])
            colour = mix(mix(coat.main, coat.second, 0.28 * (i % 2)), DARK, tone)
            end = [ellipse((-length, -0.05), (0.2, 0.12), 0, 12)]
            angle = 0.75 - turn + lift
            layers.append(
                Layer(
                    "wings",
                    place(feather, joint, angle),
                    colour,
                    [place(m, joint, angle) for m in end],
                    mix(coat.second, DARK, tone),
                )
            )
        cover = limb([(0.14, 0.04), (-0.12, -0.02), (-0.42, -0.06)], [0.2, 0.28, 0.14])
        layers.append(Layer("wings", place(cover, joint, 0.85 + lift), mix(coat.main, DARK, tone)))
        sides.append(layers)
    return sides[0], sides[1]


def _leathery(coat: Coat, pose: Pose, body: Body) -> tuple[list[Layer], list[Layer]]:
    """Return the layers of the far wing and of the near wing."""
    sides = []
    skin = blob(
        (0.1, 0.02),
        (0.06, -0.4),
        (-0.06, -0.74),
        (-0.32, -0.5),
        (-0.62, -0.58),
        (-0.56, -0.32),
        (-0.74, -0.14),
        (-0.46, -0.08),
        (-0.3, 0.04),
        detail=3,
    )
    bones = [
        limb([(0.06, -0.02), end], [0.05, 0.025], 2)
        for end in ((-0.05, -0.7), (-0.58, -0.55), (-0.68, -0.15))
    ]
    for far in (True, False):
        turn = 0.1 - 0.3 * pose.flap + (0.35 if far else 0)
        joint = (body.wing[0] + (0.12 if far else 0), body.wing[1])
        tone = 0.28 if far else 0.0
        sides.append(
            [
                Layer(
                    "wings",
                    place(skin, joint, turn),
                    mix(coat.main, DARK, tone),
                    [place(b, joint, turn) for b in bones],
                    mix(coat.second, DARK, tone),
                )
            ]
        )
    return sides[0], sides[1]


LEGS = {
    "hoofs": _legs(_Leg(0.6, (0.22, 0.14, 0.12), (58, 46, 46), 0.2)),
    "paws": _legs(_Leg(0.48, (0.24, 0.17, 0.15), None, 0.5)),
    "stumps": _legs(_Leg(0.36, (0.24, 0.18, 0.16), (236, 222, 186), 0.5, -0.06)),
    "talons": _legs(_Leg(0.42, (0.18, 0.1, 0.09), (244, 180, 40), 1.3)),
    "haunches": _legs(_Leg(0.3, (0.24, 0.17, 0.14), None, 0.8, -0.03)),
}
TAILS = {
    "hair": _tail(
        [(0.05, 0), (-0.14, 0.08), (-0.22, 0.32), (-0.18, 0.58)], [0.1, 0.2, 0.26, 0.06], hair=True
    ),
    "brush": _tail(
        [(0.05, 0.02), (-0.24, 0.0), (-0.5, -0.16), (-0.7, -0.36)],
        [0.14, 0.3, 0.36, 0.08],
        tip=0.26,
    ),
    "tuft": _tail(
        [(0.05, 0), (-0.16, 0.1), (-0.32, -0.02), (-0.4, -0.3)],
        [0.13, 0.1, 0.09, 0.07],
        at_end=_tuft,
    ),
    "spade": _tail(
        [(0.1, 0), (-0.24, 0.14), (-0.5, 0.04), (-0.64, -0.3)],
        [0.3, 0.22, 0.15, 0.06],
        at_end=_spade,
    ),
    "whip": _tail(
        [(0.1, 0), (-0.24, 0.16), (-0.55, 0.14), (-0.85, -0.06)], [0.32, 0.24, 0.15, 0.03]
    ),
    "bob": _tail([(0.08, 0.0), (-0.06, -0.03), (-0.14, -0.08)], [0.2, 0.26, 0.2], tip=0.16),
    "fan": _fan,
}
WINGS = {"feathers": _feathered, "leather": _leathery}
