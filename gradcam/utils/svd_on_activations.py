"""Principal components of maps, as arrays, by the names of pytorch-grad-cam."""

from __future__ import annotations

import numpy as np
import torch

from gradcam.rules import first_component, first_kernel_component, strongest_positive

__all__ = [
    "get_2d_projection",
    "get_2d_projection_kernel",
    "get_2d_projection_with_sign_correction",
]


def get_2d_projection(activation_batch: np.ndarray) -> np.ndarray:
    """Project maps (n, channels, rows, cols) on their first component: (n, rows, cols)."""
    return first_component(_tensor(activation_batch)).numpy()


def get_2d_projection_with_sign_correction(activation_batch: np.ndarray) -> np.ndarray:
    """Do so with the sign that makes the strongest cell positive."""
    return strongest_positive(first_component(_tensor(activation_batch))).numpy()


def get_2d_projection_kernel(
    activation_batch: np.ndarray, kernel: str = "sigmoid", gamma: float | None = None
) -> np.ndarray:
    """Project them by kernel PCA."""
    return first_kernel_component(_tensor(activation_batch), kernel, gamma).numpy()


def _tensor(maps: np.ndarray) -> torch.Tensor:
    """Return a copy with 0 for NaN."""
    return torch.nan_to_num(torch.from_numpy(np.array(maps, dtype=np.float32)))
