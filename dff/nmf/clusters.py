"""Cluster centres to start from: k-means, seeded far apart.

A clustering is a factorization whose codes are 0 or 1, so what starts from its centres ends at a
loss no higher than that of the clustering, and no component starts without rows of its own.
(Semi-NMF from k-means: Ding, Li & Jordan 2010, section 2.3.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dff.nmf.backend import Total, alone, rank_share

__all__ = ["centres", "everywhere"]

ITERATIONS = 30


def centres(points: Tensor, k: int, *, seed: int) -> Tensor:
    """Return the centres (k, r) of a k-means clustering of `points` (n, r), n at least 1.

    Seeds are drawn by greedy k-means++ (Arthur & Vassilvitskii 2007, section 2.2 and the end of
    section 7), then Lloyd's iterations; a cluster that lost its points gets the one that lies
    farthest from its centre. Where there are fewer than k different points, centres repeat.
    """
    found = _seeds(points, k, torch.Generator().manual_seed(seed))
    squares, labels = points.square().sum(1), None
    for _ in range(ITERATIONS):
        before = labels
        distances = (found.square().sum(1) - 2 * (points @ found.T)).add_(squares[:, None])
        nearest, labels = distances.min(1)
        if before is not None and torch.equal(before, labels):
            break
        members = torch.nn.functional.one_hot(labels, k).to(points.dtype)
        counts = members.sum(0)
        found = (members.T @ points) / counts.clamp_min(1)[:, None]
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            farthest = nearest.argsort(descending=True, stable=True)[: len(empty)]
            found[empty[: len(farthest)]] = points[farthest]
    return found


def _seeds(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Return `k` points that lie far apart: of some drawn by squared distance, the best each."""
    trials = 2 + int(math.log(k))
    first = torch.randint(len(points), (1,), generator=generator).to(points.device)
    chosen, nearest = [points[first]], _distances(points, points[first])[:, 0]
    for _ in range(k - 1):
        weights = nearest.double().cpu()
        if not float(weights.sum()) > 0:
            weights = torch.ones_like(weights)
        drawn = torch.multinomial(weights, trials, replacement=True, generator=generator)
        candidates = points[drawn.to(points.device)]
        after = torch.minimum(nearest[:, None], _distances(points, candidates))
        best = int(after.sum(0).argmin())
        nearest = after[:, best]
        chosen.append(candidates[best : best + 1])
    return torch.cat(chosen)


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """Return the squared distances (n, m)."""
    squares = points.square().sum(1)[:, None] + others.square().sum(1)
    return squares.sub_(2 * (points @ others.T)).clamp_min_(0)


def everywhere(points: Tensor, total: Total) -> Tensor:
    """Return the points (all, r) of all ranks, in order, from this rank's own (n, r)."""
    if total is alone:
        return points
    share = rank_share(len(points), total)
    gathered = points.new_zeros(share.total_rows, points.shape[1])
    gathered[share.row_offset : share.row_offset + len(points)] = points
    return total(gathered)
