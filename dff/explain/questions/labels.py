"""What a photo's concepts speak for in it: labels, each with a confidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dff.concepts import ConceptBank
from dff.explain.photo import Photo
from dff.scoring import confidences, label_probes
from dff.scoring.labels import LEAST

__all__ = ["Label", "ask_for_labels", "first_labels", "photo_labels"]

TOGETHER = 64
"""Probes of a batch that join its own pass, at most; more are asked for when they are needed."""
LEAST_FURTHER = 0.02
"""What is less sure does not follow a label."""


@dataclass(frozen=True)
class Label:
    """A class that a concept speaks for in a photo.

    Attributes:
        index: of the class.
        name: of the class.
        confidence: how sure that is, in [0, 1]; of labels at 0.8, 80% were right
            (``benchmarks/labels.py``).
    """

    index: int
    name: str
    confidence: float


@torch.inference_mode(False)
def photo_labels(photo: Photo, *, top_k: int = 3) -> list[list[Label]]:
    """Return for each concept the classes that it speaks for in the photo, the surest first.

    A list is empty where the concept speaks for no class (background, or nothing clear), and all
    are where concepts have no scores.
    """
    if photo.shared.unscored:
        return [[] for _ in range(len(photo.bank))]
    sure = confidences(photo.logits, photo.probe_logits.cpu(), photo.shared.meaning)
    return [_labels(photo, row, top_k) for row in sure]


def first_labels(photos: Sequence[Photo]) -> list[Counter[int]]:
    """Return for each concept that photos share in how many of them a class is its first label."""
    each = [photo_labels(photo, top_k=1) for photo in photos]
    return [Counter(x[0].index for x in column if x) for column in zip(*each, strict=True)]


def ask_for_labels(maps: Tensor, bank: ConceptBank, coefficients: Tensor) -> Tensor | None:
    """Return the probes of a batch's photos (:data:`dff.explain.one_pass.Probe`), if few."""
    if 2 * len(maps) * len(bank) > TOGETHER:
        return None
    probes = [
        label_probes(one.float(), w.to(one.device), bank.components, bank.scale)
        for one, w in zip(maps, coefficients, strict=True)
    ]
    return torch.stack(probes)


def _labels(photo: Photo, sure: Tensor, top_k: int) -> list[Label]:
    values, indices = sure.topk(min(top_k, len(sure)))
    found = [
        Label(index, photo.shared.class_name(index), value)
        for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        if value >= LEAST_FURTHER
    ]
    return found if found and found[0].confidence >= LEAST else []
