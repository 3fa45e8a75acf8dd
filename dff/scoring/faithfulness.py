"""Is what the concepts say true of the model? Curves, agreement, randomisation.

- :func:`concept_curve`: the class's score as concepts are taken out, or put in, one by one
  (with pixels: :func:`dff.metrics.pixel_curve`).
- :func:`agreement`: the model on A against the model on W·H.
- :func:`randomized`, :func:`similarity`: whether the concepts of a randomised model differ.

Notation: A (pixels x channels) ~= W (pixels x concepts) · H (concepts x channels).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dff.errors import UsageError
from dff.metrics.curves import SOFTMAX, Curve, Forward, check_mode, probability

__all__ = [
    "Agreement",
    "agreement",
    "concept_curve",
    "randomized",
    "similarity",
]


@dataclass(frozen=True)
class Agreement:
    """How much of what the model says is left when it sees W·H instead of A.

    Attributes:
        correlation: Pearson, of the classes' logits, mean over the images; in [-1, 1].
        top1: share of the images with the same likeliest class.
    """

    correlation: float
    top1: float


def concept_curve(
    forward: Forward,
    coefficients: Tensor,
    order: Sequence[int],
    target: int,
    *,
    mode: str = "deletion",
    probabilities: Forward = SOFTMAX,
) -> Curve:
    """Take concepts out of an image (or put them in), in an order, and watch a class.

    Args:
        forward: from coefficients (m, k, rows, cols) to logits (m, classes).
        coefficients: W (k, rows, cols) of the image.
        order: all k concepts, the most important first.
        target: class index.
        mode: "deletion" begins with the image and ends without concepts; "insertion" the other
            way round.
        probabilities: of logits (m, classes).

    Raises:
        UsageError: an order that is none, or another mode.
    """
    check_mode(mode)
    if sorted(order) != list(range(len(coefficients))):
        raise UsageError(f"expected all {len(coefficients)} concepts in some order, got {order}")
    count = len(coefficients)
    rank = torch.empty(count, dtype=torch.long)
    rank[list(order)] = torch.arange(count)
    touched = rank[None] < torch.arange(count + 1)[:, None]  # (steps, k)
    kept = touched if mode == "insertion" else ~touched
    with torch.no_grad():
        masks = kept.to(coefficients)[:, :, None, None]
        values = probability(forward(masks * coefficients), target, probabilities)
    return Curve(np.linspace(0, 1, count + 1), values)


def agreement(logits: Tensor, rebuilt: Tensor) -> Agreement:
    """Compare logits (n, classes) of the model on A with those on W·H.

    One logit alone is compared as two classes, -z and z.

    Raises:
        UsageError: the shapes differ.
    """
    if logits.shape != rebuilt.shape or logits.dim() != 2:
        raise UsageError(
            f"expected two tensors (images, classes), got {tuple(logits.shape)} and "
            f"{tuple(rebuilt.shape)}"
        )
    if logits.shape[1] == 1:
        logits, rebuilt = (torch.cat([-z, z], 1) for z in (logits, rebuilt))
    a, b = logits.double(), rebuilt.double()
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norm = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-300)
    same = (logits.argmax(1) == rebuilt.argmax(1)).double()
    return Agreement(float(((a * b).sum(1) / norm).mean()), float(same.mean()))


def randomized(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Return a copy of a model whose weight matrices and kernels are shuffled within themselves.

    Nothing that it learnt is left, but the size of its activations is (Adebayo et al. 2018 draw
    new weights; shuffling keeps their distribution). The model itself is not touched.
    """
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.dim() >= 2:
                shuffled = torch.randperm(parameter.numel(), generator=generator)
                flat = parameter.flatten()[shuffled.to(parameter.device)]
                parameter.copy_(flat.view(parameter.shape))
    return other


def similarity(maps: np.ndarray, others: np.ndarray) -> float:
    """Return the mean correlation of concept maps (k, ...) with their best partners in others.

    Concepts are matched one to one so that the mean is the largest; 1 for the same maps in any
    order. A constant map correlates with nothing (0).

    Raises:
        UsageError: maps of different sizes.
    """
    from scipy.optimize import linear_sum_assignment  # heavy

    if maps.shape[1:] != others.shape[1:]:
        raise UsageError(f"maps of {maps.shape[1:]} and {others.shape[1:]} do not compare")
    first, second = (_standardized(m.reshape(len(m), -1)) for m in (maps, others))
    correlation = first @ second.T
    rows, cols = linear_sum_assignment(-correlation)
    return float(correlation[rows, cols].mean())


def _standardized(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64) - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
