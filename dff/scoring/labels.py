"""Labels: the classes that concepts speak for in one photo, and how sure that is.

Two things are asked of the rest of the model for each concept:

- *What is where it is?* The photo's own activations are kept in the concept's surroundings, and
  faded to their mean elsewhere. The photo's own logits join in, as a prior.
- *Is it by the concept?* Of all that a class has from the photo (by ablation), does this concept
  add its share? Grass around a horse lies among the horse's cells, and adds nothing to "horse".

The first answer is the confidence, the second decides whether the concept speaks for the class at
all. Logits over a part of a photo have another spread over the classes than those of photos, by
layer and by model; the spread is brought to that of the photo's own, so that no temperature is
left to fit. Rule and constants were chosen on mosaics of two photos, scenes of three creatures
and photos of horses (``benchmarks/labels.py`` shows how often labels are right). Peers label a
concept by the softmax of its embedding, which no photo's activations are like.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dff.activations.outputs import Meaning
from dff.maps import presence

__all__ = ["LEAST", "SHARE", "confidences", "label_probes"]

SURROUNDINGS = 3.0
"""Standard deviation, in cells, of the Gaussian that widens a concept's map."""
SHARPNESS, PRIOR = 1.75, 0.3
"""Weights of what is where the concept is, and of the photo's logits."""
SHARE = 0.8
"""A concept of k speaks for a class if it adds at least this part of 1/k of what the class has:
its logit over the mean of all, or what all concepts add to that, if it is more."""
LEAST = 0.2
"""What is less sure is no label."""


def label_probes(
    maps: Tensor, coefficients: Tensor, components: Tensor, scale: Tensor, *, grids: int = 1
) -> Tensor:
    """Return the activations that the rest of the model is asked about, two a concept.

    Args:
        maps: A (channels, rows, cols) of one photo.
        coefficients: W (k, rows, cols).
        components: H (k, channels).
        scale: (k,) full presence.
        grids: how many grids lie one below the other in the rows, as of a clip.

    Returns:
        (2k, channels, rows, cols): A - Wₖ·Hₖ of each concept, then A in the surroundings of each
        and its mean over them elsewhere.
    """
    alone = torch.einsum("khw,kc->kchw", coefficients, components)
    there = _widened(presence(coefficients, scale).unflatten(1, (grids, -1))).flatten(1)
    mean = (there @ maps.flatten(1).T) / there.sum(1, keepdim=True).clamp_min(1e-12)
    faded = torch.lerp(mean[:, :, None, None], maps, there.view_as(coefficients)[:, None])
    return torch.cat([maps - alone, faded])


def confidences(logits: Tensor, probed: Tensor, meaning: Meaning) -> Tensor:
    """Return how sure it is that each concept speaks for each class.

    Args:
        logits: (classes,) of the photo.
        probed: (2k, classes) of its :func:`label_probes`.
        meaning: how logits become probabilities.

    Returns:
        (k, classes) in [0, 1]; 0 for classes to which a concept does not add its share. Where
        classes exclude each other, a row adds to 1 at most.
    """
    ablated, there = probed.float().chunk(2)
    logits = logits.float()
    if meaning.exclusive:
        spread = logits.std() / there.std(1).mean().clamp_min(1e-12)
        there = SHARPNESS * spread * there + PRIOR * logits
    added = meaning.relative(logits - ablated).clamp_min(0)
    whole = torch.maximum(added.sum(0), meaning.relative(logits))
    enough = added > SHARE / len(added) * whole
    return torch.where(enough, meaning.probabilities(there), 0.0)


def _widened(maps: Tensor) -> Tensor:
    """Return maps (…, rows, cols) with their surroundings, each 1 at its peak."""
    rows, cols = (_gaussian(length, maps) for length in maps.shape[-2:])
    wide = rows @ maps @ cols
    return wide / wide.amax((-3, -2, -1), keepdim=True).clamp_min(1e-12)


def _gaussian(length: int, like: Tensor) -> Tensor:
    at = torch.arange(length, dtype=like.dtype, device=like.device)
    return (-((at[:, None] - at) ** 2) / (2 * SURROUNDINGS**2)).exp()
