"""Where the cells of a map lie, and maps brought to a picture's pixels.

A map is an array whose last two axes are rows and columns. NumPy arrays and torch tensors go in,
the same kind comes out, and no argument is changed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch

from dff.errors import UsageError

__all__ = ["Grid", "upsample"]

Array = TypeVar("Array", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Grid:
    """Where the cells of an activation grid lie in the input that produced it.

    Lengths are in input pixels, pixel i covering [i, i + 1). The centre of cell (r, c) lies at
    (``offset[0]`` + r · ``stride[0]``, ``offset[1]`` + c · ``stride[1]``).

    Patch embeddings tile the input, so cell centres lie half a stride inside (:meth:`tiled`,
    what image resizing assumes). Odd kernels with symmetric padding, as in ResNets, put cell 0
    over the first pixel (:meth:`anchored`), TensorFlow's padding at the end puts it a stride
    inside: resizing such maps as if they were tiled shifts them by almost half a stride.

    A cell of a deep layer sees more of the input than lies between it and the next one: within
    ``field`` pixels of its centre lies half of its effective receptive field; None is unknown.
    """

    rows: int
    cols: int
    height: int
    width: int
    stride: tuple[float, float]
    offset: tuple[float, float]
    field: float | None = None

    @classmethod
    def tiled(
        cls, rows: int, cols: int, height: int, width: int, *, field: float | None = None
    ) -> Grid:
        """Cells that tile the input: the geometry of patches and of image resizing."""
        stride = (height / rows, width / cols)
        return cls(rows, cols, height, width, stride, (stride[0] / 2, stride[1] / 2), field)

    @classmethod
    def anchored(
        cls, rows: int, cols: int, height: int, width: int, stride: tuple[float, float],
        *, first: float = 0.5, field: float | None = None,
    ) -> Grid:  # fmt: skip
        """Cells every `stride` pixels from `first` on: by default the first pixel's centre."""
        return cls(rows, cols, height, width, stride, (first, first), field)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.rows, self.cols

    def finer(self, times: int) -> Grid:
        """Return the grid with `times` - 1 cells between neighbours: every cell of this one stays.

        Raises:
            UsageError: `times` is no whole number from 1 on, or more than there are pixels from a
                cell to the next; or there are no neighbours.
        """
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise UsageError(f"fine is a whole number from 1 on, not {times!r}")
        if times == 1:
            return self
        if times > min(self.stride):
            raise UsageError(
                f"the cells lie {min(self.stride):g} pixels apart: a grid {times} times as fine "
                "would have more cells than pixels; choose a smaller fine"
            )
        if min(self.shape) < 2:
            raise UsageError(
                f"the input of {self.height} x {self.width} pixels has a grid of {self.rows} x "
                f"{self.cols} cells: fine puts cells between neighbours; choose a larger size"
            )
        rows, cols = (times * (cells - 1) + 1 for cells in self.shape)
        stride = (self.stride[0] / times, self.stride[1] / times)
        return replace(self, rows=rows, cols=cols, stride=stride)


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
