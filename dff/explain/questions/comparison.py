"""Which concepts of two explanations are the same: two photos, two numbers of concepts, two models.

Of the same model and layer, concepts are compared by the cosine of their embeddings, whatever the
photos are. Of two models there is only the photo to compare on: the correlation of the maps over
its pixels. Concepts are matched one to one so that the similarities above the threshold have the
largest sum; the rest have no match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dff.concepts import ConceptBank, titles
from dff.errors import UsageError
from dff.explain.photo import Photo
from dff.maps import within

__all__ = ["Comparison", "Match", "compare"]

By = Literal["embeddings", "maps"]

THRESHOLDS = {"embeddings": 0.55, "maps": 0.8}
SIGNED = 0.85
"""The similarities from which concepts match, by what is compared; of signed embeddings SIGNED.

Seen on 11 photos, five concepts each. Embeddings (MobileNetV2, EfficientNet-Lite0): of matched
pairs of unrelated photos 99 % lie below 0.53 and 0.39; of a photo and its mirror image, or a darker
one, half lie above 0.81 to 0.97. Signed ones (ViT-S/14) share the mean of all activations: 95 % of
the unrelated lie below 0.85, half of the mirrored above 0.95. Maps of two of these models: 95 % of
pairs of different photos lie below 0.73 to 0.86, as most photos have something in their middle; of
the same photo half lie above 0.46 to 0.74.
"""
LONGEST_SIDE = 256  # of the maps that are compared


@dataclass(frozen=True)
class Match:
    """A concept found again.

    Attributes:
        first: its index in the first explanation, from 0.
        second: in the second.
        similarity: in [-1, 1], at the threshold or above.
    """

    first: int
    second: int
    similarity: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Which concepts match, which are gone, which are new.

    Attributes:
        by: "embeddings" (cosine) or "maps" (Pearson's correlation over the photo's pixels).
        threshold: the similarity from which concepts match.
        similarity: (k, l) of each concept of the first explanation with each of the second.
        names: of the first one's concepts, with their numbers on screen.
        other_names: of the second one's.
        matches: the most similar first.
        gone: concepts of the first without a match, from 0.
        new: of the second.
    """

    by: By
    threshold: float
    similarity: np.ndarray
    names: tuple[str, ...]
    other_names: tuple[str, ...]
    matches: tuple[Match, ...]
    gone: tuple[int, ...]
    new: tuple[int, ...]

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self.matches)} concepts match, {len(self.gone)} gone, "
            f"{len(self.new)} new, by {self.by})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON; concepts count from 1."""
        return {
            "by": self.by,
            "threshold": self.threshold,
            "matches": [
                {
                    "first": match.first + 1,
                    "second": match.second + 1,
                    "similarity": round(match.similarity, 6),
                }
                for match in self.matches
            ],
            "gone": [k + 1 for k in self.gone],
            "new": [k + 1 for k in self.new],
        }

    def as_text(self) -> str:
        """Return it as lines to read: a concept each."""
        pairs = [(self.names[m.first], self.other_names[m.second], m) for m in self.matches]
        width = max([len(name) for name in (*self.names, "first")])
        other = max([len(name) for name in (*self.other_names, "second")])
        lines = [f"{'first':{width}}  {'second':{other}}  {self.by}"]
        lines += [f"{a:{width}}  {b:{other}}  {m.similarity:.2f}" for a, b, m in pairs]
        lines += [f"{self.names[k]:{width}}  {'-':{other}}  gone" for k in self.gone]
        lines += [f"{'-':{width}}  {self.other_names[k]:{other}}  new" for k in self.new]
        return "\n".join(lines)


def compare(
    photos: Sequence[Photo],
    others: Any,
    *,
    by: By | None = None,
    threshold: float | None = None,
) -> Comparison:
    """Match the concepts of two explanations.

    Args:
        photos: of the first.
        others: of the second, a tuple of photos as well.
        by: "embeddings" or "maps"; None takes embeddings where model and layer are the same.
        threshold: the similarity from which concepts match; None is 0.55 for embeddings (0.85
            where they have both signs), 0.8 for maps (:data:`THRESHOLDS`).

    Raises:
        UsageError: another `by`; different models, and different photos; a threshold that is none.
        BankError: embeddings of different layers.
    """
    if not isinstance(others, tuple) or not all(isinstance(photo, Photo) for photo in others):
        raise UsageError(f"compare takes another explanation, not {others!r:.40}")
    first, second = photos[0].bank, others[0].bank
    how = by or ("embeddings" if _comparable(first, second) else "maps")
    if how not in THRESHOLDS:
        raise UsageError(f"by is one of {', '.join(THRESHOLDS)}, not {by!r}")
    usual = SIGNED if how == "embeddings" and first.signed else THRESHOLDS[how]
    least = usual if threshold is None else float(threshold)
    if not 0 < least <= 1:
        raise UsageError(f"threshold is a similarity in (0, 1], not {threshold!r}")
    if how == "embeddings":
        similarity = first.nearest(second).cosines.numpy()
    else:
        similarity = _correlation(photos, others)
    matches = _matched(similarity, least)
    return Comparison(
        by=how,
        threshold=least,
        similarity=similarity,
        names=titles(first.names),
        other_names=titles(second.names),
        matches=matches,
        gone=_rest(len(first), [match.first for match in matches]),
        new=_rest(len(second), [match.second for match in matches]),
    )


def _comparable(first: ConceptBank, second: ConceptBank) -> bool:
    """Whether the channels of two banks are the same ones: model, layer and weights are."""
    weights = [bank.recipe.get("sha256", bank.recipe.get("weights")) for bank in (first, second)]
    same = (first.model, first.layer) == (second.model, second.layer)
    return same and (not all(weights) or weights[0] == weights[1])


def _matched(similarity: np.ndarray, least: float) -> tuple[Match, ...]:
    """Match one to one, with the largest sum of what is at `least` or above."""
    from scipy.optimize import linear_sum_assignment  # heavy

    worth = np.where(similarity >= least, similarity, 0)
    pairs = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(-worth), strict=True)]
    found = [Match(i, j, float(similarity[i, j])) for i, j in pairs if similarity[i, j] >= least]
    return tuple(sorted(found, key=lambda match: -match.similarity))


def _rest(count: int, matched: Sequence[int]) -> tuple[int, ...]:
    return tuple(k for k in range(count) if k not in matched)


def _correlation(photos: Sequence[Photo], others: Sequence[Photo]) -> np.ndarray:
    """Return (k, l) Pearson's correlation of maps over the pixels of the same photos.

    A constant map correlates with nothing (0).
    """
    pictures, other_pictures = ([photo.picture for photo in row] for row in (photos, others))
    same = len(photos) == len(others) and all(
        np.array_equal(a.pixels, b.pixels) for a, b in zip(pictures, other_pictures, strict=True)
    )
    if not same:
        raise UsageError(
            "concepts of different models or layers are compared by their maps, on the same "
            "photos, and these photos differ"
        )
    sizes = [within((picture.height, picture.width), LONGEST_SIDE) for picture in pictures]
    first, second = (
        _standardized(
            np.concatenate(
                [
                    p.heatmaps(size).reshape(len(p.bank), -1)
                    for p, size in zip(row, sizes, strict=True)
                ],
                1,
            )
        )
        for row in (photos, others)
    )
    return np.clip(first @ second.T, -1, 1)


def _standardized(maps: np.ndarray) -> np.ndarray:
    centred = maps.astype(np.float64) - maps.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
