"""Shift-and-stitch: a layer's grid made N times as fine, every cell of it a true activation.

A layer of stride s has a cell every s pixels. On the input shifted by d pixels, its cells lie d
pixels further on in the photo. Shifts by 0, s/N, …, (N - 1)·s/N along both axes, interleaved, are
the cells of stride s/N (Long, Shelhamer & Darrell 2015, section 3.2; Sermanet et al. 2014). For a
convolution they are exactly those of the same kernel at that stride; a transformer sees each
shifted photo as a whole.

The first and the last cell stay where they are, so that all cells lie over the photo: those of a
shift that would follow the last cell are dropped. What is shifted in from beyond the photo's
border, as context, is the photo reflected. Shifts are whole pixels and nothing is interpolated:
where N does not divide s, a cell lies up to half a pixel beside its place in the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from dff.activations.memory import stored_like
from dff.maps import Grid

__all__ = ["stitched"]


def stitched(
    maps: Tensor, x: Tensor, grid: Grid, fine: int, run: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return maps on a grid that is `fine` times as fine: see :meth:`dff.maps.Grid.finer`.

    Args:
        maps: (n, channels, rows, cols) of the input as it is; they are among the result.
        x: (n, 3, height, width) the input.
        grid: where the cells of `maps` lie in it.
        fine: N; 1 returns `maps`.
        run: from inputs to maps, both of these shapes; called N² - 1 times.

    Returns:
        (n, channels, N·(rows - 1) + 1, N·(cols - 1) + 1), without a graph.

    Raises:
        UsageError: `fine` is not possible on this grid.
    """
    rows, cols = grid.finer(fine).shape
    if fine == 1:
        return maps
    result = maps.new_empty(*maps.shape[:2], rows, cols)
    down, across = (_shifts(stride, fine) for stride in grid.stride)
    for a, b in product(range(fine), repeat=2):
        cells = run(_shifted(x, down[a], across[b])) if a or b else maps.detach()
        places = result[:, :, a::fine, b::fine]
        places.copy_(cells[:, :, : places.shape[2], : places.shape[3]])
    return result


def _shifts(stride: float, fine: int) -> list[int]:
    """Return the shifts along one axis, in pixels; all differ, as `fine` is at most the stride."""
    return [math.floor(i * stride / fine + 0.5) for i in range(fine)]


def _shifted(images: Tensor, down: int, across: int) -> Tensor:
    """Return what begins at pixel (`down`, `across`) of images, reflected at their end."""
    x = images
    for axis, shift in ((2, down), (3, across)):
        last = x.shape[axis] - 1
        pixels = torch.arange(shift, shift + last + 1, device=x.device)
        x = x.index_select(axis, torch.where(pixels > last, 2 * last - pixels, pixels))
    return stored_like(x, images)
