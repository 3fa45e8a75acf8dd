"""The update formula: what one iteration does, as functions of small matrices.

    A ≈ W·H    A: n rows x c columns,  W >= 0: n x k,  H: k x c

Both factors are kept "component first": ``components`` H (k x c) and ``codes`` Wᵀ (k x n), so that
one component is one contiguous row and the two halves of an iteration are one problem,

    minimise f(X) = ||B - Yᵀ X||² over X >= 0,

with B = Aᵀ, Y = H for X = Wᵀ, and B = A, Y = Wᵀ for X = H. Multiplied out,

    f(X) = ||B||² - 2 <Y B, X> + <Y Yᵀ X, X>,

so that B and Y count only by cross = Y B and gram = Y Yᵀ (k x k). For the components these are
WᵀA (k x c) and WᵀW (k x k): sums over rows, which blocks of rows and the ranks of a process group
add up (:class:`Statistics`). A is read once to make them, and the loss follows from them too.

Hierarchical alternating least squares (HALS; Cichocki & Phan 2009) minimises f over one row x_j of
X at a time, the others fixed. There f is a quadratic of the same curvature in each entry, with

    ∂f/∂x_j = 2 (Σ_i gram_ji x_i - cross_j) = 0,

and its minimum over x_j >= 0 is that zero, clipped: the update

    x_j ← max(0, (cross_j - Σ_{i≠j} gram_ji x_i) / gram_jj).

Each is exact, so the loss never rises, and there is no step size. As a sweep over j costs nothing
beside a pass over A, there are several for each pass (Gillis & Glineur 2012). Semi-NMF leaves H
free: its minimum is H = (WᵀW)⁻¹ WᵀA (Ding, Li & Jordan 2010).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dff.nmf.backend import stable_decomposition

__all__ = [
    "FREE",
    "NONNEGATIVE",
    "Constraint",
    "Statistics",
    "encode",
    "explained",
    "least_squares",
    "sweep",
]

SWEEPS = 2  # of the components for each pass over A: k x c numbers, next to nothing
SHORT = 0.85  # share of the way to its minimum that a row goes where sweeps are to converge


def sweep(x: Tensor, gram: Tensor, cross: Tensor, *, times: int = 1) -> Tensor:
    """Update the rows of `x` (k, m) in place, each to its exact minimum over x >= 0, and return it.

    A component whose gram[j, j] is zero is left as it is: nothing depends on it. With a dimension
    before those, of all three, as many problems are swept at once.
    """
    if x.ndim == 3:
        _sweep_together(x, gram, cross, times)
    else:
        _sweep(x, cross, _moves(gram), times)
    return x


def _sweep(x: Tensor, cross: Tensor, moves: list[tuple[int, Tensor, float]], times: int) -> None:
    """Set each x_j in turn to max(0, factor * (cross_j - weights · x))."""
    buffer, transposed = torch.empty_like(cross[0]), x.T
    crosses, rows = cross.unbind(), x.unbind()
    plan = [(crosses[j], weights, factor, rows[j]) for j, weights, factor in moves]
    for _ in range(times):
        for cross_j, weights, factor, x_j in plan:
            torch.addmv(cross_j, transposed, weights, beta=factor, alpha=-factor, out=buffer)
            torch.clamp_min(buffer, 0, out=x_j)


def _moves(gram: Tensor, share: float = 1.0) -> list[tuple[int, Tensor, float]]:
    """Return (j, weights, factor) of each component that is used.

    x_j moves a `share` of the way to its minimum at factor * (cross_j - weights · x): with all of
    it, weights are row j of the gram matrix with 0 for gram_jj, and factor is 1 / gram_jj.
    """
    weights, tiny = gram.clone(), torch.finfo(gram.dtype).tiny
    weights.diagonal().mul_(1 - 1 / share)
    sizes = gram.diagonal().tolist()
    rows = enumerate(zip(weights.unbind(), sizes, strict=True))
    return [(j, row, share / size) for j, (row, size) in rows if size > tiny]


def _sweep_together(x: Tensor, gram: Tensor, cross: Tensor, times: int) -> None:
    """Sweep `x` (s, k, m): for small problems, s of them take little longer than one."""
    sizes = gram.diagonal(dim1=1, dim2=2).unsqueeze(2)
    used = sizes > torch.finfo(gram.dtype).tiny
    weights = torch.where(used, gram / sizes, 0)
    weights.diagonal(dim1=1, dim2=2).copy_(torch.where(used, 0, -1).squeeze(2))
    crosses = torch.where(used, cross / sizes, 0)
    plan = [each.split(1, dim=1) for each in (crosses, weights, x)]
    for _ in range(times):
        for cross_j, weights_j, x_j in zip(*plan, strict=True):
            torch.clamp_min(torch.baddbmm(cross_j, weights_j, x, alpha=-1), 0, out=x_j)


def encode(x: Tensor, gram: Tensor, cross: Tensor, *, max_sweeps: int = 2000) -> None:
    """Sweep `x` (k, m), in place, to the minimum over x >= 0.

    Ends when four sweeps move x by a tenth of the root of the machine precision, relative to its
    norm (3e-5 in float32), or after `max_sweeps`. Steps a little short of each row's minimum take
    fewer sweeps: concepts overlap, so each row gives way to those that come after it.
    """
    tol, moves = 0.1 * torch.finfo(gram.dtype).eps ** 0.5, _moves(gram, SHORT)
    for _ in range(max_sweeps // 4):
        before = x.clone()
        _sweep(x, cross, moves, 4)
        if torch.linalg.vector_norm(before.sub_(x)) <= tol * torch.linalg.vector_norm(x):
            break


def least_squares(gram: Tensor, cross: Tensor) -> Tensor:
    """Return gram⁻¹ cross (…, k, m), of least norm where the gram matrix is singular."""
    invert = partial(torch.linalg.pinv, hermitian=True, rtol=1e-10)
    # Brought to size by a power of two, as LAPACK has absolute thresholds: exact for 2^p gram.
    _, size = torch.frexp(gram.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None].double())
    unit = torch.ldexp(torch.ones_like(size, dtype=torch.float64), -size)
    inverse = stable_decomposition(invert, gram.double() * unit) * unit
    return inverse.to(cross.dtype) @ cross


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
        h = components.double()
        twice = 2 * float(torch.dot(self.cross.double().flatten(), h.flatten()))
        return energy - twice + float(torch.dot(self.gram.double().flatten(), (h @ h.T).flatten()))

    def explained(self, components: Tensor) -> Tensor:
        """Return :func:`explained` of each component, (k,), float64."""
        h = components.double()
        return explained((self.cross.double() * h).sum(1), self.gram, components)


def explained(agreement: Tensor, gram: Tensor, components: Tensor) -> Tensor:
    """Return what each component takes off the loss (k,), float64: 2<A, WₖHₖ> - <WₖHₖ, WH>.

    `agreement` is <A, WₖHₖ> (k,), `gram` is WᵀW. The sum is ||A||² - ||A - WH||² exactly; where
    the factors are stationary each term is <A, WₖHₖ> (complementary slackness).
    """
    h = components.double()
    return 2 * agreement.double() - (gram.double() * (h @ h.T)).sum(1)


@dataclass(frozen=True)
class Constraint:
    """What H may be: how it is updated for given statistics, and the least value it may take."""

    update: Callable[[Tensor, Statistics], Tensor]
    floor: float


def nonnegative(components: Tensor, statistics: Statistics) -> Tensor:
    """Return H >= 0 (k, c), swept from `components` >= 0 towards its minimum for the given W."""
    return sweep(components.clone(), statistics.gram, statistics.cross, times=SWEEPS)


def free(components: Tensor, statistics: Statistics) -> Tensor:
    """Return the H (k, c) of any sign that is the minimum for the given W."""
    return least_squares(statistics.gram, statistics.cross)


NONNEGATIVE = Constraint(nonnegative, 0.0)
FREE = Constraint(free, float("-inf"))
