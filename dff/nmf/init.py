"""The start of a factorization: NNDSVDa (Boutsidis & Gallopoulos 2008) on a randomised SVD.

Only the components H are started: the codes follow from them and the data by non-negative least
squares. The randomised SVD (Halko, Martinsson & Tropp 2011, algorithm 4.4) draws from a generator
of its own, so the global random state is neither read nor moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Spectrum", "nndsvda", "random_nonnegative", "spectrum"]


@dataclass(frozen=True)
class Spectrum:
    """The leading singular values and vectors of A (n x c).

    Attributes:
        values: singular values, largest first, of shape (r,).
        right: right singular vectors as rows, of shape (r, c).
        scaled_left: left singular vectors times their values, A rightᵀ, of shape (n, r).
    """

    values: Tensor
    right: Tensor
    scaled_left: Tensor


def spectrum(
    a: Tensor, rank: int, *, seed: int, power: int = 2, oversampling: int = 10
) -> Spectrum:
    """Return the `rank` leading singular triplets of `a` (n, c), to working accuracy."""
    columns = a.shape[1]
    width = min(rank + oversampling, *a.shape)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(columns, width, generator=generator, dtype=torch.float64)
    basis = basis.to(device=a.device, dtype=a.dtype)
    for _ in range(power):
        basis, _ = torch.linalg.qr(a.T @ (a @ basis))
    image = a @ basis
    values, vectors = torch.linalg.eigh((image.T @ image).double())
    leading = vectors.flip(1)[:, :rank].to(a.dtype)
    return Spectrum(
        values=values.flip(0)[:rank].clamp_min(0).sqrt().to(a.dtype),
        right=(basis @ leading).T.contiguous(),
        scaled_left=image @ leading,
    )


def nndsvda(a: Tensor, k: int, *, seed: int) -> Tensor:
    """Return the NNDSVDa components of `a` (n, c), of shape (k, c), zeros filled with its mean.

    Of each pair of singular vectors the sign half that carries more energy is kept.
    """
    parts = spectrum(a, k, seed=seed)
    left, right = parts.scaled_left, parts.right
    left_norms = torch.stack(
        [torch.linalg.vector_norm(s.clamp_min(0), dim=0) for s in (left, -left)]
    )
    halves = torch.stack([right.clamp_min(0), (-right).clamp_min(0)])
    right_norms = torch.linalg.vector_norm(halves, dim=2)
    energy = left_norms * right_norms
    side = energy.argmax(0)
    each = torch.arange(len(right), device=a.device)
    chosen, norms = halves[side, each], right_norms[side, each]
    tiny = torch.finfo(a.dtype).tiny
    components = chosen * (energy[side, each].sqrt() / norms.clamp_min(tiny)).unsqueeze(1)
    return torch.where(components > 0, components, a.mean())


def random_nonnegative(a: Tensor, k: int, *, seed: int) -> Tensor:
    """Return `k` random components (k, c): |normal| at the scale of the mean of `a` (n, c)."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(k, a.shape[1], generator=generator, dtype=torch.float64).abs_()
    scale = (a.abs().mean() / k).sqrt()
    return draw.to(device=a.device, dtype=a.dtype) * scale
