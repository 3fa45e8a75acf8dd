"""From maps to masks and boxes: of one picture's heatmaps, and of grids at photos' own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dff.errors import UsageError
from dff.maps.edges import refine
from dff.maps.grid import Grid, upsample
from dff.maps.runs import Runs, largest_component, runs_above, runs_of
from dff.maps.sizes import fitted, within
from dff.maps.thresholds import near_peak, otsu

__all__ = [
    "GUIDE_SIDE", "MaskOptions", "box_of", "concept_masks", "masks_of", "threshold_levels",
]  # fmt: skip

Box = tuple[int, int, int, int]
FIELD = 1 / 9
"""About a receptive field at the last grid, as a part of the long side."""
SHARE, PRESENT = 0.45, 0.1
COMPONENTS = ("largest", "all")
GUIDE_SIDE = 320  # pixels of the longer side at which masks are refined
LATTICE = 4  # points a cell, along each axis, at which Otsu's histogram is taken


def concept_masks(
    heatmaps: np.ndarray, picture: np.ndarray, *, radius: int | None = None
) -> np.ndarray:
    """Return where each concept is in a picture.

    The maps are fitted to the picture's edges (:func:`dff.maps.refine`). A concept is where its
    map is above 0.45 of its peak, if that is above 0.1 of full presence; else it is absent.

    Args:
        heatmaps: (k, h, w) in units of full presence, as large as the picture.
        picture: (h, w, 3) uint8 RGB.
        radius: of the filter, in pixels; None is a ninth of the picture's long side.

    Returns:
        (k, h, w) bool.

    Raises:
        UsageError: maps and picture differ in size.
    """
    radius = radius or max(1, round(max(picture.shape[:2]) * FIELD))
    return near_peak(refine(heatmaps, picture, radius=radius), SHARE, PRESENT)


def box_of(mask: np.ndarray, *, largest: bool = True) -> Box | None:
    """Return the box (x0, y0, x1, y1) around a mask, half-open, in pixels; None if it is empty.

    With `largest`, around its largest 8-connected component, else around all of it.
    """
    mask = np.asarray(mask, dtype=bool)
    if not mask.any():
        return None
    if largest:
        stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2]
        x, y, w, h = (int(v) for v in stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))][:4])
        return x, y, x + w, y + h
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


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


def threshold_levels(maps: np.ndarray, grid: Grid, options: MaskOptions) -> np.ndarray:
    """Return the threshold (m,) of each map (m, h, w), clipped to [0, 1] by this function."""
    if isinstance(options.threshold, str):
        points = (grid.rows * LATTICE, grid.cols * LATTICE)
        return otsu(upsample(np.clip(maps, 0, 1), points, grid))
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
    small = within(size, min(GUIDE_SIDE, max(size)), least=2)
    photo = fitted(guide, small)
    drawn = upsample(maps.astype(np.float32), small, grid)
    cell = max(small[0] / grid.rows, small[1] / grid.cols)
    smooth = refine(drawn, photo, radius=max(1, round(1.25 * cell)))
    return [
        runs_of(fitted(one, size, way="linear") > max(float(limit), 1e-6))
        for one, limit in zip(smooth, thresholds, strict=True)
    ]
