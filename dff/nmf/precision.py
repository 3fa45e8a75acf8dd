"""In which type the products with A are made."""

from __future__ import annotations

import torch

__all__ = ["PRECISIONS", "choose_precision"]

PRECISIONS = ("auto", "float32", "bfloat16")
LARGE = 1 << 22  # entries; below, the products are not what takes the time


def choose_precision(
    wanted: str, kind: torch.dtype, device: torch.device, entries: int
) -> torch.dtype:
    """Return the type for products with A, whose other arithmetic is in `kind`."""
    if kind == torch.float64 or wanted == "float32":
        return kind
    if wanted == "bfloat16" or (entries >= LARGE and has_bfloat16(device)):
        return torch.bfloat16
    return kind


def has_bfloat16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 matrices in hardware (AMX, tensor cores)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())
