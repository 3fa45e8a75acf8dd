"""What takes a region's content away from a picture: blur, and imputation from around it.

Notation: pixel i of a removed region, its neighbours j of weight w_ij, inside the picture.
Imputation makes each removed pixel the weighted mean of its neighbours,

    Σ_j w_ij (x_i - x_j) = 0,

one sparse, symmetric system for all of them, in which the pixels that were kept are known.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError

__all__ = ["NOISE", "blurred", "imputed"]

NEIGHBOURS = [
    ((row, col), 1 / 6 if 0 in (row, col) else 1 / 12)
    for row in (-1, 0, 1)
    for col in (-1, 0, 1)
    if (row, col) != (0, 0)
]
"""Offsets and weights: the sides count twice what the corners do."""
NOISE = 0.01
"""Standard deviation of what is added to imputed pixels, in units of the normalised input."""
KEPT, OUTSIDE = -1, -2


def blurred(image: Tensor, strength: float = 1 / 16) -> Tensor:
    """Blur an image (channels, height, width) until nothing can be recognised.

    Args:
        image: floating point.
        strength: standard deviation of the blur, as a part of the short side.
    """
    from torchvision.transforms.functional import gaussian_blur  # heavy

    side = min(image.shape[1:])
    sigma = max(strength * side, 0.1)
    width = 2 * min(round(3 * sigma), side - 1) + 1
    return gaussian_blur(image, [width, width], [sigma, sigma])


def imputed(
    image: Tensor,
    removed: np.ndarray,
    *,
    noise: float = NOISE,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill removed pixels from those around them: noisy linear imputation.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML
    2022, section 4: unlike a grey or blurred patch the filling hardly shows where pixels were
    removed, so that a score tells of what was there and not of the shape of the hole.

    Args:
        image: (channels, height, width), normalised.
        removed: (height, width) bool.
        noise: standard deviation of the normal noise that is added to removed pixels.
        generator: of the noise, on the CPU; None for one of seed 0.

    Returns:
        A new image; the one given where nothing is removed.

    Raises:
        UsageError: all pixels are removed, or a mask of another size.
    """
    if removed.shape != tuple(image.shape[1:]):
        raise UsageError(f"expected a mask {tuple(image.shape[1:])}, got {removed.shape}")
    if removed.all():
        raise UsageError("all pixels are removed: nothing is left to fill them from")
    if not removed.any():
        return image
    filling = torch.from_numpy(_solution(image.detach().double().cpu().numpy(), removed)).float()
    if noise:
        generator = generator or torch.Generator().manual_seed(0)
        filling = filling + noise * torch.randn(filling.shape, generator=generator)
    filled = image.detach().clone()
    filled[:, torch.from_numpy(removed).to(image.device)] = filling.T.to(image)
    return filled


def _solution(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Return the removed pixels (m, channels) that are the mean of their neighbours."""
    from scipy.sparse import coo_matrix  # heavy
    from scipy.sparse.linalg import splu

    place = np.argwhere(removed)
    count = len(place)
    number = np.full(np.add(removed.shape, 2), OUTSIDE)
    number[1:-1, 1:-1] = np.where(removed, 0, KEPT)
    number[tuple(place.T + 1)] = np.arange(count)
    weights, known = np.zeros(count), np.zeros((count, len(image)))
    entries = []
    for offset, weight in NEIGHBOURS:
        beside = place + offset
        there = number[tuple(beside.T + 1)]
        weights += weight * (there != OUTSIDE)
        kept = there == KEPT
        known[kept] += weight * image[:, beside[kept, 0], beside[kept, 1]].T
        (rows,) = (there >= 0).nonzero()
        entries.append((rows, there[rows], np.full(len(rows), -weight)))
    entries.append((np.arange(count), np.arange(count), weights))
    rows, cols, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    system = coo_matrix((values, (rows, cols)), (count, count)).tocsc()
    # The matrix is symmetric and its diagonal is the largest: no pivoting is needed.
    options = {"SymmetricMode": True}
    return splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).solve(
        known
    )
