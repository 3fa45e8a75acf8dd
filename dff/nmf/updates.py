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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
    "ridged",
    "sweep",
    "sweep_together",
]

Floats = NDArray[Any]

SWEEPS = 2  # of the components for each pass over A: k x c numbers, next to nothing
FEW = 1 << 12  # entries of a row, up to which NumPy sweeps
SHORT = 0.85  # share of the way to its minimum that a row goes where sweeps are to converge


def sweep(x: Tensor, gram: Tensor, cross: Tensor, *, times: int = 1) -> Tensor:
    """Update the rows of `x` (k, m) in place, each to its exact minimum over x >= 0, and return it.

    A component whose gram[j, j] is zero is left as it is: nothing depends on it.
    """
    _sweeper(x, gram, cross)(times)
    return x


def _sweeper(x: Tensor, gram: Tensor, cross: Tensor, share: float = 1.0) -> Callable[[int], None]:
    """Return what sweeps `x` so many times, each row a `share` of the way to its minimum.

    That is x_j ← max(0, factor · (cross_j - weights · x)), where factor = share / gram_jj and
    weights are row j of the gram matrix, with (1 - 1/share) gram_jj in the place of gram_jj.
    """
    if x.device.type == "cpu" and x.shape[1] <= FEW:
        return _small_sweeper(x.numpy(), gram.numpy(), cross.numpy(), share)
    weights, tiny = gram.clone(), torch.finfo(gram.dtype).tiny
    weights.diagonal().mul_(1 - 1 / share)
    buffer, transposed = torch.empty_like(cross[0]), x.T
    rows = zip(weights, gram.diagonal().tolist(), cross, x, strict=True)
    plan = [(w, share / size, cross_j, x_j) for w, size, cross_j, x_j in rows if size > tiny]

    def run(times: int) -> None:
        for weights_j, factor, cross_j, x_j in plan * times:
            torch.addmv(cross_j, transposed, weights_j, beta=factor, alpha=-factor, out=buffer)
            torch.clamp_min(buffer, 0, out=x_j)

    return run


def _small_sweeper(x: Floats, gram: Floats, cross: Floats, share: float) -> Callable[[int], None]:
    """Return :func:`_sweeper` of rows so short that starting an operation is what takes the time.

    NumPy starts one in a third of the time that torch takes.
    """
    sizes = gram.diagonal()
    used = sizes > np.finfo(gram.dtype).tiny
    factors = (share / np.where(used, sizes, 1)).astype(gram.dtype)[:, None]
    weights, crosses = gram * factors, cross * factors
    np.fill_diagonal(weights, share - 1)
    buffer, zero = np.empty_like(cross[0]), gram.dtype.type(0)
    rows = zip(used.tolist(), weights, crosses, x, strict=True)
    plan = [step for counts, *step in rows if counts]

    def run(times: int) -> None:
        for weights_j, cross_j, x_j in plan * times:
            np.dot(weights_j, x, out=buffer)
            np.subtract(cross_j, buffer, out=buffer)
            np.maximum(buffer, zero, out=x_j)

    return run


def sweep_together(both: Floats, gram: Floats, times: int) -> None:
    """Sweep several problems at once, as :func:`sweep` does each.

    Args:
        both: (2k, s, m): x_j of all s problems in the first k places, in place, and cross_j in
            those after them.
        gram: (s, k, k).
        times: how often.
    """
    sizes = gram.diagonal(axis1=1, axis2=2)
    used = sizes > np.finfo(gram.dtype).tiny
    factors = (used / np.where(used, sizes, 1)).astype(gram.dtype)
    k, each = gram.shape[1], np.arange(gram.shape[1])
    weights = np.zeros((len(gram), k, 2 * k), gram.dtype)
    np.multiply(gram, -factors[:, :, None], out=weights[:, :, :k])
    weights[:, each, each] = ~used  # what nothing depends on stays as it is
    weights[:, each, k + each] = factors
    stacked, zero = both.transpose(1, 0, 2), both.dtype.type(0)
    buffer = np.empty_like(stacked[:, :1])
    result = buffer[:, 0]
    plan = [(weights[:, j : j + 1], both[j]) for j in range(k)]
    for weights_j, x_j in plan * times:
        np.matmul(weights_j, stacked, out=buffer)
        np.maximum(result, zero, out=x_j)


def encode(x: Tensor, gram: Tensor, cross: Tensor, *, max_sweeps: int = 2000) -> None:
    """Sweep `x` (k, m), in place, to the minimum over x >= 0.

    Ends when four sweeps move x by a tenth of the root of the machine precision, relative to its
    norm (3e-5 in float32), or after `max_sweeps`. Steps a little short of each row's minimum take
    fewer sweeps: concepts overlap, so each row gives way to those that come after it.
    """
    tol, run = 0.1 * torch.finfo(gram.dtype).eps ** 0.5, _sweeper(x, gram, cross, SHORT)
    for _ in range(max_sweeps // 4):
        before = x.clone()
        run(4)
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


def ridged(gram: Tensor, ridge: float) -> Tensor:
    """Return a Gram matrix (…, k, k) with its diagonal 1 + `ridge` times.

    That adds ridge · Σₖ ||WₖHₖ||² to the loss, for either factor given the other. It does not
    depend on how the size of a component is shared out among W and H.
    """
    return gram + ridge * gram.diagonal(dim1=-2, dim2=-1).diag_embed() if ridge else gram


@dataclass(frozen=True)
class Statistics:
    """All that the update of the components and the loss need to know of A and W.

    Attributes:
        cross: Wᵀ A, of shape (k, c).
        gram: Wᵀ W, of shape (k, k); its diagonal 1 + ridge times, where there is a ridge.
    """

    cross: Tensor
    gram: Tensor

    def loss(self, components: Tensor, energy: float) -> float:
        """Return ||A - W H||² and the ridge, for H = `components`, given `energy` = ||A||²."""
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
    """What H may be.

    Attributes:
        update: returns H (k, c), improved for given statistics.
        update_together: does so in several problems, in place, as :func:`sweep_together` does.
        floor: the least value that H may take.
    """

    update: Callable[[Tensor, Statistics], Tensor]
    update_together: Callable[[Floats, Floats], None]
    floor: float


def nonnegative(components: Tensor, statistics: Statistics) -> Tensor:
    """Return H >= 0 (k, c), swept from `components` >= 0 towards its minimum for the given W."""
    return sweep(components.clone(), statistics.gram, statistics.cross, times=SWEEPS)


def free(components: Tensor, statistics: Statistics) -> Tensor:
    """Return the H (k, c) of any sign that is the minimum for the given W."""
    return least_squares(statistics.gram, statistics.cross)


def nonnegative_together(both: Floats, gram: Floats) -> None:
    """Do as :func:`nonnegative` in several problems, laid out as for :func:`sweep_together`."""
    sweep_together(both, gram, SWEEPS)


def free_together(both: Floats, gram: Floats) -> None:
    """Do as :func:`free` in several problems, laid out as for :func:`sweep_together`."""
    k = gram.shape[1]
    cross = torch.from_numpy(both[k:].transpose(1, 0, 2))
    both[:k] = least_squares(torch.from_numpy(gram), cross).numpy().transpose(1, 0, 2)


NONNEGATIVE = Constraint(nonnegative, nonnegative_together, 0.0)
FREE = Constraint(free, free_together, float("-inf"))
