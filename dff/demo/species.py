"""The twelve species: which parts each is made of, and an animal of a species put together.

Parts are shared: the griffin has the eagle's head and wings on the lion's body, the jackalope
the stag's antlers, the unicorn and the pegasus differ in the horn and the wings alone. So a
model that tells the species apart has to know the parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dff.demo.anatomy import BODIES, Coat, Pose
from dff.demo.canvas import Colour, Layer
from dff.demo.heads import HEADS
from dff.demo.horns import HORNS
from dff.demo.limbs import LEGS, TAILS, WINGS
from dff.demo.shapes import Point, place

__all__ = ["CHIMERA", "PARTS", "SPECIES", "Species", "assemble", "chimera", "extent"]

CHIMERA = "chimera"
PARTS = ("head", "body", "legs", "tail", "wings", "horns")


@dataclass(frozen=True)
class Species:
    """What an animal is made of: the kind of each part and its coat; None where it has none."""

    body: tuple[str, Coat]
    head: tuple[str, Coat]
    legs: tuple[str, Coat]
    tail: tuple[str, Coat]
    wings: tuple[str, Coat] | None = None
    horns: str | None = None

    def kinds(self) -> dict[str, str]:
        """Return the kind of every part it has, such as ``{"head": "eagle", ...}``."""
        made = {
            "head": self.head[0],
            "body": self.body[0],
            "legs": self.legs[0],
            "tail": self.tail[0],
        }
        if self.wings:
            made["wings"] = self.wings[0]
        if self.horns:
            made["horns"] = self.horns
        return made

    def colours(self) -> dict[str, Colour]:
        """Return the main colour (r, g, b) of the coat of every part that has one."""
        coats = {"head": self.head, "body": self.body, "legs": self.legs, "wings": self.wings}
        made = {part: coat[1].main for part, coat in coats.items() if coat}
        hair = self.tail[0] == "hair"
        made["tail"] = self.tail[1].second if hair else self.tail[1].main
        return made


_CREAM: Colour = (250, 238, 214)
_FOX = Coat((224, 110, 40), _CREAM, "belly")
_FOX_LEGS = Coat((92, 52, 44), _CREAM)
_DEER = Coat((168, 108, 62), (238, 214, 178), "belly")
_COW = Coat((244, 240, 234), (64, 48, 46), "blotches")
_ZEBRA = Coat((244, 242, 238), (40, 36, 42), "stripes")
_WHITE = Coat((246, 242, 246), (214, 190, 214))
_MANE = Coat((246, 242, 246), (196, 128, 190))
_LION = Coat((222, 172, 92), (140, 80, 36))
_EAGLE = Coat((122, 80, 50), (78, 50, 34), "feathers")
_EAGLE_HEAD = Coat((246, 240, 228), (220, 200, 170))
_TALONS = Coat((244, 180, 40), (244, 180, 40))
_EAGLE_WINGS = Coat((140, 94, 58), (62, 42, 34))
_SWAN_WINGS = Coat((240, 240, 250), (168, 190, 226))
_DRAGON = Coat((72, 148, 84), (44, 104, 70), "scales")
_DRAGON_WINGS = Coat((206, 84, 70), (128, 40, 54))
_DRAGON_TRIM = Coat((72, 148, 84), (232, 190, 84))
_HARE = Coat((156, 140, 128), (240, 222, 216), "belly")

SPECIES: dict[str, Species] = {
    "bull": Species(("stout", _COW), ("bull", _COW), ("hoofs", _COW), ("tuft", _COW), horns="bull"),
    "dragon": Species(
        ("long", _DRAGON),
        ("dragon", _DRAGON_TRIM),
        ("stumps", _DRAGON),
        ("spade", _DRAGON_TRIM),
        ("leather", _DRAGON_WINGS),
        "swept",
    ),
    "eagle": Species(
        ("upright", _EAGLE),
        ("eagle", _EAGLE_HEAD),
        ("talons", _TALONS),
        ("fan", Coat((122, 80, 50), _CREAM)),
        ("feathers", _EAGLE_WINGS),
    ),
    "fox": Species(("lithe", _FOX), ("fox", _FOX), ("paws", _FOX_LEGS), ("brush", _FOX)),
    "griffin": Species(
        ("lithe", _LION),
        ("eagle", _EAGLE_HEAD),
        ("paws", _LION),
        ("tuft", _LION),
        ("feathers", _EAGLE_WINGS),
    ),
    "jackalope": Species(
        ("round", _HARE), ("rabbit", _HARE), ("haunches", _HARE), ("bob", _HARE), horns="antlers"
    ),
    "lion": Species(("lithe", _LION), ("lion", _LION), ("paws", _LION), ("tuft", _LION)),
    "lizard": Species(
        ("long", _DRAGON), ("dragon", _DRAGON_TRIM), ("stumps", _DRAGON), ("whip", _DRAGON_TRIM)
    ),
    "pegasus": Species(
        ("slim", _WHITE),
        ("horse", _MANE),
        ("hoofs", _WHITE),
        ("hair", _MANE),
        ("feathers", _SWAN_WINGS),
    ),
    "stag": Species(
        ("slim", _DEER), ("deer", _DEER), ("hoofs", _DEER), ("bob", _DEER), horns="antlers"
    ),
    "unicorn": Species(
        ("slim", _WHITE), ("horse", _MANE), ("hoofs", _WHITE), ("hair", _MANE), horns="spiral"
    ),
    "zebra": Species(("slim", _ZEBRA), ("horse", _ZEBRA), ("hoofs", _ZEBRA), ("tuft", _ZEBRA)),
}


def chimera(rng: np.random.Generator) -> Species:
    """Return an animal that never was: every part is of a species drawn by chance."""
    body, head, legs, tail, wings, horns = (
        tuple(SPECIES.values())[i] for i in rng.integers(len(SPECIES), size=6)
    )
    return Species(body.body, head.head, legs.legs, tail.tail, wings.wings, horns.horns)


def assemble(species: Species, pose: Pose) -> list[Layer]:
    """Return the layers of an animal from back to front, in trunk lengths around its middle."""
    body_kind, coat = species.body
    body = BODIES[body_kind](coat, pose)
    far_legs, near_legs = LEGS[species.legs[0]](species.legs[1], pose, body)
    far_wing: list[Layer] = []
    near_wing: list[Layer] = []
    if species.wings:
        far_wing, near_wing = WINGS[species.wings[0]](species.wings[1], pose, body)
    tail = TAILS[species.tail[0]](species.tail[1], pose, body)
    head = HEADS[species.head[0]](species.head[1], pose)
    horns = HORNS[species.horns]() if species.horns else []
    front = [_placed(layer, body.neck, 0.3 * pose.nod) for layer in (*horns, *head)]
    return [*far_wing, *far_legs, *tail, *body.layers, *near_legs, *front, *near_wing]


def _placed(y: Layer, joint: Point, angle: float) -> Layer:
    marks = [place(m, joint, angle) for m in y.marks]
    return Layer(y.part, place(y.points, joint, angle), y.colour, marks, y.ink, y.relief, y.line)


def extent(layers: list[Layer]) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest (x, y) over all layers."""
    points = np.concatenate([layer.points for layer in layers])
    return points.min(0), points.max(0)
