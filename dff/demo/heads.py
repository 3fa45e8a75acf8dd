"""How heads are drawn: animals look right, lengths are in trunk lengths, y points down.

The origin is where the neck ends.
"""

from __future__ import annotations

import math

import numpy as np

from dff.demo.anatomy import DARK, Coat, Pose
from dff.demo.canvas import Colour, Layer, mix
from dff.demo.shapes import Point, blob, ellipse, limb, place, polygon

__all__ = ["HEADS"]


def _eye(centre: Point, size: float, iris: Colour = (30, 22, 24)) -> list[Layer]:
    return [
        Layer("head", ellipse(centre, (size, size * 1.08), 0, 12), (250, 248, 240), relief=0),
        Layer(
            "head",
            ellipse((centre[0] + 0.2 * size, centre[1]), (size * 0.62, size * 0.7), 0, 10),
            iris,
            relief=0,
            line=False,
        ),
        Layer(
            "head",
            ellipse(
                (centre[0] + 0.35 * size, centre[1] - 0.3 * size), (size * 0.22, size * 0.22), 0, 6
            ),
            (255, 255, 255),
            relief=0,
            line=False,
        ),
    ]


def _ear(
    root: Point, lean: float, length: float, width: float, coat: Coat, *, pointed: bool = True
) -> list[Layer]:
    if pointed:
        outer = blob(
            (-width / 2, 0.03),
            (-0.05, -0.6 * length),
            (0, -length),
            (0.05, -0.6 * length),
            (width / 2, 0.03),
            detail=3,
        )
    else:
        outer = ellipse((0, -length / 2), (width / 2, length / 2), 0, 14)
    inner = place(outer, (0, -0.1 * length), 0, 0.55)
    return [
        Layer("head", place(outer, root, lean), coat.main, [place(inner, root, lean)], coat.second)
    ]


def _horse_head(coat: Coat, pose: Pose) -> list[Layer]:
    skull = blob(
        (-0.16, -0.12),
        (0.02, -0.2),
        (0.2, -0.1),
        (0.4, 0.1),
        (0.38, 0.24),
        (0.22, 0.24),
        (0.02, 0.14),
        (-0.14, 0.08),
    )
    muzzle = ellipse((0.36, 0.19), (0.13, 0.11), 0.5)
    mane = blob(
        (-0.02, -0.26),
        (-0.14, -0.22),
        (-0.28, 0.0),
        (-0.34, 0.24),
        (-0.2, 0.2),
        (-0.1, 0.02),
        (0.1, -0.12),
    )
    stripes = [limb([(x, -0.25), (x - 0.06, 0.2)], [0.05, 0.03], 2) for x in (-0.05, 0.13, 0.28)]
    marks = stripes if coat.marks == "stripes" else [muzzle]
    return [
        *_ear((-0.1, -0.14), -0.25, 0.2, 0.13, coat),
        Layer("head", skull, coat.main, marks, coat.second),
        Layer("head", mane, mix(coat.second, DARK, 0.25), relief=165),
        *_eye((0.09, -0.04), 0.058),
        Layer("head", ellipse((0.37, 0.14), (0.022, 0.03), 0, 8), DARK, relief=0, line=False),
    ]


def _deer_head(coat: Coat, pose: Pose) -> list[Layer]:
    skull = blob(
        (-0.18, -0.06),
        (-0.04, -0.18),
        (0.12, -0.12),
        (0.36, 0.06),
        (0.36, 0.15),
        (0.2, 0.17),
        (0.0, 0.15),
        (-0.15, 0.1),
    )
    return [
        *_ear((-0.13, -0.08), -1.0, 0.27, 0.15, coat),
        Layer("head", skull, coat.main, [ellipse((0.2, 0.17), (0.2, 0.07))], coat.second),
        *_eye((0.06, -0.03), 0.056),
        Layer("head", ellipse((0.36, 0.09), (0.045, 0.04), 0, 10), DARK, relief=60, line=False),
    ]


def _bull_head(coat: Coat, pose: Pose) -> list[Layer]:
    skull = blob(
        (-0.18, -0.12),
        (0.0, -0.22),
        (0.2, -0.16),
        (0.32, 0.06),
        (0.32, 0.22),
        (0.1, 0.26),
        (-0.1, 0.18),
    )
    return [
        *_ear((-0.15, -0.04), -1.5, 0.22, 0.14, coat),
        Layer("head", skull, coat.main, [ellipse((0.06, -0.18), (0.1, 0.14))], coat.second),
        Layer("head", ellipse((0.27, 0.15), (0.14, 0.12), 0.25), (232, 168, 160)),
        Layer("head", ellipse((0.32, 0.13), (0.025, 0.034), 0, 8), DARK, relief=0, line=False),
        *_eye((0.08, -0.05), 0.056),
    ]


def _fox_head(coat: Coat, pose: Pose) -> list[Layer]:
    skull = blob(
        (-0.22, -0.04),
        (-0.08, -0.2),
        (0.12, -0.17),
        (0.24, -0.02),
        (0.42, 0.1),
        (0.26, 0.17),
        (0.04, 0.2),
        (-0.2, 0.14),
    )
    cheek = blob((-0.22, 0.12), (0.0, 0.06), (0.2, 0.09), (0.42, 0.1), (0.26, 0.24), (-0.1, 0.26))
    return [
        *_ear((0.06, -0.13), 0.15, 0.25, 0.17, coat),
        *_ear((-0.11, -0.12), -0.3, 0.27, 0.18, coat),
        Layer("head", skull, coat.main, [cheek], coat.second),
        *_eye((0.09, -0.04), 0.056),
        Layer("head", ellipse((0.4, 0.09), (0.045, 0.04), 0, 10), DARK, relief=60, line=False),
    ]


def _lion_head(coat: Coat, pose: Pose) -> list[Layer]:
    turn = np.arange(18) * (2 * math.pi / 18)
    reach = 0.33 + 0.05 * (np.arange(18) % 2)
    mane = np.stack([np.cos(turn) * reach - 0.06, np.sin(turn) * reach * 1.05 + 0.02], axis=1)
    tufts = [
        limb(
            [
                (-0.06 + 0.2 * math.cos(a), 0.02 + 0.2 * math.sin(a)),
                (-0.06 + 0.34 * math.cos(a), 0.02 + 0.34 * math.sin(a)),
            ],
            [0.04, 0.02],
            1,
        )
        for a in turn[::2]
    ]
    face = ellipse((0.03, 0.0), (0.22, 0.21))
    return [
        Layer("head", mane, coat.second, tufts, mix(coat.second, DARK, 0.4), relief=165),
        *_ear((-0.1, -0.15), -0.4, 0.13, 0.14, coat, pointed=False),
        Layer("head", face, coat.main),
        Layer("head", ellipse((0.18, 0.09), (0.13, 0.1)), mix(coat.main, (255, 255, 255), 0.55)),
        Layer(
            "head",
            blob((0.17, 0.0), (0.3, 0.02), (0.24, 0.08), detail=3),
            DARK,
            relief=40,
            line=False,
        ),
        *_eye((0.07, -0.06), 0.052),
    ]


def _eagle_head(coat: Coat, pose: Pose) -> list[Layer]:
    skull = blob(
        (-0.2, 0.02),
        (-0.12, -0.18),
        (0.06, -0.21),
        (0.2, -0.08),
        (0.18, 0.1),
        (-0.02, 0.24),
        (-0.16, 0.26),
    )
    beak = blob((0.14, -0.1), (0.3, -0.08), (0.41, 0.04), (0.4, 0.18), (0.32, 0.09), (0.16, 0.08))
    crest = [limb([(-0.16, y), (0.02, y - 0.02)], [0.015, 0.03], 1) for y in (-0.04, 0.06, 0.16)]
    return [
        Layer("head", skull, coat.main, crest, mix(coat.main, DARK, 0.3)),
        Layer("head", beak, (244, 180, 40), relief=165),
        *_eye((0.06, -0.06), 0.06, (120, 70, 10)),
        Layer(
            "head",
            limb([(-0.02, -0.15), (0.14, -0.11)], [0.03, 0.025], 2),
            DARK,
            relief=0,
            line=False,
        ),
    ]


def _dragon_head(coat: Coat, pose: Pose) -> list[Layer]:
    skull = blob(
        (-0.2, -0.06),
        (-0.08, -0.2),
        (0.1, -0.17),
        (0.26, -0.06),
        (0.46, -0.06),
        (0.48, 0.06),
        (0.3, 0.1),
        (-0.04, 0.16),
        (-0.18, 0.12),
    )
    jaw = blob((-0.1, 0.08), (0.2, 0.1), (0.44, 0.14), (0.3, 0.21), (0.0, 0.22), detail=4)
    spikes = [polygon((x, -0.12), (x - 0.1, -0.3), (x + 0.09, -0.14)) for x in (-0.1, 0.03)]
    return [
        Layer("head", jaw, mix(coat.main, DARK, 0.2)),
        *(Layer("head", s, coat.second) for s in spikes),
        Layer("head", skull, coat.main, [ellipse((0.2, 0.12), (0.26, 0.05), -0.1)], coat.second),
        *_eye((0.08, -0.06), 0.058, (190, 30, 20)),
        Layer("head", ellipse((0.41, -0.03), (0.025, 0.02), 0, 8), DARK, relief=0, line=False),
    ]


def _rabbit_head(coat: Coat, pose: Pose) -> list[Layer]:
    skull = blob(
        (-0.2, 0.0),
        (-0.08, -0.2),
        (0.12, -0.18),
        (0.28, 0.02),
        (0.24, 0.16),
        (0.04, 0.22),
        (-0.16, 0.16),
    )
    return [
        *_ear((0.0, -0.13), 0.1 + 0.2 * pose.swish, 0.46, 0.15, coat, pointed=False),
        *_ear((-0.12, -0.1), -0.35 + 0.2 * pose.swish, 0.46, 0.16, coat, pointed=False),
        Layer(
            "head",
            skull,
            coat.main,
            [ellipse((0.2, 0.13), (0.12, 0.09))],
            mix(coat.main, (255, 255, 255), 0.6),
        ),
        *_eye((0.08, -0.03), 0.06),
        Layer("head", ellipse((0.27, 0.04), (0.035, 0.03), 0, 8), (226, 120, 130), relief=40),
    ]


HEADS = {
    "horse": _horse_head,
    "deer": _deer_head,
    "bull": _bull_head,
    "fox": _fox_head,
    "lion": _lion_head,
    "eagle": _eagle_head,
    "dragon": _dragon_head,
    "rabbit": _rabbit_head,
}
