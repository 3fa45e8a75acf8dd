"""The one home of heatmap arithmetic: presence, normalisation, upsampling, masks and boxes.

A heatmap is an array whose last two axes are rows and columns. NumPy arrays and torch tensors
go in, the same kind comes out, and no argument is changed.

- :class:`Grid`: where the cells of an activation grid lie in the model's input.
- :func:`presence`: coefficients to heatmaps in [0, 1] that compare across images.
- :func:`rescale`: a map to its own full range, for display.
- :func:`upsample`: grid cells to pixels, exactly where the cells look.
- :func:`otsu`, :func:`binarize`, :func:`near_peak`, :func:`box_of`: maps to masks and boxes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch

from dff.errors import UsageError

__all__ = ["Grid", "binarize", "box_of", "near_peak", "otsu", "presence", "rescale", "upsample"]

Array = TypeVar("Array", np.ndarray, torch.Tensor)
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Grid:
    """Where the cells of an activation grid lie in the input that produced it.

    Lengths are in input pixels, pixel i covering [i, i + 1). The centre of cell (r, c) lies at
    (``offset[0]`` + r · ``stride[0]``, ``offset[1]`` + c · ``stride[1]``).

    Patch embeddings tile the input, so cell centres lie half a stride inside (:meth:`tiled`,
    what image resizing assumes). Odd kernels with symmetric padding, as in ResNets, put cell 0
    over the first pixel (:meth:`anchored`): resizing such a map as if it were tiled shifts it by
    almost half a stride.
    """

    rows: int
    cols: int
    height: int
    width: int
    stride: tuple[float, float]
    offset: tuple[float, float]

    @classmethod
    def tiled(cls, rows: int, cols: int, height: int, width: int) -> Grid:
        """Cells that tile the input: the geometry of patches and of image resizing."""
        stride = (height / rows, width / cols)
        return cls(rows, cols, height, width, stride, (stride[0] / 2, stride[1] / 2))

    @classmethod
    def anchored(
        cls, rows: int, cols: int, height: int, width: int, stride: tuple[float, float]
    ) -> Grid:
        """Cells every `stride` pixels from the first pixel's centre on: odd, padded kernels."""
        return cls(rows, cols, height, width, stride, (0.5, 0.5))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols


def presence(coefficients: Array, full: Array) -> Array:
    """Return how present each concept is: coefficient / full presence, clipped to [0, 1].

    Args:
        coefficients: (n, k, h, w) or (k, h, w), non-negative or signed (negative reads as 0).
        full: (k,) the coefficient at which a concept counts as wholly present; where it is 0 the
            concept never occurs, and its map is 0.
    """
    if isinstance(coefficients, torch.Tensor):
        scale = torch.as_tensor(full, dtype=coefficients.dtype, device=coefficients.device)
        inverse = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
        return (coefficients * inverse[:, None, None]).clamp_(0, 1)
    scale = np.asarray(full, dtype=coefficients.dtype)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(coefficients * inverse[:, None, None], 0, 1)


def rescale(maps: Array) -> Array:
    """Stretch every map (..., h, w) to [0, 1] by its own minimum and maximum, for display only.

    A constant map carries no place, so it becomes all zeros.
    """
    if isinstance(maps, torch.Tensor):
        low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
        span = high - low
        return torch.where(span > 0, (maps - low) / span.clamp_min(1e-12), 0.0)
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    span = high - low
    return np.where(span > 0, (maps - low) / np.maximum(span, 1e-12), 0).astype(maps.dtype)


def upsample(maps: Array, size: tuple[int, int], grid: Grid | None = None) -> Array:
    """Interpolate maps linearly from grid cells to the pixels of a picture.

    The picture shows exactly what the model's input shows (the whole photo, resized), at any
    size. Cells are placed where `grid` says, and beyond the outermost cells the map stays
    constant. Values stay within the range of the input.

    Args:
        maps: (..., h, w) floating point.
        size: (height, width) of the picture in pixels.
        grid: geometry of the cells; None means tiles, which equals common image resizing.

    Returns:
        (..., height, width), same kind, dtype and device as `maps`.

    Raises:
        UsageError: `grid` has another shape than the maps, or `size` is not positive.
    """
    height, width = size
    rows, cols = int(maps.shape[-2]), int(maps.shape[-1])
    if height < 1 or width < 1 or rows < 1 or cols < 1:
        raise UsageError(f"cannot resize a map of {rows} x {cols} to {height} x {width} pixels")
    if grid is None:
        grid = Grid.tiled(rows, cols, rows, cols)
    if grid.shape != (rows, cols):
        raise UsageError(f"the grid is {grid.shape}, but the maps are {rows} x {cols}")
    down = _weights(height, rows, grid.height, grid.stride[0], grid.offset[0])
    across = _weights(width, cols, grid.width, grid.stride[1], grid.offset[1])
    if isinstance(maps, torch.Tensor):
        rows_to_pixels, cols_to_pixels = (
            torch.tensor(side, dtype=maps.dtype, device=maps.device) for side in (down, across)
        )
        return rows_to_pixels @ (maps @ cols_to_pixels.T)
    return down.astype(maps.dtype) @ (maps @ across.astype(maps.dtype).T)


@functools.lru_cache(maxsize=64)
def _weights(pixels: int, cells: int, length: int, stride: float, offset: float) -> np.ndarray:
    """Return the (pixels, cells) matrix of linear interpolation along one axis."""
    centres = (np.arange(pixels) + 0.5) * (length / pixels)
    position = np.clip((centres - offset) / stride, 0, cells - 1)
    left = np.minimum(position.astype(int), max(cells - 2, 0))
    share = position - left
    weights = np.zeros((pixels, cells))
    weights[np.arange(pixels), left] = 1 - share
    weights[np.arange(pixels), np.minimum(left + 1, cells - 1)] += share
    weights.setflags(write=False)
    return weights


def otsu(heatmap: np.ndarray) -> float:
    """Return Otsu's threshold of a map in [0, 1]: the split with the least variance inside.

    Source: Otsu, "A threshold selection method from gray-level histograms", 1979.
    """
    levels = np.clip(np.asarray(heatmap, dtype=np.float32) * 255 + 0.5, 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return float(level) / 255


def binarize(heatmap: np.ndarray, threshold: float | str = "otsu") -> np.ndarray:
    """Return the boolean mask (h, w) of a map in [0, 1] above `threshold` (a number or "otsu").

    Pixels of value 0 are never inside, so an absent concept has an empty mask.
    """
    if isinstance(threshold, str):
        if threshold != "otsu":
            raise UsageError(f"threshold must be a number in [0, 1] or 'otsu', not {threshold!r}")
        threshold = otsu(heatmap)
    return (np.asarray(heatmap) > threshold) & (np.asarray(heatmap) > 0)


def near_peak(maps: np.ndarray, share: float, least: float = 0.0) -> np.ndarray:
    """Return where each map (..., h, w) is above a share of its own peak, as a boolean array.

    A map whose peak is not above `least` has an empty mask: its concept is absent.
    """
    peaks = maps.max((-2, -1), keepdims=True)
    return np.asarray((maps > share * peaks) & (peaks > least))


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
