"""The picture of a photo under several questions: which concept matters for which question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dff import rendering
from dff.concepts import titles
from dff.explain.photo import Photo
from dff.maps import sharpened
from dff.rendering import BarColumn, Legend, LegendEntry
from dff.scoring import Contributions

__all__ = ["Column", "answers_panel"]

SIDE = 420
"""Of a photo as it is drawn, in pixels at least."""
ACROSS = 3
"""Pictures in a row, at most."""
LEAST_OPACITY = 0.04
BEHIND = 0.5
"""Opacity, among all concepts, of those that speak for no answer."""
IMAGE_WEIGHT = 0.35
MARGIN, PAPER = 14, 255


@dataclass(frozen=True, eq=False)
class Column:
    """What is drawn of an answer.

    Attributes:
        question: as it was asked.
        answer: its name.
        probability: in [0, 1].
        split: contributions to its logit, one target.
    """

    question: str
    answer: str
    probability: float
    split: Contributions

    @property
    def opacities(self) -> np.ndarray:
        """(k,) in [0, 1]: how much each concept speaks for the answer, of the most."""
        positive = self.split.values[0].clamp_min(0).numpy()
        shares = positive / max(float(positive.max()), 1e-12)
        return np.where(shares < LEAST_OPACITY, 0, shares)


def answers_panel(photo: Photo, columns: Sequence[Column]) -> Image.Image:
    """Draw the photo's concepts, then the photo under each answer, a legend with bars beside.

    Under an answer a concept is the stronger painted the more it contributes to it.

    Args:
        photo: in the concepts that the answers share.
        columns: the answers; each question's first one is drawn on the photo, all as bars.
    """
    pixels = _enlarged(photo.picture.pixels)
    size = (pixels.shape[0], pixels.shape[1])
    maps = sharpened(photo.heatmaps(size), pixels, radius=max(1, round(size[0] / photo.grid.rows)))
    colors = photo.bank.colors
    spoken = np.max([column.opacities for column in columns], 0)
    everything = rendering.overlay(
        pixels, maps, colors=colors, image_weight=IMAGE_WEIGHT,
        opacities=np.where(spoken > 0, 1.0, BEHIND).tolist(),
    )  # fmt: skip
    everything = rendering.number_concepts(everything, maps, colors=colors)
    tiles = [(f"{len(colors)} concepts", everything)]
    first = {column.question: column for column in reversed(columns)}
    for question in dict.fromkeys(column.question for column in columns):
        column = first[question]
        painted = rendering.overlay(
            pixels, maps, colors=colors, image_weight=IMAGE_WEIGHT,
            opacities=column.opacities.tolist(),
        )  # fmt: skip
        tiles.append((f"{question.rstrip('? ')}? {column.answer}", painted))
    return _arranged(tiles, _legend(photo, columns, pixels, maps))


def _arranged(tiles: list[tuple[str, np.ndarray]], legend: Legend) -> Image.Image:
    """Set the pictures in rows, and the legend at their right."""
    if len(tiles) <= ACROSS:
        return rendering.panel(tiles, legend=legend)
    across = -(-len(tiles) // -(-len(tiles) // ACROSS))
    rows = [
        np.asarray(rendering.panel(tiles[i : i + across])) for i in range(0, len(tiles), across)
    ]
    width = max(row.shape[1] for row in rows)
    rows = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=PAPER)
        for row in rows
    ]
    sheet = np.concatenate(rows)
    aside = np.asarray(rendering.legend(legend, height=sheet.shape[0] - 2 * MARGIN))
    height = max(len(sheet), len(aside) + 2 * MARGIN)
    below, under = height - len(sheet), height - len(aside) - MARGIN
    sheet = np.pad(sheet, ((0, below), (0, 0), (0, 0)), constant_values=PAPER)
    aside = np.pad(aside, ((MARGIN, under), (0, MARGIN), (0, 0)), constant_values=PAPER)
    return Image.fromarray(np.concatenate([sheet, aside], 1))


def _legend(
    photo: Photo, columns: Sequence[Column], pixels: np.ndarray, maps: np.ndarray
) -> Legend:
    bank, shares = photo.bank, photo.shares.tolist()
    entries = [
        LegendEntry(bank.colors[k], name, share, [], rendering.crop_around(pixels, maps[k]), k + 1)
        for k, (name, share) in enumerate(zip(titles(bank.names), shares, strict=True))
    ]
    bars = [
        BarColumn(
            f"{column.answer} {column.probability:.2f}",
            column.split.values[0].tolist(),
            about=column.question,
            addends=[("the rest", float(column.split.rest[0] + column.split.gap[0]))],
            total=("logit", float(column.split.logit[0])),
        )
        for column in columns
    ]
    return Legend(entries, [("concept", "share of activations")], bars)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    if min(height, width) >= SIDE:
        return pixels
    factor = SIDE / min(height, width)
    return rendering.fit(pixels, round(factor * height), round(factor * width))
