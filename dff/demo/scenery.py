"""Backgrounds to stand before: skies, ridges, ground, weather of noise, and clutter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dff.demo.canvas import Canvas, Colour, Layer, mix
from dff.demo.clutter import FLAT, THINGS, Spot, bush
from dff.demo.shapes import blob, limb, place

__all__ = ["PLACES", "backdrop", "undergrowth"]


@dataclass(frozen=True)
class Landscape:
    """The palette of a landscape, and what lies about in it."""

    sky: tuple[Colour, Colour]
    ridge: Colour
    ground: tuple[Colour, Colour]
    plant: Colour
    clutter: tuple[str, ...]


PLACES: dict[str, Landscape] = {
    "meadow": Landscape(
        ((118, 176, 226), (222, 236, 240)),
        (112, 150, 110),
        ((150, 182, 92), (92, 136, 64)),
        (70, 122, 56),
        ("bush", "tree", "flower", "tuft", "flower", "cloud"),
    ),
    "autumn": Landscape(
        ((226, 198, 160), (248, 230, 196)),
        (150, 104, 74),
        ((196, 146, 82), (132, 88, 52)),
        (200, 92, 36),
        ("tree", "tree", "rock", "tuft", "leaf", "leaf"),
    ),
    "desert": Landscape(
        ((238, 176, 120), (252, 222, 170)),
        (196, 132, 86),
        ((232, 196, 136), (204, 152, 92)),
        (92, 132, 84),
        ("rock", "cactus", "tuft", "rock", "cloud"),
    ),
    "snow": Landscape(
        ((150, 178, 208), (232, 238, 246)),
        (158, 176, 200),
        ((240, 244, 250), (200, 214, 232)),
        (62, 96, 92),
        ("fir", "fir", "rock", "flake", "cloud"),
    ),
    "forest": Landscape(
        ((70, 110, 90), (150, 180, 120)),
        (44, 84, 62),
        ((86, 110, 60), (52, 72, 44)),
        (36, 84, 50),
        ("trunk", "trunk", "bush", "fir", "tuft", "leaf"),
    ),
    "dusk": Landscape(
        ((52, 44, 92), (226, 120, 110)),
        (64, 48, 88),
        ((84, 64, 92), (44, 36, 62)),
        (52, 70, 84),
        ("fir", "bush", "rock", "flake", "cloud"),
    ),
    "shore": Landscape(
        ((110, 190, 214), (216, 240, 240)),
        (64, 140, 170),
        ((236, 218, 172), (214, 186, 132)),
        (86, 150, 110),
        ("rock", "palm", "flower", "cloud", "tuft"),
    ),
    "heath": Landscape(
        ((176, 184, 200), (226, 220, 226)),
        (122, 104, 132),
        ((140, 120, 122), (98, 84, 92)),
        (150, 84, 142),
        ("bush", "rock", "flower", "tuft", "flower"),
    ),
}


def backdrop(rng: np.random.Generator, size: int, light: int) -> Canvas:
    """Return a canvas of `size` x `size` pixels with a landscape on it, owned by nobody."""
    place_name = tuple(PLACES)[int(rng.integers(len(PLACES)))]
    scene = PLACES[place_name]
    horizon = float(rng.uniform(0.34, 0.62))
    canvas = Canvas(_gradients(scene, horizon, size), light)
    for depth in range(int(rng.integers(1, 4))):
        height = rng.uniform(-0.16, 0.02, 7).cumsum() * 0.25
        _ridge(
            canvas,
            height - height.mean() + horizon - 0.07 + 0.045 * depth,
            mix(scene.ridge, scene.sky[1], 0.5 - 0.25 * depth),
            horizon + 0.06,
        )
    _grain(canvas, rng)
    count = int(rng.integers(8, 17))
    depths = np.sort(rng.uniform(0.0, 1.0, count))
    for depth in depths:
        name = scene.clutter[int(rng.integers(len(scene.clutter)))]
        _clutter(canvas, rng, name, scene, horizon, float(depth))
    return canvas


def undergrowth(canvas: Canvas, rng: np.random.Generator, ground: float) -> None:
    """Cover a little of what is painted: blades, a bush or a stone before it. They own it back."""
    plant = PLACES[tuple(PLACES)[int(rng.integers(len(PLACES)))]].plant
    colour = _vary(plant, rng.integers(-26, 27, 4).tolist())
    for _ in range(int(rng.integers(3, 9))):
        x, height = float(rng.uniform(0.05, 0.95)), float(rng.uniform(0.05, 0.13))
        blade = limb(
            [(0, 0), (0.1 * height, -0.6 * height), (0.35 * height, -height)],
            [0.016, 0.012, 0.002],
            2,
        )
        canvas.fill([place(blade, (x, ground + 0.03), lean) for lean in (-0.5, 0.0, 0.45)], colour)
    if rng.random() < 0.4:
        x, wide = float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.06, 0.12))
        for points, tone in bush(x, ground + 0.05, wide):
            canvas.paint(Layer("", points, mix(colour, (255, 255, 255), tone)), 0)


def _gradients(scene: Landscape, horizon: float, size: int) -> np.ndarray:
    """Return sky above the horizon and ground below it, each from one colour to another."""
    levels = (np.arange(size) * 256 + 128) // size
    edge = round(horizon * 256)
    up = np.clip(levels * 256 // edge, 0, 256)[:, None]
    below = np.clip((levels - edge) * 256 // (256 - edge), 0, 256)[:, None]
    sky, ground = np.array(scene.sky), np.array(scene.ground)
    rows = np.where(
        (levels < edge)[:, None],
        sky[0] + ((sky[1] - sky[0]) * up >> 8),
        ground[0] + ((ground[1] - ground[0]) * below >> 8),
    )
    return np.repeat(rows[:, None].astype(np.uint8), size, axis=1)


def _ridge(canvas: Canvas, heights: np.ndarray, colour: Colour, foot: float) -> None:
    tops = [
        (x, float(y)) for x, y in zip(np.linspace(-0.2, 1.2, len(heights)), heights, strict=True)
    ]
    canvas.fill(
        [
            blob(
                (-0.6, foot + 0.1),
                (-0.5, foot - 0.1),
                *tops,
                (1.5, foot - 0.1),
                (1.6, foot + 0.1),
                (0.5, foot + 0.1),
                detail=4,
            )
        ],
        colour,
    )


def _grain(canvas: Canvas, rng: np.random.Generator) -> None:
    """Mottle all that is painted, on three scales."""
    size = canvas.size
    total = np.full((size, size), -7 * 128, np.int16)
    for cells, weight in ((5, 4), (13, 2), (40, 1)):
        noise = rng.integers(0, 256, (cells, cells), dtype=np.uint8)
        smooth = cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
        total += weight * smooth.astype(np.int16)
    gain = (256 + (total >> 4)).astype(np.int32)
    canvas.pixels[...] = np.minimum((canvas.pixels * gain[..., None]) >> 8, 255)


def _vary(colour: Colour, shift: Sequence[int]) -> Colour:
    r, g, b = (min(max(c + shift[3] + s // 2, 0), 255) for c, s in zip(colour, shift, strict=False))
    return r, g, b


def _clutter(
    canvas: Canvas,
    rng: np.random.Generator,
    name: str,
    scene: Landscape,
    horizon: float,
    depth: float,
) -> None:
    """Draw one thing that lies about, larger the nearer (`depth` 0 to 1) it is."""
    x, jitter = float(rng.uniform(-0.05, 1.05)), float(rng.uniform(0.75, 1.3))
    y, s = horizon + 0.02 + (1 - horizon) * depth * 0.95, (0.07 + 0.13 * depth) * jitter
    fade, shift = 0.35 * (1 - depth), rng.integers(-26, 27, 12).tolist()
    plant = _vary(mix(scene.plant, scene.sky[1], fade), shift)
    bark = _vary(mix((104, 76, 58), scene.sky[1], fade), shift[4:])
    stone = _vary(mix((134, 128, 128), scene.ground[1], 0.4), shift[4:])
    bright = _vary((180, 180, 180), [*(6 * by for by in shift[8:11]), 0])
    foot = Spot(x, y, s, horizon, jitter, plant, bark, stone, bright, scene.sky[1], rng)
    for points, colour in THINGS[name](foot):
        if name in FLAT or depth < 0.25:
            canvas.fill([points], colour)
        else:
            canvas.paint(Layer("", points, colour, relief=110, line=False), 0)
