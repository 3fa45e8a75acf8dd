"""How the cells of a grid lie over the input, and how much of it each sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dff.activations.layers.centres import centres
from dff.maps import Grid

__all__ = ["Geometry", "geometry"]


@dataclass(frozen=True)
class Geometry:
    """What stays the same at every input size.

    Attributes:
        stride: from one cell to the next, in pixels; None for cells that tile the input, whatever
            its size (see :class:`dff.maps.Grid`).
        first: where cell 0 has its middle, in pixels, along either axis; where there is a stride.
        field: radius in pixels around the centre of what a cell sees, within which half of the
            effective receptive field lies; None where it is not known.
    """

    stride: float | None = None
    first: float = 0.5
    field: float | None = None

    def grid(self, rows: int, cols: int, input_size: tuple[int, int]) -> Grid:
        """Return where the cells lie in an input of (height, width)."""
        height, width = input_size
        if self.stride is None:
            return Grid.tiled(rows, cols, height, width, field=self.field)
        stride = (self.stride, self.stride)
        return Grid.anchored(rows, cols, height, width, stride, first=self.first, field=self.field)


def geometry(maps: Tensor, inputs: Tensor) -> Geometry:
    """Return the geometry of `maps` (1, channels, rows, cols), which have a graph to `inputs`.

    Of a clip, `maps` are those of one of its grids.

    Where cells lie follows from the kernels, strides and paddings before them (see ``centres``).
    What they see is the effective receptive field (Luo et al. 2016, section 2): the squared
    gradient of a random mixture of a cell's channels, for cells near the middle. Of a network whose
    steps are not all known it also says where cells lie: odd kernels with symmetric padding put
    cell 0 over the first pixel, patches tile the input, and the centroid is nearer to the one
    place or to the other.
    """
    rows, height = int(maps.shape[2]), int(inputs.shape[-2])
    known, stride = centres(maps, inputs), _possible_stride(height, rows)
    asked = stride is not None and known is None
    middle = sorted({rows // 2 - 1, rows // 2}) if asked else [rows // 2]
    fields = [_seen(maps, row, inputs) for row in middle]
    radius = _half_radius(fields[-1])
    if known is not None:
        return Geometry(*known, radius)
    if stride is None:
        return Geometry(field=radius)
    tiled_error = anchored_error = 0.0
    for row, field in zip(middle, fields, strict=True):
        centre = _centroid(field.sqrt().sum(1).square())
        # Of one pixel more than `stride` tiles, height / rows would put both in the same place.
        tiled_error += abs(centre - (row + 0.5) * stride)
        anchored_error += abs(centre - (row * stride + 0.5))
    anchored = anchored_error < tiled_error
    return Geometry(float(stride) if anchored else None, field=radius)


def _seen(maps: Tensor, row: int, inputs: Tensor) -> Tensor:
    """Return the squared gradient (height, width) of a cell in the middle column, float64."""
    signs = torch.randn(maps.shape[1], generator=torch.Generator().manual_seed(2)).to(maps)
    cell = (maps[0, :, row, maps.shape[3] // 2] * signs).sum()
    (gradient,) = torch.autograd.grad(cell, inputs, retain_graph=True)
    return gradient[0].double().square().flatten(0, -3).sum(0)


def _centroid(weight: Tensor) -> float:
    """Return the centroid of weights (length,), in pixels."""
    pixels = torch.arange(len(weight), dtype=torch.float64, device=weight.device) + 0.5
    return float((weight * pixels).sum() / weight.sum().clamp_min(1e-300))


def _half_radius(weight: Tensor) -> float | None:
    """Return the radius of the disc around the centroid that holds half of (height, width)."""
    if not bool(weight.sum() > 0):
        return None
    centre = _centroid(weight.sum(1)), _centroid(weight.sum(0))
    across = [
        torch.arange(length, device=weight.device) + 0.5 - middle
        for length, middle in zip(weight.shape, centre, strict=True)
    ]
    distance, order = torch.hypot(across[0][:, None], across[1]).flatten().sort()
    held = weight.flatten()[order].cumsum(0)
    return float(distance[int((held < held[-1] / 2).sum())])


def _possible_stride(length: int, cells: int) -> int | None:
    """Return the power of two that makes `cells` strided cells of `length` pixels, if one does."""
    stride = 2  # with stride 1, both geometries are the same
    while stride <= length:
        if (length - 1) // stride + 1 == cells:
            return stride
        stride *= 2
    return None
