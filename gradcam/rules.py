"""What each method does with a layer's activations and gradients: one short function each.

All take A, the activations, and G, the gradients of the class score to them, both of shape
(batch, channels, *grid), and return the activations weighted: maps of this shape, whose sum over
the channels is the method's map. With ``eigen_smooth`` their first principal component takes the
place of the sum: :func:`first_component`, whose sign means nothing in itself. It is the one that
NumPy's singular vectors have, as in pytorch-grad-cam, so that its users see the maps they know.

| rule | weighted activations | source |
| --- | --- | --- |
| :func:`mean_gradient` | mean(G) · A | Selvaraju et al., "Grad-CAM", ICCV 2017, eq. 1 and 2 |
| :func:`elementwise` | G · A | Draelos & Carin, "Use HiResCAM instead of Grad-CAM", 2020 |
| :func:`elementwise_positive` | max(G · A, 0) | a variant that pytorch-grad-cam offers |
| :func:`plus_plus` | Σ α · max(G, 0) · A | Chattopadhay et al., "Grad-CAM++", WACV 2018, eq. 19 |
| :func:`normalised` | Σ(G · A) / Σ A · A | Fu et al. ("XGrad-CAM"), BMVC 2020, section 3 |
| :func:`positive_locations` | max(G, 0) · A | Jiang et al., "LayerCAM", TIP 2021, section III |
| :func:`second_order` | mean(G - H·A / 2) · A | Cai ("ShapleyCAM"), 2025 |
| :func:`strong_features` | mean(A > mean + k·std) · A | Fuad et al. ("FEM"), IPTA 2020 |
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "KERNELS",
    "elementwise",
    "elementwise_positive",
    "first_component",
    "first_kernel_component",
    "grad_cam",
    "mean_gradient",
    "normalised",
    "plus_plus",
    "positive_locations",
    "second_order",
    "strong_features",
    "strongest_positive",
]

KERNELS = ("sigmoid", "rbf", "poly", "cosine", "linear")
"""What :class:`sklearn.decomposition.KernelPCA` offers of kernels."""


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh the channels by their mean gradient, add them up, keep what speaks for the class.

    Args:
        activations: (batch, channels, rows, cols) of the target layer.
        gradients: the same shape, of the class score.

    Returns:
        (batch, rows, cols), non-negative, not normalised.
    """
    return mean_gradient(activations, gradients).sum(1).relu()  # exact under autocast, too


def mean_gradient(A: Tensor, G: Tensor) -> Tensor:
    """Grad-CAM: a channel's weight is its mean gradient."""
    return _over_grid(G.flatten(2).mean(2), A) * A


def elementwise(A: Tensor, G: Tensor) -> Tensor:
    """HiResCAM: gradients stay where they are, so that the map shows what the model used."""
    return G * A


def elementwise_positive(A: Tensor, G: Tensor) -> Tensor:
    """Gradient times activation, where it speaks for the class in a channel."""
    return (G * A).relu()


def plus_plus(A: Tensor, G: Tensor, least: float = 1e-6) -> Tensor:
    """Grad-CAM++: positive gradients, each weighted so that every instance counts.

    For an exponential of the score, α = G² / (2 G² + ΣA · G³) (equation 19); 0 where G is 0.
    """
    total = _over_grid(A.flatten(2).sum(2), A)
    alpha = G**2 / (2 * G**2 + total * G**3 + least)
    alpha = torch.where(G == 0, 0.0, alpha)
    return _over_grid((alpha * G.relu()).flatten(2).sum(2), A) * A


def normalised(A: Tensor, G: Tensor, least: float = 1e-7) -> Tensor:
    """XGrad-CAM: a gradient counts by the share of the channel's activation that it is met by."""
    weights = (G * A).flatten(2).sum(2) / (A.flatten(2).sum(2) + least)
    return _over_grid(weights, A) * A


def positive_locations(A: Tensor, G: Tensor) -> Tensor:
    """LayerCAM: every location has its own weight, its gradient where that is positive."""
    return G.relu() * A


def second_order(A: Tensor, G: Tensor, H_A: Tensor | None) -> Tensor:
    """ShapleyCAM: the mean gradient, less half of what the score's curvature takes from it.

    `H_A` is the Hessian of the score times A; None where the score is linear in A.
    """
    return mean_gradient(A, G if H_A is None else G - H_A / 2)


def strong_features(A: Tensor, k: float = 2) -> Tensor:
    """FEM: a channel's weight is the share of cells that exceed its mean by `k` deviations.

    As pytorch-grad-cam has it; the paper adds up the channels' masks of such cells.
    """
    flat = A.flatten(2)
    mean, std = flat.mean(2, keepdim=True), flat.std(2, correction=0, keepdim=True)
    return _over_grid((flat > mean + k * std).to(A).mean(2), A) * A


def _over_grid(values: Tensor, A: Tensor) -> Tensor:
    """Return values (batch, channels) as they multiply (batch, channels, *grid)."""
    return values.reshape(*values.shape, *[1] * (A.dim() - 2))


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


def strongest_positive(maps: Tensor) -> Tensor:
    """Turn the sign of maps (batch, *grid) so that their strongest cell is positive."""
    flat = maps.flatten(1)
    strongest = flat.gather(1, flat.abs().argmax(1, keepdim=True))
    return torch.where(strongest < 0, -flat, flat).reshape(maps.shape)


def first_kernel_component(maps: Tensor, kernel: str, gamma: float | None) -> Tensor:
    """Project the cells on their first axis in a kernel's space (Karmani et al., "KPCA-CAM", 2024).

    Args:
        maps: (batch, channels, *grid).
        kernel: one of :data:`KERNELS`.
        gamma: its scale; None is 1 / channels.

    Returns:
        (batch, *grid), signed.
    """
    from sklearn.decomposition import KernelPCA  # slow to import, and no other method's need

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
