"""Contributions that add up: one number a concept, and the rest, summing to the logit.

Notation: A = W·H + R. f is the rest of the model as a function of the coefficients W, with R
kept as it is; so f(W) is the model's own logit and f(0) what is left of it without the concepts.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dff.errors import UsageError
from dff.metrics import Forward

__all__ = ["Contributions", "split_logits"]

FIRST_SEGMENTS = 8
PROBES = 6
LINEAR = 1e-4


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each concept adds to the logits of one image.

    ``values.sum(1) + rest + gap == logit``.

    Attributes:
        targets: (t,) names of the classes, or "a - b" for a difference of two.
        values: (t, k) in logits.
        rest: (t,) the logit without the concepts: bias, and what they leave unexplained.
        logit: (t,) the model's own.
        gap: (t,) what the sum misses.
        maps: (t, k, rows, cols) the contribution of each cell; they add up to `values`.
        linear: closed form, because the rest of the model is linear in the coefficients (as
            found by trying); otherwise integrated gradients.
        steps: evaluations of the gradient.
    """

    targets: tuple[str, ...]
    values: Tensor
    rest: Tensor
    logit: Tensor
    gap: Tensor
    maps: Tensor = field(repr=False)
    linear: bool
    steps: int

    @property
    def relative_gap(self) -> Tensor:
        """(t,): |gap| over the logit, or over what the concepts add to it, if that is more."""
        return self.gap.abs() / _scale(self.logit, self.rest)


@torch.inference_mode(False)
def split_logits(
    forward: Forward,
    coefficients: Tensor,
    weights: Tensor,
    *,
    targets: tuple[str, ...] | None = None,
    tolerance: float = 0.01,
    max_steps: int = 512,
    batch: int = 32,
    curved: bool = False,
) -> Contributions:
    """Split logits into what each concept adds.

    Where f is linear, gradient x coefficient is exact. Elsewhere integrated gradients
    (Sundararajan et al. 2017, section 3) along the straight line from 0 to W, by the midpoint
    rule. f is known at both ends of every segment of the line, and so is the error of its
    midpoint: the worst segments are halved until the sum is right.

    Args:
        forward: f, from coefficients (m, k, rows, cols) to logits (m, classes).
        coefficients: W (k, rows, cols) of one image.
        weights: (t, classes) the mixture of logits that each target is.
        targets: (t,) their names.
        tolerance: the relative gap to stay below; but not below what the precision of the logits
            allows (a bfloat16 model's logits are good to 1%).
        max_steps: most evaluations of the gradient; the gap that is left is reported.
        batch: most evaluations at a time.
        curved: f is known not to be linear, and is not tried for that.
    """
    if coefficients.dim() != 3:
        raise UsageError(f"expected W (k, rows, cols), got {tuple(coefficients.shape)}")
    if not 0 < tolerance < 1 or max_steps < 1:
        raise UsageError(
            f"expected 0 < tolerance < 1 and max_steps >= 1, got {tolerance} and {max_steps}"
        )
    names = targets or tuple(f"target {i}" for i in range(len(weights)))
    coefficients, weights = coefficients.detach().clone(), weights.clone()
    line = _Line(forward, coefficients, weights, batch)
    gradient = None if curved else line.closed_form()
    linear = gradient is not None
    if gradient is None:
        gradient = line.integrated(tolerance, max_steps)
    maps = gradient * coefficients.double()
    values = maps.sum((2, 3))
    logit, rest = line.end, line.start
    gap = logit - rest - values.sum(1)
    values, rest, logit, gap, maps = (t.float().cpu() for t in (values, rest, logit, gap, maps))
    found = Contributions(names, values, rest, logit, gap, maps, linear, line.steps)
    if float(found.relative_gap.max()) > max(tolerance, 4 * line.precision):
        warnings.warn(
            f"the contributions miss the logit by {float(found.relative_gap.max()):.1%} after "
            f"{line.steps} steps; raise max_steps, or run the model in float32",
            RuntimeWarning,
            stacklevel=2,
        )
    return found


def _scale(logit: Tensor, rest: Tensor) -> Tensor:
    """Return what a gap is measured by."""
    return torch.maximum(logit.abs(), (logit - rest).abs()).clamp_min(1e-12)


class _Line:
    """The straight line from 0 to W, and f with its gradient along it."""

    def __init__(self, forward: Forward, w: Tensor, weights: Tensor, batch: int) -> None:
        self.forward, self.w, self.batch = forward, w, batch
        self.weights = weights
        self.steps = 0
        self.precision = 0.0
        self.start = self.end = torch.zeros(0)

    def closed_form(self) -> Tensor | None:
        """Return the gradient (t, k, rows, cols) if f is linear, else None; set both ends.

        It is if the gradient at W foretells f at 0 and at random parts of W.
        """
        generator = torch.Generator().manual_seed(0)
        parts = torch.rand((PROBES, *self.w.shape), generator=generator).to(self.w)
        parts[: PROBES // 2] = parts[: PROBES // 2, :, :1, :1]  # whole concepts, then cells
        points = torch.cat([self.w[None], torch.zeros_like(self.w[None]), parts * self.w])
        values, gradients = self._evaluate(points, only=1)
        self.end, self.start = values[0], values[1]
        gradient = gradients[0]
        moved = (points - self.w).double()
        foretold = values[0] + torch.einsum("mkhw,tkhw->mt", moved, gradient)
        error = (foretold - values).abs().amax(0)
        allowed = max(LINEAR, 2 * self.precision) * values.abs().amax(0)
        return gradient if bool((error <= allowed).all()) else None

    def integrated(self, tolerance: float, max_steps: int) -> Tensor:
        """Return the mean gradient (t, k, rows, cols) along the line."""
        edges = [i / FIRST_SEGMENTS for i in range(FIRST_SEGMENTS + 1)]
        at_edges, _ = self._at(edges, gradients=False)
        self.start, self.end = at_edges[0], at_edges[-1]
        todo = [(*edges[i : i + 2], *at_edges[i : i + 2]) for i in range(FIRST_SEGMENTS)]
        done: list[_Segment] = []
        while True:
            done += self._segments(todo)
            gap = torch.stack([s.error for s in done]).sum(0).abs()
            allowed = max(0.9 * tolerance, 4 * self.precision) * _scale(self.end, self.start)
            if bool((gap <= allowed).all()) or self.steps >= max_steps:
                break
            done.sort(key=lambda s: float((s.error.abs() / allowed).max()))
            count = min(max(1, len(done) // 2), (max_steps - self.steps + 1) // 2)
            worst, done = done[-count:], done[:-count]
            todo = [half for s in worst for half in s.halves()]
        total = torch.zeros_like(done[0].gradient)
        for segment in done:
            total += (segment.b - segment.a) * segment.gradient
        return total

    def _segments(self, todo: list[tuple[float, float, Tensor, Tensor]]) -> list[_Segment]:
        values, gradients = self._at([(a + b) / 2 for a, b, _, _ in todo])
        w = self.w.double()
        found = []
        for (a, b, at_a, at_b), value, gradient in zip(todo, values, gradients, strict=True):
            estimate = (b - a) * (gradient * w).sum((1, 2, 3))
            found.append(_Segment(a, b, at_a, at_b, value, gradient, at_b - at_a - estimate))
        return found

    def _at(self, places: list[float], *, gradients: bool = True) -> tuple[Tensor, Tensor]:
        along = torch.tensor(places, dtype=self.w.dtype, device=self.w.device)
        return self._evaluate(along[:, None, None, None] * self.w, only=None if gradients else 0)

    def _evaluate(self, points: Tensor, *, only: int | None = None) -> tuple[Tensor, Tensor]:
        """Return f (m, t) and its gradients (n, t, k, rows, cols) at the first `only` points."""
        values, gradients = [], []
        wanted = len(points) if only is None else only
        self.steps += wanted
        for first in range(0, len(points), self.batch):
            part = points[first : first + self.batch].detach()
            count = min(max(wanted - first, 0), len(part))
            with torch.set_grad_enabled(count > 0):
                part = part.requires_grad_(count > 0)
                scores = self.forward(part)
                self.precision = torch.finfo(scores.dtype).eps
                scores = scores.float() @ self.weights.to(scores.device).float().T
                if count:
                    gradients.append(self._gradients(scores[:count], part)[:count])
            values.append(scores.detach().double())
        empty = points.new_zeros((0, len(self.weights), *self.w.shape))
        return torch.cat(values), torch.cat(gradients) if gradients else empty

    def _gradients(self, scores: Tensor, part: Tensor) -> Tensor:
        found = []
        for t in range(scores.shape[1]):
            if scores.requires_grad:
                (gradient,) = torch.autograd.grad(
                    scores[:, t].sum(), part, retain_graph=True, allow_unused=True
                )
            else:
                gradient = None
            found.append(torch.zeros_like(part) if gradient is None else gradient.detach())
        return torch.stack(found, 1).double()


@dataclass(frozen=True, eq=False)
class _Segment:
    """A part [a, b] of the line: f at its ends and middle, the middle's gradient, its error."""

    a: float
    b: float
    at_a: Tensor
    at_b: Tensor
    at_middle: Tensor
    gradient: Tensor
    error: Tensor

    def halves(self) -> list[tuple[float, float, Tensor, Tensor]]:
        middle = (self.a + self.b) / 2
        return [
            (self.a, middle, self.at_a, self.at_middle),
            (middle, self.b, self.at_middle, self.at_b),
        ]
