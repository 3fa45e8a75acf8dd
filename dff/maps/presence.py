"""How present a concept is at each cell, and maps stretched for display."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

__all__ = ["full_presence", "presence", "rescale"]

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def full_presence(coefficients: torch.Tensor, *, quantile: float = 0.99) -> torch.Tensor:
    """Return the coefficient at which each concept counts as wholly present.

    A high quantile of the positive coefficients over the data: unlike a maximum it does not hang
    on one pixel, and pixels without the concept, however many, do not lower it.

    Args:
        coefficients: W (pixels, k).
        quantile: in (0, 1].

    Returns:
        (k,), 0 for a concept that never occurs.
    """
    present = torch.where(coefficients > 0, coefficients, torch.nan).T.contiguous()
    if present.shape[1] > 2**23:  # torch.quantile's limit; a uniform sample serves
        present = present[:, :: present.shape[1] // 2**22]
    return torch.nanquantile(present, quantile, dim=1).nan_to_num(0)


def presence(coefficients: Array, full: Array, *, most: float = 1) -> Array:
    """Return how present each concept is: coefficient / full presence, clipped to [0, `most`].

    Args:
        coefficients: (n, k, h, w) or (k, h, w), non-negative or signed (negative reads as 0).
        full: (k,) the coefficient at which a concept counts as wholly present; where it is 0 the
            concept never occurs, and its map is 0.
        most: where presences end: at full presence, or above it to tell strong from strongest.
    """
    if isinstance(coefficients, torch.Tensor):
        scale = torch.as_tensor(full, dtype=coefficients.dtype, device=coefficients.device)
        inverse = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
        return (coefficients * inverse[:, None, None]).clamp_(0, most)
    scale = np.asarray(full, dtype=coefficients.dtype)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(coefficients * inverse[:, None, None], 0, most)


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
