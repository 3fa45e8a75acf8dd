"""Pictures of animals whose parts are known: made by a seed, the same on every machine.

``render(7)`` is one animal in a landscape; ``render(7, background_seed=8)`` the same animal,
light and undergrowth in another landscape; ``render(7, count=3)`` a scene of three.

The idea of measuring explanations on made pictures with known parts is that of Hesse,
Schaub-Meyer and Roth, "FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of
Explainable AI Methods", ICCV 2023. Species, drawing and data here are this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dff.demo.anatomy import Pose
from dff.demo.canvas import Canvas, Colour, Layer
from dff.demo.scenery import backdrop, undergrowth
from dff.demo.shapes import ellipse
from dff.demo.species import CHIMERA, PARTS, SPECIES, Species, assemble, chimera, extent
from dff.errors import UsageError, closest

__all__ = ["CHIMERA", "PARTS", "SPECIES_NAMES", "Animal", "Box", "Scene", "render"]

SPECIES_NAMES: tuple[str, ...] = tuple(SPECIES)
Box = tuple[int, int, int, int]
_MOST = 6  # animals in a scene
_LEAST_SHARE = 2048  # a part is seen when it has at least 1/2048 of the pixels


@dataclass(frozen=True)
class Animal:
    """One animal in a scene; masks and boxes tell what is seen of it, not what is hidden.

    Attributes:
        species: its name, one of `SPECIES_NAMES`, or "chimera".
        parts: name of each visible part (out of `PARTS`) to its mask, (size, size) bool.
        boxes: name of each visible part to (x0, y0, x1, y1), half-open, in pixels.
        kinds: name of each part it is made of to the kind, such as ``{"head": "eagle"}``.
        colours: name of each part with a coat to the coat's main (r, g, b), before light and tint.
        mask: (size, size) bool, all that is seen of it.
        box: (x0, y0, x1, y1) around `mask`.
    """

    species: str
    parts: dict[str, np.ndarray]
    boxes: dict[str, Box]
    kinds: dict[str, str]
    colours: dict[str, Colour]
    mask: np.ndarray
    box: Box

    @property
    def label(self) -> int:
        """The index of the species among `SPECIES_NAMES`, the model's class; -1 for a chimera."""
        return -1 if self.species == CHIMERA else SPECIES_NAMES.index(self.species)


@dataclass(frozen=True)
class Scene:
    """A picture (size, size, 3) uint8 RGB, and the animals in it from far to near."""

    image: np.ndarray
    animals: tuple[Animal, ...]

    @property
    def species(self) -> str:
        """The species of the nearest animal."""
        return self.animals[-1].species

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Name of each visible part to its mask (size, size), over all animals."""
        masks: dict[str, np.ndarray] = {}
        for animal in self.animals:
            for name, mask in animal.parts.items():
                masks[name] = masks[name] | mask if name in masks else mask
        return masks


def render(
    seed: int,
    *,
    size: int = 128,
    species: str | Sequence[str] | None = None,
    count: int = 1,
    background_seed: int | None = None,
) -> Scene:
    """Return a scene with animals.

    The scene is the same at every size, and the same bytes for the same arguments.

    Args:
        seed: 0 or greater; chooses animals, poses, colours, light, and the landscape.
        size: side of the square image in pixels, 64 to 512.
        species: a name for all animals or one for each; None leaves it to the seed. A "chimera"
            has every part from a species drawn by chance.
        count: how many animals, 1 to 6.
        background_seed: chooses the landscape in place of `seed`; the animals stay.

    Raises:
        UsageError: an argument is out of its range, or there is no such species.
    """
    if not 64 <= size <= 512:
        raise UsageError(f"size must be 64 to 512 pixels, not {size}")
    if not 1 <= count <= _MOST:
        raise UsageError(f"count must be 1 to {_MOST} animals, not {count}")
    if seed < 0 or (background_seed or 0) < 0:
        raise UsageError(f"a seed must be 0 or greater, not {min(seed, background_seed or 0)}")
    rng = np.random.default_rng([seed, 1])
    names = _names(rng, species, count)
    light = -1 if rng.random() < 0.5 else 1
    landscape = seed if background_seed is None else background_seed
    canvas = backdrop(np.random.default_rng([landscape, 2]), size, light)
    ground, made = 0.0, list[Species]()
    for index, (name, (x, y, scale)) in enumerate(zip(names, _stations(rng, count), strict=True)):
        made.append(chimera(rng) if name == CHIMERA else SPECIES[name])
        ground = max(ground, _stand(canvas, rng, made[-1], (x, y), scale, index))
    if rng.random() < 0.6:
        undergrowth(canvas, rng, ground)
    image = _lit(canvas.pixels, rng)
    seen = map(_seen, [canvas.owner] * count, names, made, range(count))
    return Scene(image, tuple(seen))


def _names(rng: np.random.Generator, species: str | Sequence[str] | None, count: int) -> list[str]:
    drawn = [SPECIES_NAMES[i] for i in rng.integers(len(SPECIES_NAMES), size=_MOST)][:count]
    if species is None:
        return drawn
    names = [species] * count if isinstance(species, str) else list(species)
    if len(names) != count:
        raise UsageError(f"species names {len(names)} animals, but count is {count}")
    for name in names:
        if name not in SPECIES and name != CHIMERA:
            near = closest(name, SPECIES_NAMES)
            raise UsageError(f"no species {name!r}{near}; there are {', '.join(SPECIES_NAMES)}")
    return names


def _stations(rng: np.random.Generator, count: int) -> list[tuple[float, float, float]]:
    """Return centre x, centre y and trunk length of each animal, the far ones first."""
    if count == 1:
        return [
            (
                float(rng.uniform(0.42, 0.58)),
                float(rng.uniform(0.44, 0.6)),
                float(rng.uniform(0.34, 0.52)),
            )
        ]
    columns = min(count, 3)
    places = []
    for index in range(count):
        row, column = divmod(index, columns)
        scale = float(rng.uniform(0.86, 1.1)) * (0.27 if count == 2 else 0.2)
        x = (column + 0.5 + float(rng.uniform(-0.08, 0.08))) / min(columns, count - row * columns)
        y = (0.5 if count <= columns else 0.36 + 0.34 * row) + float(rng.uniform(-0.06, 0.08))
        places.append((x, y, scale))
    return sorted(places, key=lambda p: p[1])


def _stand(
    canvas: Canvas,
    rng: np.random.Generator,
    species: Species,
    position: tuple[float, float],
    scale: float,
    index: int,
) -> float:
    """Paint an animal and its shadow; return the y of the ground under it."""
    pose = Pose(*(float(v) for v in rng.uniform(-1, 1, 4)))
    tint = (256 + rng.integers(-22, 23, 3) + rng.integers(-26, 27)).tolist()
    layers = assemble(species, pose)
    low, high = extent(layers)
    scale = min(scale, 0.94 / float(max(high - low)))
    turn, stretch = float(rng.uniform(-0.12, 0.12)), float(rng.uniform(0.93, 1.07))
    facing = -1.0 if rng.random() < 0.5 else 1.0
    middle = (low + high) / 2
    c, s = np.cos(turn) * scale, np.sin(turn) * scale
    frame = np.array([[facing * stretch, 0], [0, 1 / stretch]]) @ np.array([[c, s], [-s, c]])
    half = (high - low) / 2 * scale
    centre = np.clip(np.array(position), half, 1 - half)
    ground = float(centre[1] + half[1])
    shadow = ellipse((float(centre[0]), ground), (0.84 * float(half[0]), 0.07 * scale))
    canvas.shade(shadow)
    offset = centre - middle @ frame
    for y in layers:
        marks, joined = ([p @ frame + offset for p in ps] for ps in (y.marks, y.joined))
        colour, ink = _tinted(y.colour, tint), _tinted(y.ink, tint)
        owner = 1 + index * len(PARTS) + PARTS.index(y.part)
        canvas.paint(
            Layer(y.part, y.points @ frame + offset, colour, marks, ink, y.relief, y.line, joined),
            owner,
        )
    return ground


def _tinted(colour: Colour, tint: Sequence[int]) -> Colour:
    """Multiply red, green and blue by 256ths, so that no two animals have one colour."""
    r, g, b = colour
    return min(r * tint[0] >> 8, 255), min(g * tint[1] >> 8, 255), min(b * tint[2] >> 8, 255)


def _lit(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture under another light: brighter or darker, warmer or colder."""
    gain = 256 + rng.integers(-44, 30) + rng.integers(-14, 15, 3)
    return np.minimum((pixels * gain.astype(np.int32)) >> 8, 255).astype(np.uint8)


def _seen(owner: np.ndarray, name: str, made: Species, index: int) -> Animal:
    first = 1 + index * len(PARTS)
    mask = (owner >= first) & (owner < first + len(PARTS))
    parts = {part: owner == first + i for i, part in enumerate(PARTS)}
    parts = {
        part: m
        for part, m in parts.items()
        if int(np.count_nonzero(m)) * _LEAST_SHARE >= owner.size
    }
    boxes = {part: _box(m) for part, m in parts.items()}
    return Animal(name, parts, boxes, made.kinds(), made.colours(), mask, _box(mask))


def _box(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
