"""The arithmetic of one iteration, as pure functions of small matrices.

Notation: A (n rows x c columns) ~= W (n x k) H (k x c). Both factors are kept "component first":
``components`` H (k x c) and ``codes`` Wᵀ (k x n), so that one component is one contiguous row and
the two halves of an iteration are the same problem,

    minimise ||B - Yᵀ X||² over X >= 0, which needs only gram = Y Yᵀ (k x k), cross = Y B (k x m).

Hierarchical alternating least squares (HALS; Cichocki & Phan 2009) solves it one row of X at a
time, each exactly. A is touched only to make ``cross``: several sweeps for each look at A cost
almost nothing (Gillis & Glineur 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Statistics", "encode", "least_squares", "sweep"]


@dataclass(frozen=True)
class Statistics:
    """All that the update of the components and the loss need to know of A and W.

    Attributes:
        cross: Wᵀ A, of shape (k, c).
        gram: Wᵀ W, of shape (k, k).
    """

    cross: Tensor
    gram: Tensor

    def loss(self, components: Tensor, energy: float) -> float:
        """Return ||A - W H||² for H = `components`, given `energy` = ||A||²."""
        return energy - float(self.explained(components).sum())

    def explained(self, components: Tensor) -> Tensor:
        """Return what each component takes off the loss, of shape (k,): 2<A, WₖHₖ> - <WₖHₖ, WH>.

        The sum is ||A||² - ||A - WH||² exactly; where the factors are stationary each term is
        <A, WₖHₖ> (complementary slackness).
        """
        h = components.double()
        overlap = (self.gram.double() * (h @ h.T)).sum(1)
        return 2 * (self.cross.double() * h).sum(1) - overlap


def sweep(x: Tensor, gram: Tensor, cross: Tensor, *, times: int = 1) -> Tensor:
    """Update the rows of `x` (k, m) in place, each to its exact minimum over x >= 0, and return it.

    A component whose gram[j, j] is zero is left as it is: nothing depends on it.
    """
    diagonal = gram.diagonal()
    inverse = torch.where(diagonal > torch.finfo(gram.dtype).tiny, 1 / diagonal, 0.0).unsqueeze(1)
    # x_j <- max(0, cross_j / g_jj - sum over i != j of (g_ji / g_jj) x_i); rows as lists, once.
    offdiagonal = gram * inverse - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    target = cross * inverse
    buffer = torch.empty_like(x[0])
    transposed, rows = x.T, list(zip(target, offdiagonal, x, strict=True))
    for _ in range(times):
        for wanted, weights, row in rows:
            torch.addmv(wanted, transposed, weights, alpha=-1, out=buffer)
            torch.clamp_min(buffer, 0, out=row)
    return x


def encode(gram: Tensor, cross: Tensor, *, tol: float = 1e-6, max_sweeps: int = 1000) -> Tensor:
    """Return the minimiser X >= 0 (k, m): sweeps from the clipped least squares solution.

    Ends when four sweeps move X by less than `tol` of its norm, or after `max_sweeps`.
    """
    x = least_squares(gram, cross).clamp_min_(0)
    for _ in range(max(1, max_sweeps // 4)):
        before = x.clone()
        sweep(x, gram, cross, times=4)
        if torch.linalg.vector_norm(before.sub_(x)) <= tol * torch.linalg.vector_norm(x):
            break
    return x


def least_squares(gram: Tensor, cross: Tensor) -> Tensor:
    """Return gram⁻¹ cross (k, m), of least norm where the gram matrix is singular."""
    inverse = torch.linalg.pinv(gram.double(), hermitian=True, rtol=1e-12)
    return (inverse @ cross.double()).to(cross.dtype)
