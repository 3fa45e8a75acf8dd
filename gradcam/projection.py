"""Maps of what varies most over a grid: the cells' first principal component, linear or by kernel.

The sign of a principal component is of no meaning in itself. It is the one that NumPy's singular
vectors have, as in pytorch-grad-cam, so that its users see the maps they know.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import KernelPCA
from torch import Tensor

__all__ = ["KERNELS", "first_component", "first_kernel_component"]

KERNELS = ("sigmoid", "rbf", "poly", "cosine", "linear")
"""What :class:`sklearn.decomposition.KernelPCA` offers of kernels."""


def first_component(maps: Tensor) -> Tensor:
    """Project the cells of each image on their first principal axis (the maps' "eigen" form).

    Muhammad & Yeasin, "Eigen-CAM", IJCNN 2020, section III, with the cells centred.

    Args:
        maps: (batch, channels, *grid).

    Returns:
        (batch, *grid), signed.
    """
    projected = [_principal(_cells(item)) for item in maps]
    return _as_maps(projected, maps)


def first_kernel_component(maps: Tensor, kernel: str, gamma: float | None) -> Tensor:
    """Project the cells on their first axis in a kernel's space (Karmani et al., "KPCA-CAM", 2024).

    Args:
        maps: (batch, channels, *grid).
        kernel: one of :data:`KERNELS`.
        gamma: its scale; None is 1 / channels.

    Returns:
        (batch, *grid), signed.
    """
    projected = []
    for item in maps:
        cells = _cells(item)
        if not cells.any():
            projected.append(np.zeros(len(cells)))
            continue
        solver = KernelPCA(n_components=1, kernel=kernel, gamma=gamma)
        found = solver.fit_transform(cells)
        projected.append(found[:, 0] if found.shape[1] else np.zeros(len(cells)))
    return _as_maps(projected, maps)


def _cells(item: Tensor) -> np.ndarray:
    """Return the cells (cells, channels) of one image, centred."""
    cells = np.asarray(item.detach().flatten(1).T.float().cpu())
    return cells - cells.mean(0)


def _principal(cells: np.ndarray) -> np.ndarray:
    _, _, axes = np.linalg.svd(cells, full_matrices=False)
    return cells @ axes[0]


def _as_maps(projected: list[np.ndarray], maps: Tensor) -> Tensor:
    stacked = torch.from_numpy(np.stack(projected).astype(np.float32))
    return stacked.reshape(len(maps), *maps.shape[2:])
