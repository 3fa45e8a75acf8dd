"""The other evidence of what concepts say about classes: one function each.

All take f, the rest of the model as a function of coefficients, W (k, rows, cols) of one image,
and weights (t, classes), the mixture of logits that each target is; all return (t, k), in logits:
positive speaks for the target. `sobol` alone is unsigned, a share.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dff.errors import UsageError
from dff.metrics import Forward
from dff.metrics.removal import blurred

__all__ = ["ablation", "blur_ablation", "gradient_times_coefficient", "sobol"]


@torch.no_grad()
def ablation(forward: Forward, coefficients: Tensor, weights: Tensor) -> Tensor:
    """Return how much each logit falls when a concept is taken out of the activations.

    f(W) - f(W without concept k): the activations become A - Wₖ·Hₖ.
    """
    count = len(coefficients)
    masks = torch.ones(count + 1, count) - torch.eye(count + 1, count)
    values = _values(forward, masks, coefficients, weights)
    return (values[-1] - values[:-1]).T


@torch.inference_mode(False)
def gradient_times_coefficient(forward: Forward, coefficients: Tensor, weights: Tensor) -> Tensor:
    """Return gradient x coefficient, summed over the cells; one forward and backward pass.

    Equals the contributions where f is linear.
    """
    coefficients, weights = coefficients.detach().clone(), weights.clone()
    with torch.enable_grad():
        leaf = coefficients[None].clone().requires_grad_()
        scores = _mixed(forward(leaf), weights)[0]
        if not scores.requires_grad:
            return torch.zeros(len(weights), len(coefficients))
        gradients = [torch.autograd.grad(s, leaf, retain_graph=True)[0][0] for s in scores]
    return (torch.stack(gradients) * coefficients).sum((2, 3)).float().cpu()


@torch.no_grad()
def sobol(
    forward: Forward, coefficients: Tensor, weights: Tensor, *, designs: int = 32, seed: int = 0
) -> Tensor:
    """Return the total Sobol indices: each concept's share of a logit's variance.

    Interactions with other concepts are counted in. Concepts are scaled by random factors in
    [0, 1], as in CRAFT (Fel et al. 2023, section 3.3); the estimator is Jansen's (1999):
    E[(f(A) - f(A with column k of B))²] / (2 Var f(A)), over quasi-random designs A and B
    (a scrambled Sobol' sequence with a seed of its own).

    Args:
        forward: f. CRAFT's own leaves out what no concept explains; with it, f is the model.
        coefficients: W (k, rows, cols).
        weights: (t, classes).
        designs: rows of A and of B, a power of 2 for a balanced sequence; f is evaluated
            designs · (k + 1) times.
        seed: of the scrambling.

    Returns:
        (t, k), 0 or more; 0 where a logit does not vary.

    Raises:
        UsageError: fewer than 2 designs, or not a power of 2.
    """
    if designs < 2 or designs & (designs - 1):
        raise UsageError(f"designs is a power of 2 from 2 on, not {designs!r}")
    count = len(coefficients)
    sequence = torch.quasirandom.SobolEngine(2 * count, scramble=True, seed=seed)
    a, b = sequence.draw(designs).split(count, 1)
    mixed = a.repeat(count, 1, 1)  # (k, designs, k): A with column k of B
    for k in range(count):
        mixed[k, :, k] = b[:, k]
    values = _values(forward, torch.cat([a, mixed.flatten(0, 1)]), coefficients, weights).double()
    base, others = values[:designs], values[designs:].unflatten(0, (count, designs))
    variance = base.var(0, correction=0)
    effect = (others - base).square().mean(1) / 2
    return torch.where(variance > 0, effect / variance, 0.0).T.float()


def blur_ablation(
    score: Callable[[Tensor], Tensor],
    image: Tensor,
    masks: Tensor,
    weights: Tensor,
    *,
    strength: float = 1 / 16,
) -> Tensor:
    """Return how much each logit falls when a concept's region of the picture is blurred.

    Args:
        score: from images (m, 3, height, width) to logits (m, classes): the whole model.
        image: (3, height, width) its normalised input.
        masks: (k, height, width) in [0, 1]: where each concept is, and how much.
        weights: (t, classes).
        strength: standard deviation of the blur, as a part of the short side.

    Raises:
        UsageError: masks of another size than the image.
    """
    if masks.dim() != 3 or masks.shape[1:] != image.shape[1:]:
        raise UsageError(
            f"expected masks (k, {image.shape[1]}, {image.shape[2]}), got {tuple(masks.shape)}"
        )
    without = blurred(image.float(), strength)
    shares = masks.to(without)[:, None]
    images = image * (1 - shares) + without * shares
    with torch.no_grad():
        values = _mixed(score(torch.cat([image[None].to(images), images])), weights)
    return (values[:1] - values[1:]).T.float().cpu()


def _values(forward: Forward, masks: Tensor, coefficients: Tensor, weights: Tensor) -> Tensor:
    """Return f (m, t) of the coefficients scaled by masks (m, k)."""
    shares = masks.to(coefficients)[:, :, None, None]
    return torch.cat(
        [_mixed(forward(part * coefficients), weights).float().cpu() for part in shares.split(64)]
    )


def _mixed(logits: Tensor, weights: Tensor) -> Tensor:
    """Return the targets' values (m, t)."""
    return logits.float() @ weights.to(logits.device).float().T
