"""How horns are drawn: animals look right, lengths are in trunk lengths, y points down.

The origin is where the neck ends, as it is for heads.
"""

from __future__ import annotations

from dff.demo.anatomy import DARK
from dff.demo.canvas import Colour, Layer, mix
from dff.demo.shapes import ellipse, limb, place, polygon

__all__ = ["HORNS"]

_IVORY: Colour = (236, 222, 186)


def _antlers() -> list[Layer]:
    layers = []
    for root, lean, tone in (((0.06, -0.14), 0.3, 0.35), ((-0.05, -0.15), -0.15, 0.0)):
        colour = mix((150, 104, 62), DARK, tone)
        for spine, widths in (
            ([(0, 0), (-0.1, -0.22), (-0.04, -0.4), (0.08, -0.54)], [0.085, 0.075, 0.065, 0.03]),
            ([(-0.09, -0.2), (0.1, -0.3), (0.16, -0.42)], [0.07, 0.055, 0.025]),
            ([(-0.08, -0.3), (-0.22, -0.42), (-0.24, -0.54)], [0.065, 0.055, 0.025]),
        ):
            layers.append(Layer("horns", place(limb(spine, widths, 4), root, lean), colour))
    return layers


def _bull_horns() -> list[Layer]:
    near = limb(
        [(0.0, -0.16), (-0.12, -0.3), (-0.06, -0.46), (0.08, -0.54)], [0.15, 0.13, 0.085, 0.02]
    )
    far = limb(
        [(0.12, -0.16), (0.24, -0.28), (0.3, -0.4), (0.28, -0.52)], [0.13, 0.11, 0.075, 0.02]
    )
    tip = [place(ellipse((0, 0), (0.12, 0.09)), centre) for centre in ((0.06, -0.52), (0.3, -0.5))]
    return [
        Layer("horns", far, mix(_IVORY, DARK, 0.25), tip[1:], (70, 56, 50)),
        Layer("horns", near, _IVORY, tip[:1], (70, 56, 50)),
    ]


def _unicorn_horn() -> list[Layer]:
    shaft = polygon((0.02, -0.13), (0.42, -0.58), (0.18, -0.08))
    rings = [
        limb([(x - 0.09, y + 0.0), (x + 0.09, y + 0.07)], [0.028, 0.028], 1)
        for x, y in ((0.14, -0.2), (0.21, -0.29), (0.28, -0.38), (0.34, -0.46))
    ]
    return [Layer("horns", shaft, (248, 206, 84), rings, (186, 122, 30), relief=165)]


def _dragon_horns() -> list[Layer]:
    layers = []
    for root, tone in (((0.06, -0.12), 0.3), ((-0.06, -0.12), 0.0)):
        horn = limb(
            [(0, 0), (-0.16, -0.14), (-0.34, -0.2), (-0.5, -0.34)], [0.15, 0.12, 0.08, 0.02]
        )
        rings = [
            ellipse((x, y), (0.018, 0.09), 0.5, 8)
            for x, y in ((-0.1, -0.09), (-0.2, -0.15), (-0.3, -0.19))
        ]
        layers.append(
            Layer(
                "horns",
                place(horn, root),
                mix((96, 82, 92), DARK, tone),
                [place(r, root) for r in rings],
                (60, 50, 58),
            )
        )
    return layers


HORNS = {"antlers": _antlers, "bull": _bull_horns, "spiral": _unicorn_horn, "swept": _dragon_horns}
