"""What a concept speaks for in a photo, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dff.explain.evidence import photo_evidence
from dff.explain.photo import Photo

__all__ = ["Label", "photo_labels"]

CLASSES = 5
LEAST_DROP = 0.05  # of what all concepts together take from the class


@dataclass(frozen=True)
class Label:
    """What a concept speaks for in a photo, and how sure that is."""

    index: int
    name: str
    confidence: float


def photo_labels(photo: Photo, *, top_k: int = 3) -> list[list[Label]]:
    """Return each concept's labels, best first.

    The softmax, over the photo's likeliest classes, of how far a logit falls without the concept.
    Empty for a concept of no class, and for all where the model has no head or concepts no scores.
    """
    if photo.shared.unscored:
        return [[] for _ in range(len(photo.bank))]
    likeliest = photo.predictions(top_k=CLASSES)
    drops = photo_evidence(photo, "ablation", [c.index for c in likeliest]).values
    shares = drops.clamp_min(0) / drops.clamp_min(0).sum(1, keepdim=True).clamp_min(1e-6)
    confidence = torch.softmax(drops, 0)
    labels: list[list[Label]] = []
    for k in range(len(photo.bank)):
        order = confidence[:, k].argsort(descending=True).tolist()[:top_k]
        heard = float(shares[:, k].max()) >= LEAST_DROP
        chosen = order if heard else []
        labels.append(
            [Label(likeliest[i].index, likeliest[i].name, float(confidence[i, k])) for i in chosen]
        )
    return labels
