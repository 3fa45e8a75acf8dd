"""What speaks for a class: the evidence of an explanation's concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dff import scoring
from dff.errors import UsageError, closest
from dff.heatmaps import presence, upsample
from dff.labels import class_name
from dff.scoring import ConceptModule, Contributions, Forward, rebuild
from dff.scoring.tail import BUDGET

if TYPE_CHECKING:
    from dff.explain.explanation import Explanation, Target

__all__ = [
    "EVIDENCE",
    "Evidence",
    "check_evidence",
    "concept_module",
    "contributions",
    "evidence",
    "forward_of",
    "target_weights",
]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What each concept of a photo says about classes, by one way of asking.

    Attributes:
        kind: a key of :data:`EVIDENCE`.
        targets: (t,) names of the classes.
        values: (t, k); in logits, but shares of the variance for "sobol".
        details: of "contributions": the rest, the logit, the gap; else None.
    """

    kind: str
    targets: tuple[str, ...]
    values: Tensor
    details: Contributions | None = None

    def as_dict(self, target: int = 0) -> dict[str, Any]:
        """Return one target's values as plain data."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "target": self.targets[target],
            "values": self.values[target].tolist(),
        }
        if self.details is not None:
            for name in ("rest", "gap", "logit"):
                found[name] = float(getattr(self.details, name)[target])
        return found


def contributions(
    explanation: Explanation,
    target: Target | Sequence[Target] | None,
    index: int,
    *,
    versus: Target | None = None,
    tolerance: float = 0.01,
) -> Contributions:
    """See :meth:`Explanation.contributions`."""
    explanation.check_scored()
    names, weights = target_weights(explanation, target, index, versus)
    forward, coefficients = forward_of(explanation, index)
    found = scoring.contributions(
        forward,
        coefficients,
        weights,
        targets=names,
        tolerance=tolerance,
        batch=_gradient_batch(explanation, index),
    )
    logit = weights @ explanation.logits[index]  # as the model gave it, without W·H + R between
    return replace(found, logit=logit, gap=logit - found.rest - found.values.sum(1))


def evidence(
    explanation: Explanation,
    kind: str,
    target: Target | Sequence[Target] | None,
    index: int,
    *,
    versus: Target | None = None,
) -> Evidence:
    """See :meth:`Explanation.evidence`."""
    check_evidence([kind])
    if kind == CONTRIBUTIONS:
        split = contributions(explanation, target, index, versus=versus)
        return Evidence(kind, split.targets, split.values, split)
    explanation.check_scored()
    names, weights = target_weights(explanation, target, index, versus)
    return Evidence(kind, names, _OTHERS[kind](explanation, index, weights))


def check_evidence(kinds: Sequence[str] | None) -> tuple[str, ...]:
    """Return the kinds of evidence asked for.

    Raises:
        UsageError: there is no such kind.
    """
    for kind in kinds or ():
        if kind not in EVIDENCE:
            hint = closest(kind, EVIDENCE)
            raise UsageError(
                f"there is no evidence {kind!r}{hint or '; choose from ' + ', '.join(EVIDENCE)}"
            )
    return tuple(kinds or ())


def _ablation(explanation: Explanation, index: int, weights: Tensor) -> Tensor:
    return scoring.ablation(*forward_of(explanation, index), weights)


def _gradient(explanation: Explanation, index: int, weights: Tensor) -> Tensor:
    return scoring.gradient_times_coefficient(*forward_of(explanation, index), weights)


def _sobol(explanation: Explanation, index: int, weights: Tensor) -> Tensor:
    return scoring.sobol(*forward_of(explanation, index), weights)


def _blur(explanation: Explanation, index: int, weights: Tensor) -> Tensor:
    group, item = explanation.places[index]
    tail = explanation.tails[group]
    image = tail.inputs[item].detach()
    cells = presence(explanation.coefficients[index], explanation.bank.scale.cpu())
    size = (int(image.shape[1]), int(image.shape[2]))
    masks = upsample(cells, size, explanation.grids[index])
    return scoring.blur_ablation(tail.whole, image, masks, weights)


CONTRIBUTIONS = "contributions"
_OTHERS: dict[str, Callable[[Explanation, int, Tensor], Tensor]] = {
    "ablation": _ablation,
    "blur": _blur,
    "sobol": _sobol,
    "gradient": _gradient,
}
EVIDENCE = (CONTRIBUTIONS, *_OTHERS)
"""The ways of asking what concepts say about classes."""


def concept_module(explanation: Explanation, index: int = 0) -> ConceptModule:
    """See :meth:`Explanation.concept_module`."""
    explanation.check_scored()
    group, item = explanation.places[index]
    rest, _ = _rest(explanation, index)
    return ConceptModule(explanation.tails[group], explanation.bank, rest=rest, item=item)


def target_weights(
    explanation: Explanation,
    target: Target | Sequence[Target] | None,
    index: int,
    versus: Target | None = None,
) -> tuple[tuple[str, ...], Tensor]:
    """Return the targets' names, and (t, classes) the mixture of logits that each one is."""
    wanted = [target] if target is None or isinstance(target, (int, str)) else list(target)
    classes = [explanation.target(one, index) for one in wanted]
    names = [class_name(one, explanation.class_names) for one in classes]
    weights = torch.zeros(len(classes), explanation.logits.shape[1])
    weights[range(len(classes)), classes] = 1
    if versus is not None:
        other = explanation.target(versus, index)
        weights[:, other] -= 1
        names = [f"{name} - {class_name(other, explanation.class_names)}" for name in names]
    return tuple(names), weights


def forward_of(explanation: Explanation, index: int) -> tuple[Forward, Tensor]:
    """Return the rest of the model as a function of a photo's coefficients, and these."""
    group, item = explanation.places[index]
    tail, components = explanation.tails[group], explanation.bank.components
    rest, coefficients = _rest(explanation, index)

    def forward(w: Tensor) -> Tensor:
        return tail(rebuild(w, components.to(w), rest), item)

    return forward, coefficients


def _gradient_batch(explanation: Explanation, index: int) -> int:
    """Return how many items may be recorded at a time: fewer where the grid is large."""
    maps = explanation.tapes[explanation.places[index][0]].maps
    return max(1, min(32, BUDGET // 2 // maps[0].numel()))


def _rest(explanation: Explanation, index: int) -> tuple[Tensor, Tensor]:
    """Return R = A - W·H (channels, rows, cols) of a photo, and W (k, rows, cols), float32."""
    group, item = explanation.places[index]
    maps = explanation.tapes[group].maps[item].detach().float()
    coefficients = explanation.coefficients[index].to(maps).clone()  # never an inference tensor
    return maps - rebuild(coefficients[None], explanation.bank.components)[0], coefficients
