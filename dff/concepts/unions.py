"""Concepts that belong together: from parts to objects, and where an object is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dff.maps.presence import full_presence, presence

__all__ = ["union_names", "union_presence", "union_tensors", "unions"]

Union = tuple[int, ...]
ROUNDING = 1e-5  # of a mean of squares in float32


def unions(coefficients: Tensor, components: Tensor) -> tuple[Union, ...]:
    """Return the unions of concepts that belong together, from parts to objects.

    A factorization into parts splits a horse; its user may want the horse. So the concepts are
    merged two by two, always the two nodes that are most alike. What a node is like is what its
    cells have beyond the average cell: the covariance of its coefficients with the channels of
    W·H. (The embeddings alone do not tell: those of semi-NMF are differences, free to turn as the
    coefficients turn against them.) Nodes are compared by the cosine, and the merging stops where
    that is not positive; so much is agglomerative clustering, on k x k numbers. A concept that has
    joined no other by then is an object by itself, a union of one, unless it is everywhere alike.

    Args:
        coefficients: W (pixels, k).
        components: H (k, channels).

    Returns:
        The members of each union, ascending and counted from 0, in the order of merging, those of
        one last. That of all concepts is left out, so that a single concept has none.
    """
    profiles = _covariance(coefficients) @ components.double().cpu()
    alike = (profiles @ profiles.T).numpy()
    groups: list[Union] = [(i,) for i in range(len(alike))]
    merged: list[Union] = []
    while len(groups) > 2:
        lengths = np.sqrt(np.maximum(alike.diagonal(), 0))
        scale = np.outer(lengths, lengths)
        cosine = np.divide(alike, scale, out=np.zeros_like(alike), where=scale > 0)
        np.fill_diagonal(cosine, -1)
        first, second = sorted(divmod(int(cosine.argmax()), len(groups)))
        if cosine[first, second] <= 0:
            break
        alike[first] += alike[second]
        alike[:, first] += alike[:, second]
        alike = np.delete(np.delete(alike, second, 0), second, 1)
        groups[first] = tuple(sorted(groups[first] + groups.pop(second)))
        merged.append(groups[first])
    lone = [i for i, group in enumerate(groups) if len(group) == 1 < len(groups)]
    return (*merged, *(groups[i] for i in lone if alike[i, i] > 0))


def union_names(names: Sequence[str], members: Sequence[Union]) -> tuple[str, ...]:
    """Return the name of each union: those of its `members`, joined."""
    joined = (" + ".join(names[k] for k in union) for union in members)
    return tuple(f"{name} (object)" if name in names else name for name in joined)


def union_tensors(
    coefficients: Tensor, components: Tensor, members: Sequence[Union]
) -> tuple[Tensor | None, Tensor | None]:
    """Return what :func:`union_presence` has to know of unions; None where there are none.

    The likeness of a cell is the product of what it has beyond the average cell, in W·H, with what
    the cells of the union have beyond it.

    Args:
        coefficients: W (pixels, k).
        components: H (k, channels).
        members: of each union, as :func:`unions` gives them.

    Returns:
        The scale (unions,), the sum of its members' coefficients that is full presence; and the
        likeness (unions, k + 1), what each coefficient adds to it, and last what the average cell
        has of it: full presence is 1 above that.
    """
    if not members:
        return None, None
    within = torch.zeros(len(members), len(components), dtype=torch.float64)
    for row, union in zip(within, members, strict=True):
        row[list(union)] = 1
    h = components.double().cpu()
    weights = within @ _covariance(coefficients) @ (h @ h.T)
    weights /= weights.abs().amax(1, keepdim=True).clamp_min(1e-300)  # any size will do
    level = weights @ coefficients.mean(0).double().cpu()
    beyond = coefficients @ weights.T.to(coefficients) - level.to(coefficients)
    full = full_presence(beyond)
    inverse = torch.where(full > 0, 1 / full, torch.zeros_like(full))
    likeness = torch.column_stack([weights, level]).to(coefficients) * inverse[:, None]
    return full_presence(coefficients @ within.T.to(coefficients)), likeness


def union_presence(
    coefficients: Tensor,
    members: Sequence[Union],
    scale: Tensor,
    likeness: Tensor | None,
    *,
    most: float,
) -> Tensor:
    """Return how present unions are, (…, unions, rows, cols) in [0, `most`].

    A cell has of a union what it has of its members, and looks like the union's cells, or does
    not: concepts that are no members, but alike, speak for it, and unlike ones against it. The
    presence is the mean of the two. On photos of horses the second is worth 0.01 to 0.03 of the
    masks' IoU (docs/maps.md).

    Args:
        coefficients: W (…, k, rows, cols).
        members: of each union.
        scale: as :func:`union_tensors` gives it.
        likeness: likewise; without it the members alone count.
        most: as in :func:`dff.maps.presence`.
    """
    sums = torch.stack([coefficients[..., list(union), :, :].sum(-3) for union in members], -3)
    there = presence(sums, scale.to(sums), most=most)
    if likeness is None:
        return there
    weights, level = likeness.to(sums)[:, :-1], likeness.to(sums)[:, -1, None, None]
    alike = torch.einsum("uk,...khw->...uhw", weights, coefficients)
    beyond = (alike - level).clamp_(0, most)
    return there.add_(beyond).mul_(0.5)


def _covariance(coefficients: Tensor) -> Tensor:
    """Return the covariance (k, k) of W (pixels, k), in float64; 0 where it is only rounding.

    W counts at a power of two of its size, so that no square over- or underflows.
    """
    w = torch.ldexp(coefficients, -torch.frexp(coefficients.abs().max()).exponent)
    mean = w.mean(0).double().cpu()
    second = (w.T @ w).double().cpu() / max(1, len(w))
    covariance = second - torch.outer(mean, mean)
    return torch.where(covariance.abs() > ROUNDING * second.abs(), covariance, 0.0)
