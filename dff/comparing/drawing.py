"""The panel: a row a method, a column a class, the photo and what colours mean at the left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import zip_longest

import numpy as np
from PIL import Image

from dff import attributions
from dff.comparing.names import CONCEPT_PIXELS, CONCEPTS
from dff.comparing.records import MethodRow, PhotoRows
from dff.labels import short_name
from dff.maps import upsample
from dff.rendering import LegendEntry, fit, overlay, text
from dff.rendering.attributions import Look, color_bar, draw_attribution, scale_of
from dff.rendering.entries import draw_entry

__all__ = ["draw_panel"]

SCREEN = 1.6  # width : height
EMPTY = 2.0  # how much worse a sheet is the more of it stays empty
WIDEST, LARGEST, SMALLEST = 1700, 230, 130
MARGIN, GAP, APART = 14, 6, 26
SIZE, SMALL = 15, 13
PAPER = 255

MEANING = (
    "concepts: each in its colour, as strong as what it adds to the class; maps: red for the class "
    "(or for the concept), blue against it; misses: what the sum lacks of the score"
)


def draw_panel(blocks: Sequence[PhotoRows], look: Look | None = None) -> Image.Image:
    """Draw blocks (a photo by a model each) in one panel, near to a screen's proportions."""
    several = len({block.model for block in blocks}) > 1
    drawn = [_Block(block, look, several) for block in blocks]
    content = sum(block.content for block in drawn)
    sheet = min(
        (
            _tiled([block.drawn(inner) for block in drawn], across)
            for inner in range(1, max(len(block.groups) for block in drawn) + 1)
            for across in range(1, len(drawn) + 1)
        ),
        key=lambda sheet: _untidiness(sheet, content),
    )
    return Image.fromarray(
        np.pad(sheet, ((MARGIN,) * 2, (MARGIN,) * 2, (0, 0)), constant_values=PAPER)
    )


def _untidiness(sheet: np.ndarray, content: int) -> float:
    """Return how far a sheet is from a full screen: by its proportions, and by what is empty."""
    height, width = sheet.shape[:2]
    return abs(math.log(width / height / SCREEN)) + EMPTY * (1 - content / (width * height))


def _tiled(pictures: Sequence[np.ndarray], across: int) -> np.ndarray:
    """Set pictures in rows of so many."""
    rows = [_beside(pictures[i : i + across]) for i in range(0, len(pictures), across)]
    width = max(row.shape[1] for row in rows)
    gap = _paper(APART, width)
    padded = [part for row in rows for part in (gap, _padded(row, row.shape[0], width))]
    return np.concatenate(padded[1:])


def _beside(pictures: Sequence[np.ndarray], gap: int = APART) -> np.ndarray:
    height = max(picture.shape[0] for picture in pictures)
    between = _paper(height, gap)
    parts = [part for one in pictures for part in (between, _padded(one, height, one.shape[1]))]
    return np.concatenate(parts[1:], 1)


def _padded(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    rest = ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))
    return np.pad(picture, rest, constant_values=PAPER)


def _paper(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), PAPER, np.uint8)


class _Block:
    """One photo by one model: at the left the photo and a legend, then groups of tiles."""

    def __init__(self, block: PhotoRows, look: Look | None, with_model: bool) -> None:
        self.block, self.look, self.with_model = block, look, with_model
        pixels = block.photo.picture.pixels
        proportion = float(np.clip(pixels.shape[1] / pixels.shape[0], 1 / 4, 4))
        side = min(LARGEST, max(SMALLEST, WIDEST // (len(block.classes) + 1)))
        high = side / max(1.0, proportion**0.5)
        self.size = (round(high), round(high * proportion))
        self.photo = fit(pixels, *self.size)
        self.heads = [self._head(i) for i in range(len(block.classes))]

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """The tiles of each method, under its name."""
        return [self._group(row) for row in self.block.rows]

    @property
    def content(self) -> int:
        """How many pixels its parts have, without what is empty between them."""
        return sum(part[..., 0].size for part in (self._left, *self.groups))

    def drawn(self, across: int) -> np.ndarray:
        """Draw the block with so many methods beside each other."""
        single = len(self.block.classes) == 1
        body = self._laid(self._left, self.groups, min(across, len(self.groups)))
        title = self.block.photo.picture.name
        title += f" by {self.block.model}" if self.with_model else ""
        title += f": {' '.join(self.heads[0])}" if single else ""
        above = _paper(text.line_height(SIZE + 2) + GAP, body.shape[1])
        text.put(above, title, x=0, y=0, size=SIZE + 2, room=body.shape[1])
        return np.concatenate([above, body])

    def _laid(self, left: np.ndarray, groups: Sequence[np.ndarray], across: int) -> np.ndarray:
        """Set groups in lines of so many, with the classes over the first of each column."""
        lines = [groups[i : i + across] for i in range(0, len(groups), across)]
        widths = [max(g.shape[1] for g in groups[i::across]) for i in range(across)]
        parts = [] if len(self.heads) == 1 else [_beside([self._heads(w) for w in widths], APART)]
        for line in lines:
            level = [_padded(g, g.shape[0], w) for g, w in zip(line, widths, strict=False)]
            parts.append(_beside(level, APART))
        width = max(part.shape[1] for part in parts)
        body = np.concatenate([_padded(part, part.shape[0], width) for part in parts])
        return _beside([left, body], APART)

    @property
    def _head_height(self) -> int:
        return 2 * text.line_height(SIZE) + GAP

    def _head(self, i: int) -> tuple[str, str]:
        score = self.block.classes[i]
        names = self.block.photo.shared.class_names
        return short_name(score.index, names), f"{score.probability:.2f}"

    def _heads(self, width: int) -> np.ndarray:
        canvas = _paper(self._head_height, width)
        step, line = self.size[1] + GAP, text.line_height(SIZE)
        for i, (name, probability) in enumerate(self.heads):
            text.put(canvas, name, x=i * step, y=0, size=SIZE, room=self.size[1])
            text.put(canvas, probability, x=i * step, y=line, size=SIZE, color=text.SOFT)
        return canvas

    def _group(self, row: MethodRow) -> np.ndarray:
        """Draw one method: its name, and a tile for each class."""
        look = self.look or _look(row)
        if row.parts is not None:
            tiles = self._concept_tiles(row)
        else:
            scale = scale_of(list(row.maps), look)
            tiles = [draw_attribution(one, self.photo, look, scale=scale) for one in row.maps]
            if look.style in ("heat_map", "blended_heat_map"):
                tiles.append(color_bar(look, scale, self.size[0], size=SMALL - 2))
        strip = _beside([_captioned(*one) for one in zip_longest(tiles, row.captions)], GAP)
        above = _paper(text.line_height(SIZE) + 2, strip.shape[1])
        text.put(above, row.method, x=0, y=0, size=SIZE, room=strip.shape[1])
        noted, place = _note(row), text.width(row.method, SIZE) + 2 * GAP
        text.put(above, noted, x=place, y=1, size=SMALL, color=text.SOFT,
                 room=max(0, strip.shape[1] - place))  # fmt: skip
        return np.concatenate([above, strip, _paper(2 * GAP, strip.shape[1])])

    def _concept_tiles(self, row: MethodRow) -> list[np.ndarray]:
        """Draw which concepts speak for each class, and where: opacity is what they add there."""
        assert row.parts is not None
        photo = self.block.photo
        maps = [
            np.maximum(upsample(cells, self.size, photo.layer_grid).numpy(), 0)
            for cells in row.parts
        ]
        look = Look(sign="positive")
        scale = scale_of([one for of_class in maps for one in of_class], look) or 1.0
        return [
            overlay(self.photo, np.clip(one / scale, 0, 1).astype(np.float32),
                    colors=photo.bank.colors, image_weight=0.35)
            for one in maps
        ]  # fmt: skip

    @cached_property
    def _left(self) -> np.ndarray:
        """The photo, level with the first tiles, and below it what the colours mean."""
        width, head = self.size[1], self._head_height if len(self.heads) > 1 else 0
        top = _paper(head + text.line_height(SIZE) + 2, width)
        parts = [top, self.photo, _paper(2 * GAP, width)]
        if any(row.method in (CONCEPTS, CONCEPT_PIXELS) for row in self.block.rows):
            for entry in self.block.explanation.legend_entries(top_k=1):
                parts.append(_entry(entry, width))
        lines = text.wrapped(MEANING, SMALL, width, lines=6)
        step = text.line_height(SMALL)
        said = _paper(len(lines) * step, width)
        for i, line in enumerate(lines):
            text.put(said, line, x=0, y=i * step, size=SMALL, color=text.SOFT)
        return np.concatenate([*parts, said])


def _captioned(tile: np.ndarray, caption: str | None) -> np.ndarray:
    """Set what a tile is of below it; a tile that is of its column's class stays as it is."""
    if not caption:
        return tile
    below = _paper(text.line_height(SMALL), tile.shape[1])
    text.put(below, caption, x=0, y=0, size=SMALL, color=text.SOFT, room=tile.shape[1])
    return np.concatenate([tile, below])


def _entry(entry: LegendEntry, width: int) -> np.ndarray:
    canvas = _paper(entry.rows * text.line_height(SMALL) + GAP, width)
    draw_entry(canvas, entry, x=0, y=0, size=SMALL, room=width)
    return canvas


def _look(row: MethodRow) -> Look:
    """Return how a row is drawn by default: single pixels by themselves, cells over the photo."""
    name = row.settings["of"] if row.method == CONCEPT_PIXELS else row.method
    known = attributions.METHODS.get(name)
    fine = known is not None and not known.layer and known.gradients
    sign = "all" if row.maps.min() < 0 else "positive"
    return Look("heat_map" if fine else "blended_heat_map", sign)


def _note(row: MethodRow) -> str:
    """Say what a row's sums miss, in logits, and how long it took."""
    missed = f"misses {max(map(abs, row.delta)):.2g}" if row.delta else ""
    missed = "misses 0" if row.delta and max(map(abs, row.delta)) < 5e-4 else missed
    took = f"{row.seconds:.1f} s" if row.seconds >= 0.1 else ""
    return ", ".join(part for part in (missed, took) if part)
