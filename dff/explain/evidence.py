"""What speaks for a class: the evidence of an explanation's concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dff.labels import class_name
from dff.scoring import ConceptModule, Contributions, rebuild
from dff.scoring import contributions as split
from dff.scoring.contributions import Forward

if TYPE_CHECKING:
    from dff.explain.explanation import Explanation, Target

__all__ = ["concept_module", "contributions", "target_weights"]


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
    forward, coefficients = _forward(explanation, index)
    found = split(forward, coefficients, weights, targets=names, tolerance=tolerance)
    logit = weights @ explanation.logits[index]  # as the model gave it, without W·H + R between
    return replace(found, logit=logit, gap=logit - found.rest - found.values.sum(1))


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


def _forward(explanation: Explanation, index: int) -> tuple[Forward, Tensor]:
    """Return the rest of the model as a function of a photo's coefficients, and these."""
    group, item = explanation.places[index]
    tail, components = explanation.tails[group], explanation.bank.components
    rest, coefficients = _rest(explanation, index)

    def forward(w: Tensor) -> Tensor:
        return tail(rebuild(w, components.to(w), rest), item)

    return forward, coefficients


def _rest(explanation: Explanation, index: int) -> tuple[Tensor, Tensor]:
    """Return R = A - W·H (channels, rows, cols) of a photo, and W (k, rows, cols), float32."""
    group, item = explanation.places[index]
    maps = explanation.tapes[group].maps[item].detach().float()
    coefficients = explanation.coefficients[index].to(maps).clone()  # never an inference tensor
    return maps - rebuild(coefficients[None], explanation.bank.components)[0], coefficients
