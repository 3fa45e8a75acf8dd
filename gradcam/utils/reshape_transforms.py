"""Outputs of transformers and detectors as maps (batch, channels, rows, cols).

The methods recognise most layouts by themselves; these are for code that names them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["fasterrcnn_reshape_transform", "swinT_reshape_transform", "vit_reshape_transform"]


def fasterrcnn_reshape_transform(x: Mapping[str, Tensor]) -> Tensor:
    """Put the levels of a feature pyramid side by side, resized to the coarsest, ``x["pool"]``."""
    size = tuple(x["pool"].shape[-2:])
    levels = [functional.interpolate(level.abs(), size, mode="bilinear") for level in x.values()]
    return torch.cat(levels, 1)


def swinT_reshape_transform(tensor: Tensor, height: int = 7, width: int = 7) -> Tensor:  # noqa: N802
    """Read tokens (batch, height · width, channels) as maps."""
    return tensor.transpose(1, 2).reshape(len(tensor), -1, height, width)


def vit_reshape_transform(tensor: Tensor, height: int = 14, width: int = 14) -> Tensor:
    """Read tokens (batch, 1 + height · width, channels) as maps, without the class token."""
    return swinT_reshape_transform(tensor[:, 1:], height, width)
