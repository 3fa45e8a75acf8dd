"""The drawing call of pytorch-grad-cam's concept tutorial, with its signature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dff.errors import UsageError
from dff.maps import fitted
from dff.rendering import LegendEntry, legend, overlay
from dff.rendering.entries import Line
from dff.rendering.palette import Colors, as_colors

__all__ = ["show_factorization_on_image"]


def show_factorization_on_image(
    img: np.ndarray,
    explanations: np.ndarray,
    colors: Colors | None = None,
    image_weight: float = 0.5,
    concept_labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw concepts over a photo, and a legend at its right if there are labels.

    Args:
        img: floating point (height, width, 3) in [0, 1], RGB.
        explanations: floating point (k, height, width) in [0, 1]; not changed.
        colors: k colours, RGB or RGBA, floating point in [0, 1] or 0..255; default: the palette.
        image_weight: how much of the photo shows where a concept is wholly present.
        concept_labels: k texts, of one line or more; a line "name:score" has its score aligned.

    Returns:
        uint8 (height, width + the legend's width, 3), RGB.

    Raises:
        UsageError: an argument of wrong shape, type or range.
    """
    photo = _photo(img)
    maps = np.asarray(explanations)
    result = overlay(photo, maps, colors=colors, image_weight=image_weight)
    if concept_labels is None:
        return result
    if len(concept_labels) != len(maps):
        raise UsageError(
            f"there are {len(maps)} concepts, but {len(concept_labels)} labels; give one for each"
        )
    table = as_colors(colors, len(maps))
    entries = [
        LegendEntry(color, "", None, _lines(label))
        for color, label in zip(table, concept_labels, strict=True)
    ]
    return np.hstack((result, _as_tall(entries, result.shape[0])))


def _photo(img: np.ndarray) -> np.ndarray:
    img = np.asarray(img)
    if img.dtype.kind != "f" or img.ndim != 3 or img.shape[2] != 3:
        raise UsageError(
            "img is floating point (height, width, 3) in [0, 1], "
            f"not {img.dtype} of shape {img.shape}; divide 8-bit pixels by 255"
        )
    low, high = (float(img.min()), float(img.max())) if img.size else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise UsageError(f"img lies in [0, 1], but came in [{low:.4g}, {high:.4g}]")
    return np.clip(img * 255 + 0.5, 0, 255).astype(np.uint8)


def _lines(label: str) -> list[Line]:
    """Split a label at its newlines, and each line at its last colon if a number follows."""
    lines: list[Line] = []
    for line in str(label).split("\n"):
        name, colon, score = line.rpartition(":")
        try:
            float(score)
        except ValueError:
            colon = ""
        lines.append((name, score) if colon else line)
    return lines


def _as_tall(entries: Sequence[LegendEntry], height: int) -> np.ndarray:
    """Draw a legend exactly as high as the picture, reduced if even small text is higher."""
    drawn = np.asarray(legend(entries, height=height, smallest=9))
    if drawn.shape[0] == height:
        return drawn
    width = max(1, round(drawn.shape[1] * height / drawn.shape[0]))
    return fitted(drawn, (height, width))
