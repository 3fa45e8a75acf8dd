"""How far an explanation can be trusted: faithfulness of one photo's concepts to the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dff.activations.context import given_rows
from dff.concepts import ConceptBank, factorize
from dff.errors import DFFError
from dff.explain.one_pass import one_pass
from dff.explain.photo import Photo, Target
from dff.explain.questions.evidence import Evidence, photo_contributions, rest_of_model
from dff.maps import presence, upsample
from dff.metrics import Curve, pixel_curve
from dff.rendering import curves
from dff.scoring import rebuild
from dff.scoring.faithfulness import (
    Agreement,
    agreement,
    concept_curve,
    randomized,
    similarity,
)

__all__ = ["Answer", "Check", "check_photo", "verdict"]

RANDOM_ORDERS = 10

GOOD = {
    "concept_deletion_auc": "less than random deletion",
    "concept_insertion_auc": "more than random insertion",
    "pixel_deletion_auc": "small",
    "pixel_insertion_auc": "large",
    "logit_correlation": "near 1",
    "top1_agreement": "1: the same class",
    "contribution_gap": "near 0",
    "randomized_similarity": "below 0.8",
}
UNRELATED = 0.8
"""Up to so much alike are the concept maps of unrelated photos: 0.37 to 0.77, 90 % of pairs."""


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
        xlabel = f"share taken out or put in (probability of {self.target})"
        return curves(x.tolist(), lines, xlabel=xlabel)

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

    def rows(self) -> list[tuple[str, str, str]]:
        """Return each figure as text: what it is, its value, and what is good."""
        return [
            (
                name.replace("_", " "),
                "not defined" if value is None else f"{value:.3g}" if value > 1e-4 else "0",
                GOOD.get(name, ""),
            )
            for name, value in self.as_dict().items()
            if name != "target"
        ]


Answer = Evidence | Check
"""What can be asked about a photo."""


@torch.inference_mode(False)
def check_photo(photo: Photo, target: Target | None, *, seed: int = 0) -> Check:
    """Measure how faithful the photo's concepts are to the model, for one class."""
    photo.shared.check_scored()
    photo.check_still("a check")
    class_index = photo.target(target)
    split = photo_contributions(photo, class_index)
    forward, w = rest_of_model(photo)
    probabilities = photo.shared.meaning.probabilities
    concepts = partial(concept_curve, forward, w, target=class_index, probabilities=probabilities)
    order = split.values[0].argsort(descending=True).tolist()
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(w)).tolist() for _ in range(RANDOM_ORDERS)]
    image, whole = photo.image.float(), partial(photo.tail.whole, item=photo.item)
    size = (int(image.shape[1]), int(image.shape[2]))
    heatmap = upsample(split.maps[0].sum(0).numpy(), size, photo.layer_grid)
    pixels = partial(pixel_curve, whole, image, heatmap, class_index, probabilities=probabilities)
    return Check(
        target=split.targets[0],
        deletion=concepts(order),
        insertion=concepts(order, mode="insertion"),
        random_deletion=_mean_auc(map(concepts, orders)),
        random_insertion=_mean_auc(concepts(order, mode="insertion") for order in orders),
        pixel_deletion=pixels(),
        pixel_insertion=pixels(mode="insertion"),
        agreement=agreement(photo.logits[None], _rebuilt_logits(photo, w)),
        gap=float(split.relative_gap[0]),
        randomization=_randomization(photo, seed),
    )


def _rebuilt_logits(photo: Photo, w: Tensor) -> Tensor:
    """Return the logits (1, classes) of the model on W·H, and the offset where there is one."""
    offset = photo.bank.offset
    upon = None if offset is None else offset[:, None, None]
    with torch.no_grad():
        maps = rebuild(w[None], photo.bank.components, upon)
        return photo.tail(maps, photo.item).float().cpu()


def _mean_auc(curves: Iterable[Curve]) -> float:
    return float(np.mean([curve.auc for curve in curves]))


def _randomization(photo: Photo, seed: int) -> float:
    """Return how like the photo's concept maps are to those of the model with shuffled weights."""
    tail = photo.tail

    def fit(rows: Tensor) -> tuple[ConceptBank, Tensor]:
        return factorize(rows, len(photo.bank), layer=tail.layer)

    try:
        shuffled = one_pass(
            given_rows(randomized(tail.model, seed=seed), [photo.item]),
            tail.layer,
            [photo.image[None]],
            fit,
            layout=tail.layout,
            score=tail.score,
            grad=False,
        )
    except DFFError:
        return float("nan")
    maps = presence(shuffled.coefficients[0][0].cpu(), shuffled.bank.scale.cpu()).numpy()
    return similarity(photo.maps()[:, :: photo.fine, :: photo.fine], maps)


def verdict(figures: dict[str, Any]) -> str:
    """Return in words what a check's figures say (:meth:`Check.as_dict`)."""
    ours, random = figures["concept_deletion_auc"], figures["random_deletion_auc"]
    said = []
    if ours < random:
        said.append(
            f"the class falls faster as the most important concepts are taken out ({ours:.3g}) "
            f"than in random order ({random:.3g}): they matter as they say"
        )
    else:
        said.append(
            f"the class falls no faster as the most important concepts are taken out ({ours:.3g}) "
            f"than in random order ({random:.3g}): their order says little"
        )
    same = figures["logit_correlation"] >= 0.95 and figures["top1_agreement"] == 1
    said.append(
        "the concepts alone make the model say "
        + ("the same" if same else "something else: more concepts may help")
    )
    if figures["contribution_gap"] > 0.05:
        said.append(f"contributions miss {figures['contribution_gap']:.0%} of the logit")
    alike = figures["randomized_similarity"]
    if alike is not None:
        said.append(
            f"with its weights shuffled the maps stay nearly the same ({alike:.2g}): they show how "
            "the photo is laid out, more than what the model has learnt"
            if alike >= UNRELATED
            else f"with its weights shuffled the maps are no more alike ({alike:.2g}) than those "
            "of unrelated photos: they show what the model has learnt"
        )
    return "; ".join(said)
