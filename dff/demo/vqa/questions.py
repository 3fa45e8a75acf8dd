"""Questions on a scene in many phrasings, and the answers that the scene's truth gives.

A phrasing is a choice from every slot of a template. One in four is held out: it is made of words
that others are made of, and never trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dff.demo.canvas import Colour
from dff.demo.creatures import CHIMERA, SPECIES_NAMES, Animal, Scene

__all__ = ["ANSWERS", "PHRASINGS", "Question", "ask", "phrasings"]

COLOURS: dict[Colour, str] = {
    (224, 110, 40): "orange",
    (92, 52, 44): "brown",
    (168, 108, 62): "brown",
    (244, 240, 234): "white",
    (244, 242, 238): "black and white",
    (246, 242, 246): "white",
    (196, 128, 190): "pink",
    (222, 172, 92): "yellow",
    (122, 80, 50): "brown",
    (246, 240, 228): "white",
    (244, 180, 40): "yellow",
    (140, 94, 58): "brown",
    (240, 240, 250): "white",
    (72, 148, 84): "green",
    (206, 84, 70): "red",
    (156, 140, 128): "grey",
}
"""What a coat's main colour is called."""

NUMBERS = ("1", "2", "3", "4", "6", "8")
PLACES = ("left", "middle", "right")
ANSWERS: tuple[str, ...] = (
    *SPECIES_NAMES, *sorted(set(COLOURS.values())), *NUMBERS, "yes", "no", *PLACES
)  # fmt: skip
"""All answers; the network's classes, in this order."""

PHRASINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "species": (
        ("what", "what animal", "which animal", "what creature", "which creature"),
        ("is", "is seen", "is shown", "do you see", "can you see"),
        ("on the picture", "in the picture", "in the image", "here"),
    ),
    "either": (
        ("is the animal", "is the creature", "is this animal"),
        ("in the picture", "on the picture", "in the image", "here", ""),
        ("a {first} or a {second}", "the {first} or the {second}"),
    ),
    "colour": (
        ("what colour is", "which colour is", "what is the colour of", "which colour has"),
        ("the {part}", "its {part}"),
        ("", "of the animal", "of the creature", "in the picture", "in the image"),
    ),
    "legs": (
        ("how many legs", "what number of legs"),
        ("are there", "do you see", "can you see", "are shown"),
        ("", "in the picture", "on the picture", "in the image", "here"),
    ),
    "count": (
        ("how many animals", "how many creatures", "what number of animals"),
        ("are there", "do you see", "can you see", "are shown"),
        ("", "in the picture", "on the picture", "in the image", "here"),
    ),
    "has": (
        ("does the animal have", "does the creature have", "can you see", "do you see",
         "are there"),
        ("{part}", "any {part}"),
        ("", "in the picture", "on the picture", "in the image", "here"),
    ),
    "where": (
        ("where is", "where do you see", "where can you see", "on which side is"),
        ("the {first}", "a {first}"),
        ("", "in the picture", "on the picture", "in the image", "here"),
    ),
}  # fmt: skip
HELD_OUT = 4
"""Of so many phrasings one is not trained on."""

LEFT, RIGHT = 0.4, 0.6
UPRIGHT = "upright"
"""The body that has two legs; all others have four."""
FOUR_LEGGED = 0.25
"""How often legs are counted where every animal has four: else "4" would nearly always be right."""


@dataclass(frozen=True)
class Question:
    """A question on a scene.

    Attributes:
        text: as a user would write it.
        answer: one of :data:`ANSWERS`.
        kind: a key of :data:`PHRASINGS`.
        part: name of the part asked about, "" for whole animals.
        region: (size, size) bool, where the answer is seen; nowhere for what is not there.
    """

    text: str
    answer: str
    kind: str
    part: str
    region: np.ndarray


def phrasings(kind: str, *, unseen: bool = False) -> list[str]:
    """Return the phrasings of a kind of question that are trained on, or those that are not.

    Names of parts and species stand in braces: ``{part}``, ``{first}``, ``{second}``.
    """
    everything = itertools.product(*PHRASINGS[kind])
    texts = dict.fromkeys(" ".join(filter(None, slots)) for slots in everything)
    return [text for i, text in enumerate(texts) if (i % HELD_OUT == HELD_OUT - 1) == unseen]


def ask(scene: Scene, rng: np.random.Generator, *, unseen: bool = False) -> list[Question]:
    """Return a scene's questions, one of each that can be asked of it, phrased by chance.

    Args:
        scene: of animals that stand apart.
        rng: chooses parts, other species and phrasings.
        unseen: in phrasings that are not trained on.
    """
    found = []
    for kind, answer, named, region in _asked(scene, rng):
        choices = phrasings(kind, unseen=unseen)
        text = choices[int(rng.integers(len(choices)))].format(**named)
        found.append(Question(text, answer, kind, named.get("part", ""), region))
    return found


_Asked = tuple[str, str, dict[str, str], np.ndarray]
"""Kind, answer, names in the phrasing, region."""


def _asked(scene: Scene, rng: np.random.Generator) -> Iterator[_Asked]:
    animals = scene.animals
    whole = np.logical_or.reduce([animal.mask for animal in animals])
    yield "count", str(len(animals)), {}, whole
    upright = [one.kinds["body"] == UPRIGHT for one in animals]
    if len(animals) < 3 and (any(upright) or rng.random() < FOUR_LEGGED):
        total = sum(2 if one else 4 for one in upright)
        yield "legs", str(total), {}, scene.parts.get("legs", np.zeros_like(whole))
    if len(animals) > 1:
        yield from _places(animals)
        return
    animal = animals[0]
    if animal.species != CHIMERA:
        yield "species", animal.species, {}, animal.mask
        other = _other(animal.species, rng)
        first, second = rng.permutation([animal.species, other]).tolist()
        yield "either", animal.species, {"first": first, "second": second}, animal.mask
    for part in animal.colours:
        if part in animal.parts:
            colour = COLOURS[animal.colours[part]]
            yield "colour", colour, {"part": part}, animal.parts[part]
    for part in ("wings", "horns"):
        mask = animal.parts.get(part)
        if (mask is None) == (part not in animal.kinds):  # or it is hidden
            answer = "no" if mask is None else "yes"
            yield "has", answer, {"part": part}, np.zeros_like(whole) if mask is None else mask


def _places(animals: tuple[Animal, ...]) -> Iterator[_Asked]:
    names = [animal.species for animal in animals]
    for animal in animals:
        if names.count(animal.species) > 1 or animal.species == CHIMERA or not animal.mask.any():
            continue
        left, _, right, _ = animal.box
        x = (left + right) / 2 / len(animal.mask)
        place = PLACES[int(x > LEFT) + int(x > RIGHT)]
        yield "where", place, {"first": animal.species}, animal.mask


def _other(species: str, rng: np.random.Generator) -> str:
    others = [name for name in SPECIES_NAMES if name != species]
    return others[int(rng.integers(len(others)))]
