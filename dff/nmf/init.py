"""The start of a factorization: NNDSVDa (Boutsidis & Gallopoulos 2008) on a randomised SVD.

Only the components H are started: the codes follow from them and the data by non-negative least
squares. The randomised SVD (Halko, Martinsson & Tropp 2011, algorithm 4.4) draws from a generator
of its own, so the global random state is neither read nor moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dff.nmf.distributed import Total, alone
from dff.nmf.products import multiply, settled

__all__ = ["Spectrum", "nndsvda", "random_nonnegative", "spectrum", "starts"]

OVERSAMPLING = 10
POWER = 2


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


def spectrum(a: Tensor, rank: int, *, seed: int, total: Total = alone) -> Spectrum:
    """Return the `rank` leading singular triplets of `a` (n, c); `total` sums over ranks of rows.

    The products are made in the type of `a` and everything else in float32 (float64 for that).
    """
    kind = _kind(a)
    columns = a.shape[1]
    generator = torch.Generator().manual_seed(seed)
    width = min(rank + OVERSAMPLING, columns)
    basis = torch.randn(columns, width, generator=generator).to(a.device, kind)
    for _ in range(POWER):
        image = multiply(a, basis.to(a.dtype))
        basis, _ = torch.linalg.qr(total(multiply(image.T, a).to(kind)).T)
    image = multiply(a, basis.to(a.dtype)).to(kind)
    values, vectors = settled(torch.linalg.eigh, total(image.T @ image).double())
    leading = vectors.flip(1)[:, :rank].to(kind)
    return Spectrum(
        values=values.flip(0)[:rank].clamp_min(0).sqrt().to(kind),
        right=(basis @ leading).T.contiguous(),
        scaled_left=image @ leading,
    )


def nndsvda(a: Tensor, parts: Spectrum, k: int, *, total: Total = alone) -> Tensor:
    """Return the NNDSVDa components (k, c) of `a` (n, c) from `k` or more singular triplets.

    Zeros are filled with the mean of `a`. Of each pair of singular vectors the sign half that
    carries more energy is kept. `a` counts at its ordinary scale (:func:`_ordinary`), so that the
    components of 2^p a are the same.
    """
    fill, unit = _ordinary(mean_magnitude(a, total))
    left, right = parts.scaled_left[:, :k], parts.right[:k]
    sides = torch.stack([left.clamp_min(0), (-left).clamp_min(0)])
    left_norms = total(sides.square().sum(1)).sqrt()
    halves = torch.stack([right.clamp_min(0), (-right).clamp_min(0)])
    right_norms = torch.linalg.vector_norm(halves, dim=2)
    strength = left_norms * unit * right_norms
    side, each = strength.argmax(0), torch.arange(len(right), device=a.device)
    norms = right_norms[side, each].clamp_min(torch.finfo(right.dtype).tiny)
    components = halves[side, each] * (strength[side, each].sqrt() / norms).unsqueeze(1)
    return torch.where(components > 0, components, torch.where(fill > 0, fill, 1.0))


def random_nonnegative(a: Tensor, k: int, *, seed: int, total: Total = alone) -> Tensor:
    """Return `k` random components (k, c): |normal| at the ordinary scale of the mean of `a`."""
    kind = _kind(a)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(k, a.shape[1], generator=generator, dtype=torch.float64).abs_()
    return draw.to(a.device, kind) * (_ordinary(mean_magnitude(a, total))[0] / k).sqrt()


def _ordinary(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean brought to [1/4, 1/2), as activations have, and the power of two for that."""
    mantissa, exponent = torch.frexp(mean)
    return mantissa / 2, torch.ldexp(torch.ones_like(mean), -1 - exponent)


def mean_magnitude(a: Tensor, total: Total) -> Tensor:
    """Return the mean of |a| over all ranks, a scalar tensor; in bfloat16 of every eighth row."""
    some = a[::8] if a.dtype == torch.bfloat16 else a
    lengths = torch.linalg.vector_norm(some.to(_kind(a)), ord=1, dim=1)
    figures = total(torch.stack([lengths.sum(), lengths.new_tensor(float(some.numel()))]))
    return figures[0] / figures[1]


def _kind(a: Tensor) -> torch.dtype:
    return torch.float64 if a.dtype == torch.float64 else torch.float32


def starts(a: Tensor, counts: Sequence[int], *, random_state: int = 0) -> list[Tensor]:
    """Return NNDSVDa components (k, c) of `a` (n, c) for each k of `counts`, from one SVD."""
    with torch.inference_mode():
        parts = spectrum(a, max(counts), seed=random_state)
        return [nndsvda(a, parts, k) for k in counts]
