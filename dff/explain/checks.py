"""How far an explanation can be trusted: faithfulness of one photo's concepts to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dff import scoring
from dff.bank import ConceptBank
from dff.errors import DFFError
from dff.explain.evidence import forward_of, target_weights
from dff.explain.factorize import factorize
from dff.explain.passes import one_pass
from dff.faithfulness import (
    Agreement,
    Curve,
    agreement,
    concept_curve,
    pixel_curve,
    randomized,
    similarity,
)
from dff.heatmaps import presence, upsample
from dff.rendering.plots import curves
from dff.scoring import rebuild

if TYPE_CHECKING:
    from dff.explain.explanation import Explanation, Target

__all__ = ["Check", "check"]

RANDOM_ORDERS = 10


@dataclass(frozen=True, eq=False)
class Check:
    """What was measured of one photo and one class.

    Attributes:
        target: name of the class.
        deletion: of the class's probability as concepts are taken out, in the order of their
            contributions; the area under it is small if they matter.
        insertion: as they are put in; the area is large if they matter.
        random_deletion: mean area under the curve over random orders, to compare with.
        random_insertion: likewise.
        pixel_deletion: as pixels are taken away in the order of the contribution map.
        pixel_insertion: as they are put back.
        agreement: the model on W·H against the model on A.
        gap: relative gap of the contributions.
        randomization: likeness of the concept maps to those of the model with shuffled weights
            (1: the same, so they say nothing about what the model learnt); NaN where the
            shuffled model gives nothing to factorize.
    """

    target: str
    deletion: Curve
    insertion: Curve
    random_deletion: float
    random_insertion: float
    pixel_deletion: Curve
    pixel_insertion: Curve
    agreement: Agreement
    gap: float
    randomization: float

    def plot(self) -> Image.Image:
        """Draw the four curves."""
        x = np.linspace(0, 1, 21)
        lines = {
            f"{name} (AUC {curve.auc:.2f})": np.interp(x, curve.shares, curve.values).tolist()
            for name, curve in (
                ("concepts out", self.deletion),
                ("concepts in", self.insertion),
                ("pixels out", self.pixel_deletion),
                ("pixels in", self.pixel_insertion),
            )
        }
        what = f"share taken out or put in (probability of {self.target})"
        return curves(x.tolist(), lines, xlabel=what)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "target": self.target,
            "concept_deletion_auc": self.deletion.auc,
            "concept_insertion_auc": self.insertion.auc,
            "random_deletion_auc": self.random_deletion,
            "random_insertion_auc": self.random_insertion,
            "pixel_deletion_auc": self.pixel_deletion.auc,
            "pixel_insertion_auc": self.pixel_insertion.auc,
            "logit_correlation": self.agreement.correlation,
            "top1_agreement": self.agreement.top1,
            "contribution_gap": self.gap,
            "randomized_similarity": None if np.isnan(self.randomization) else self.randomization,
        }


def check(explanation: Explanation, target: Target | None, index: int, *, seed: int = 0) -> Check:
    """See :meth:`Explanation.check`."""
    explanation.check_scored()
    wanted = explanation.target(target, index)
    (name,), weights = target_weights(explanation, wanted, index)
    forward, w = forward_of(explanation, index)
    found = scoring.contributions(forward, w, weights)
    order = found.values[0].argsort(descending=True).tolist()
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(w)).tolist() for _ in range(RANDOM_ORDERS)]
    group, item = explanation.places[index]
    tail = explanation.tails[group]
    image = tail.inputs[item].detach().float()
    heatmap = upsample(
        found.maps[0].sum(0).numpy(), (image.shape[1], image.shape[2]), explanation.grids[index]
    )
    with torch.no_grad():
        rebuilt = tail(rebuild(w[None], explanation.bank.components), item).float().cpu()
    return Check(
        target=name,
        deletion=concept_curve(forward, w, order, wanted),
        insertion=concept_curve(forward, w, order, wanted, mode="insertion"),
        random_deletion=_mean_auc(forward, w, orders, wanted, "deletion"),
        random_insertion=_mean_auc(forward, w, orders, wanted, "insertion"),
        pixel_deletion=pixel_curve(tail.whole, image, heatmap, wanted),
        pixel_insertion=pixel_curve(tail.whole, image, heatmap, wanted, mode="insertion"),
        agreement=agreement(explanation.logits[index][None], rebuilt),
        gap=float(found.relative_gap[0]),
        randomization=_randomization(explanation, index, seed),
    )


def _mean_auc(
    forward: scoring.Forward, w: Tensor, orders: Sequence[Sequence[int]], target: int, mode: str
) -> float:
    areas = [concept_curve(forward, w, order, target, mode=mode).auc for order in orders]
    return float(np.mean(areas))


def _randomization(explanation: Explanation, index: int, seed: int) -> float:
    """Return how like the photo's concept maps are to those of the model with shuffled weights."""
    group, item = explanation.places[index]
    tail, bank = explanation.tails[group], explanation.bank

    def fit(rows: Tensor) -> tuple[ConceptBank, Tensor]:
        return factorize(rows, len(bank), layer=tail.layer)

    try:
        found = one_pass(
            randomized(tail.model, seed=seed),
            tail.layer,
            [tail.inputs[item : item + 1]],
            fit,
            layout=tail.layout,
            score=tail.score,
            grad=False,
        )
    except DFFError:
        return float("nan")
    others = presence(found.coefficients[0][0].cpu(), found.bank.scale.cpu()).numpy()
    return similarity(explanation.maps(index), others)
