"""From maps to instances: strength, coverage, box, peak and mask of each concept in each image."""

from __future__ import annotations

from typing import Any

import numpy as np

from dff.maps import Grid
from dff.maps.masks import MaskOptions, masks_of
from dff.maps.rle import to_rle
from dff.maps.runs import Runs

__all__ = ["COLUMNS", "annotation", "instances"]

COLUMNS = (
    "image_id", "concept", "strength", "mean", "coverage", "threshold",
    "x0", "y0", "x1", "y1", "peak_x", "peak_y",
)  # fmt: skip


def instances(
    image: int,
    maps: np.ndarray,
    grid: Grid,
    size: tuple[int, int],
    options: MaskOptions,
    *,
    fine: int = 1,
    guide: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], list[tuple[int, Runs]]]:
    """Return the rows of one image, a value a node in each column, and the masks found.

    Args:
        image: its id.
        maps: (nodes, h, w) float32 coefficients in units of full presence; they may exceed 1.
        grid: where the cells lie.
        size: (height, width) of the photo in pixels.
        options: how maps become masks.
        fine: every so many cells along each axis is one of the layer's own. Over these goes the
            mean, which contributions to the logits are made of.
        guide: uint8 photo (height, width, 3) of any size, to refine the masks with.
    """
    count, _, cols = maps.shape
    height, width = size
    flat = maps.reshape(count, -1)
    strength, where = flat.max(1), flat.argmax(1)
    row, col = where // cols, where % cols
    boxes = np.full((count, 4), -1, np.int32)
    coverage = np.zeros(count, np.float32)
    masks = []
    runs, thresholds = masks_of(maps, grid, size, options, guide=guide)
    for k, mask in enumerate(runs):
        box = mask.box
        if box is not None:
            boxes[k] = box
            coverage[k] = mask.area / (height * width)
            masks.append((k, mask))
    return {
        "image_id": np.full(count, image, np.int64),
        "concept": np.arange(1, count + 1, dtype=np.int32),
        "strength": strength,
        "mean": maps[:, ::fine, ::fine].reshape(count, -1).mean(1),
        "coverage": coverage,
        "threshold": thresholds.astype(np.float32),
        **{name: boxes[:, i] for i, name in enumerate(("x0", "y0", "x1", "y1"))},
        "peak_x": _pixels(grid.offset[1] + col * grid.stride[1], grid.width, width),
        "peak_y": _pixels(grid.offset[0] + row * grid.stride[0], grid.height, height),
    }, masks


def _pixels(position: np.ndarray, length: int, pixels: int) -> np.ndarray:
    return np.clip(position * pixels / length, 0, pixels).astype(np.float32)


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
