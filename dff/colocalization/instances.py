"""From maps to instances: strength, coverage, box, peak and mask of each concept in each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dff.colocalization.masks import Runs, largest_component, otsu_levels, runs_above, runs_of
from dff.colocalization.rle import to_rle
from dff.errors import UsageError
from dff.heatmaps import Grid, upsample
from dff.refinement import refine

__all__ = [
    "COLUMNS", "GUIDE_SIDE", "MaskOptions", "annotation", "instances", "masks_of",
    "threshold_levels",
]  # fmt: skip

COLUMNS = (
    "image_id", "concept", "strength", "mean", "coverage", "threshold",
    "x0", "y0", "x1", "y1", "peak_x", "peak_y",
)  # fmt: skip
COMPONENTS = ("largest", "all")
GUIDE_SIDE = 320  # pixels of the longer side at which masks are refined


@dataclass(frozen=True)
class MaskOptions:
    """How maps become masks.

    Attributes:
        threshold: "otsu" (each map's own), or a presence in (0, 1).
        components: "largest" keeps the largest connected part of a mask, "all" all of it.
        refine: follow the photo's edges (a guided filter of the map).
        least: the presence at its peak from which a concept counts as found in an image.
    """

    threshold: float | str = "otsu"
    components: str = "largest"
    refine: bool = False
    least: float = 0.25

    def __post_init__(self) -> None:
        if self.threshold != "otsu" and not (
            isinstance(self.threshold, (int, float)) and 0 < self.threshold < 1
        ):
            raise UsageError(f"threshold is 'otsu' or a number in (0, 1), not {self.threshold!r}")
        if self.components not in COMPONENTS:
            raise UsageError(f"components is 'largest' or 'all', not {self.components!r}")
        if not 0 < self.least <= 1:
            raise UsageError(f"the least presence lies in (0, 1], not {self.least!r}")


def instances(
    image: int,
    maps: np.ndarray,
    grid: Grid,
    size: tuple[int, int],
    thresholds: np.ndarray,
    options: MaskOptions,
    *,
    guide: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], list[tuple[int, Runs]]]:
    """Return the rows of one image, a value a concept in each column, and the masks found.

    Args:
        image: its id.
        maps: (k, h, w) float32 coefficients in units of full presence; they may exceed 1.
        grid: where the cells lie.
        size: (height, width) of the photo in pixels.
        thresholds: (k,) as :func:`threshold_levels` gives them.
        options: how maps become masks.
        guide: uint8 photo (height, width, 3) of any size, to refine the masks with.
    """
    count, _, cols = maps.shape
    height, width = size
    flat = maps.reshape(count, -1)
    strength, where = flat.max(1), flat.argmax(1)
    found = np.flatnonzero(strength >= options.least)
    row, col = where // cols, where % cols
    boxes = np.full((count, 4), -1, np.int32)
    coverage = np.zeros(count, np.float32)
    masks = []
    if len(found):
        shown = np.clip(maps[found], 0, 1)
        runs = masks_of(shown, thresholds[found], grid, size, options, guide=guide)
        for k, one in zip(found.tolist(), runs, strict=True):
            box = one.box
            if box is not None:
                boxes[k] = box
                coverage[k] = one.area / (height * width)
                masks.append((k, one))
    return {
        "image_id": np.full(count, image, np.int64),
        "concept": np.arange(1, count + 1, dtype=np.int32),
        "strength": strength,
        "mean": flat.mean(1),
        "coverage": coverage,
        "threshold": thresholds.astype(np.float32),
        **{name: boxes[:, i] for i, name in enumerate(("x0", "y0", "x1", "y1"))},
        "peak_x": _pixels(grid.offset[1] + col * grid.stride[1], grid.width, width),
        "peak_y": _pixels(grid.offset[0] + row * grid.stride[0], grid.height, height),
    }, masks


def _pixels(position: np.ndarray, length: int, pixels: int) -> np.ndarray:
    return np.clip(position * pixels / length, 0, pixels).astype(np.float32)


def threshold_levels(maps: np.ndarray, grid: Grid, options: MaskOptions) -> np.ndarray:
    """Return the threshold (m,) of each map (m, h, w), clipped to [0, 1] by this function."""
    if isinstance(options.threshold, str):
        return otsu_levels(np.clip(maps, 0, 1), grid)
    return np.full(len(maps), float(options.threshold))


def masks_of(
    maps: np.ndarray,
    thresholds: np.ndarray,
    grid: Grid,
    size: tuple[int, int],
    options: MaskOptions,
    *,
    guide: np.ndarray | None = None,
) -> list[Runs]:
    """Return the masks of maps (m, h, w) in [0, 1] at a photo's (height, width)."""
    if guide is None:
        runs = runs_above(maps, thresholds, grid, size)
    else:
        runs = _refined(maps, thresholds, grid, size, guide)
    return [largest_component(r) for r in runs] if options.components == "largest" else runs


def _refined(
    maps: np.ndarray, thresholds: np.ndarray, grid: Grid, size: tuple[int, int], guide: np.ndarray
) -> list[Runs]:
    scale = min(1.0, GUIDE_SIDE / max(size))
    small = max(2, round(size[0] * scale)), max(2, round(size[1] * scale))
    photo = cv2.resize(guide, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    drawn = upsample(maps.astype(np.float32), small, grid)
    cell = max(small[0] / grid.rows, small[1] / grid.cols)
    smooth = refine(drawn, photo, radius=max(1, round(1.25 * cell)))
    return [
        runs_of(cv2.resize(one, (size[1], size[0])) > max(float(limit), 1e-6))
        for one, limit in zip(smooth, thresholds, strict=True)
    ]


def annotation(image: int, concept: int, count: int, score: float, runs: Runs) -> dict[str, Any]:
    """Return one annotation in COCO's format; `concept` counts from 0, its category from 1."""
    box = runs.box
    assert box is not None
    x0, y0, x1, y1 = box
    return {
        "id": image * count + concept + 1,
        "image_id": image,
        "category_id": concept + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": runs.area,
        "iscrowd": 0,
        "score": round(score, 4),
        "segmentation": to_rle(runs),
    }
