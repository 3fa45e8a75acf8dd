"""From maps to masks and boxes: of one picture's heatmaps, and of grids at photos' own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dff.errors import UsageError
from dff.maps.colours import weighed
from dff.maps.edges import guided, refine
from dff.maps.grid import Grid, upsample
from dff.maps.runs import Runs, largest_component, runs_above, runs_of
from dff.maps.sizes import fitted, within
from dff.maps.thresholds import minimum_error, otsu

__all__ = ["GUIDE_SIDE", "MaskOptions", "box_of", "masks_of", "window_radius"]

Box = tuple[int, int, int, int]
COMPONENTS = ("largest", "all")
THRESHOLDS = ("auto", "otsu", "peak")
GUIDE_SIDE = 320  # pixels of the longer side at which masks are refined
SHARE = 0.4  # of a map's own peak, under threshold="peak"
LATTICE = 4  # points a cell, along each axis, at which histograms are taken
COARSE_SIDE = 160  # where it is found out what colours and far edges say: a quarter of the time
LAST = 20  # the longer side of a photo over the radius in which its masks follow edges, last
OWN = 0.25  # the weight of a map's own cells beside its edges: colours alike far away do not count
FIELDS, CELLS = 2.5, 1.5  # radius of the windows, in receptive fields, and at least in cells


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
        threshold: "auto": each map's own (:func:`dff.maps.minimum_error`); "otsu": Otsu's, which is
            lower; "peak": 0.4 of each map's peak, which is tighter, for small things and parts; or
            a presence in (0, 1).
        components: "largest" keeps the largest connected part of a mask, "all" all of it.
        refine: follow the photo's edges (:func:`dff.maps.refine`, in windows of the size of what a
            cell sees) and weigh its colours (``dff/maps/colours.py``). On photos of horses it is
            worth 0.2 of IoU for convolutional networks and 0.08 for a transformer
            (``benchmarks/real_masks.py``).
        least: the presence at its peak from which a concept counts as found in an image.
    """

    threshold: float | str = "auto"
    components: str = "largest"
    refine: bool = True
    least: float = 0.25

    def __post_init__(self) -> None:
        if self.threshold not in THRESHOLDS and not (
            isinstance(self.threshold, (int, float)) and 0 < self.threshold < 1
        ):
            raise UsageError(
                f"threshold is 'auto', 'otsu', 'peak' or a number in (0, 1), not {self.threshold!r}"
            )
        if self.components not in COMPONENTS:
            raise UsageError(f"components is 'largest' or 'all', not {self.components!r}")
        if not 0 < self.least <= 1:
            raise UsageError(f"the least presence lies in (0, 1], not {self.least!r}")


def masks_of(
    maps: np.ndarray,
    grid: Grid,
    size: tuple[int, int],
    options: MaskOptions,
    *,
    guide: np.ndarray | None = None,
) -> tuple[list[Runs], np.ndarray]:
    """Return the masks of maps (m, h, w), clipped to [0, 1], at a photo's (height, width).

    The mask of a map whose peak does not reach ``options.least`` is empty: nothing is there.

    Args:
        maps: presences at the cells.
        grid: where the cells lie, and what they see.
        size: of the photo, in pixels.
        options: how maps become masks; without a `guide` they are not refined.
        guide: uint8 photo (height, width, 3) of any size, to refine the maps with.

    Returns:
        The masks, and the threshold (m,) of each.
    """
    absent = maps.max((1, 2)) < options.least
    clipped = np.clip(maps, 0, 1).astype(np.float32)
    clipped[absent] = 0
    if options.refine and guide is not None:
        runs, thresholds = _refined(clipped, grid, size, options, guide)
    else:
        points = (grid.rows * LATTICE, grid.cols * LATTICE)
        thresholds = _thresholds(upsample(clipped, points, grid), options)
        runs = runs_above(clipped, thresholds, grid, size)
    if options.components == "largest":
        runs = [largest_component(r) for r in runs]
    return runs, thresholds


def _thresholds(drawn: np.ndarray, options: MaskOptions) -> np.ndarray:
    if options.threshold == "peak":
        return SHARE * drawn.max((1, 2))
    if isinstance(options.threshold, str):
        return otsu(drawn) if options.threshold == "otsu" else minimum_error(drawn)
    return np.full(len(drawn), float(options.threshold))


def _refined(
    maps: np.ndarray, grid: Grid, size: tuple[int, int], options: MaskOptions, guide: np.ndarray
) -> tuple[list[Runs], np.ndarray]:
    """Return what :func:`masks_of` does, by the guide: edges, a threshold, colours, edges."""
    large, small = (
        within(size, min(side, max(size)), least=2) for side in (GUIDE_SIDE, COARSE_SIDE)
    )
    picture = fitted(guide, large)
    seen = fitted(picture, small)
    drawn = upsample(maps, small, grid)
    edged = refine(drawn, seen, radius=window_radius(grid, small))
    edged = edged ** (1 - OWN) * drawn**OWN
    thresholds = _thresholds(edged, options)
    likely = guided(weighed(edged, thresholds, seen), picture, radius=max(1, max(large) // LAST))
    likely[edged.max((1, 2)) <= 0] = 0
    return [runs_of(fitted(one, size, way="linear") > 0.5) for one in likely], thresholds


def window_radius(grid: Grid, size: tuple[int, int]) -> int:
    """Return the radius in pixels of the windows that maps are refined in, at a photo's size.

    A window is about what a cell sees: the value of a cell says that something lies within its
    receptive field, and the photo's edges say where in it.
    """
    cell = max(size[0] / grid.rows, size[1] / grid.cols)
    seen = (grid.field or 0.0) * max(size) / max(grid.height, grid.width)
    return max(1, round(max(CELLS * cell, FIELDS * seen)))
