"""Agreement of concepts with known parts: optimal matching, IoU, purity, coverage, CorLoc.

Shapes: n images, k concepts, p parts, masks of h x w pixels. Boxes are (x0, y0, x1, y1),
half-open, in pixels; a box without area means that there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dff.errors import UsageError
from dff.maps import box_of

__all__ = ["PartAgreement", "box_iou", "corloc", "part_agreement"]


@dataclass(frozen=True)
class PartAgreement:
    """How well k concepts agree with p parts over a set of images.

    All numbers are from 0 to 1. A part that no concept was left for counts 0 in every mean over
    parts, so that a mean does not rise by having fewer concepts.

    Attributes:
        part_names: p names.
        iou: (k, p) IoU of every concept with every part; pixels are pooled over all images, so
            what a concept marks in images without the part counts against it.
        concepts: (p,) the concept matched to each part, -1 where there is none.
        part_iou: (p,) IoU of each part with its concept.
        purity: (p,) the share of the matched concept's pixels that lie in the part.
        coverage: (p,) the share of the part's pixels that the matched concept marks.
        corloc: (p,) among images that show the part, the share in which the box of its concept
            has an IoU of at least 0.5 with the part's box; NaN where no image shows the part.
    """

    part_names: tuple[str, ...]
    iou: np.ndarray
    concepts: np.ndarray
    part_iou: np.ndarray
    purity: np.ndarray
    coverage: np.ndarray
    corloc: np.ndarray

    @property
    def mean_iou(self) -> float:
        """Mean of `part_iou` over parts."""
        return float(self.part_iou.mean())

    @property
    def mean_purity(self) -> float:
        """Mean of `purity` over the parts that have a concept."""
        return _mean(self.purity[self.concepts >= 0])

    @property
    def mean_coverage(self) -> float:
        """Mean of `coverage` over the parts that have a concept."""
        return _mean(self.coverage[self.concepts >= 0])

    @property
    def mean_corloc(self) -> float:
        """Mean of `corloc` over the parts that occur."""
        return _mean(self.corloc[~np.isnan(self.corloc)])


def part_agreement(
    concepts: np.ndarray,
    parts: np.ndarray,
    *,
    part_names: Sequence[str] | None = None,
    threshold: float = 0.5,
) -> PartAgreement:
    """Match concepts to parts one to one, so that the sum of their IoU is greatest, and score it.

    The matching is one for all images (the Hungarian method: Kuhn, "The Hungarian method for the
    assignment problem", 1955). CorLoc is that of Deselaers, Alexe and Ferrari, "Localizing
    Objects While Learning Their Appearance", ECCV 2010, taken part by part.

    Args:
        concepts: (n, k, h, w) bool, where each concept was found.
        parts: (n, p, h, w) bool, where each part is; all False where an image shows none of it.
        part_names: p names; None numbers them.
        threshold: the least IoU of boxes that counts as found.

    Raises:
        UsageError: the arrays are not boolean masks of the same images, or names do not fit.
    """
    from scipy.optimize import linear_sum_assignment  # heavy

    concepts, parts = np.asarray(concepts), np.asarray(parts)
    names = tuple(part_names or (str(i) for i in range(parts.shape[1] if parts.ndim == 4 else 0)))
    _check(concepts, parts, names)
    overlap, found, known = _areas(concepts, parts)
    union = found[:, None] + known[None, :] - overlap
    iou = _divide(overlap, union)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = np.full(len(names), -1)
    matched[columns] = rows
    has = matched >= 0
    of = np.where(has, matched, 0)
    ours = np.where(has, overlap[of, np.arange(len(names))], 0)
    return PartAgreement(
        part_names=names,
        iou=iou,
        concepts=matched,
        part_iou=_divide(ours, union[of, np.arange(len(names))]),
        purity=_divide(ours, found[of]),
        coverage=_divide(ours, known),
        corloc=np.array(
            [_part_corloc(concepts, parts, c, p, threshold) for p, c in enumerate(matched)]
        ),
    )


def corloc(found: np.ndarray, known: np.ndarray, *, threshold: float = 0.5) -> float:
    """Return the share of known boxes (m, 4) met by found boxes (m, 4) at an IoU of `threshold`.

    Known boxes without area are left out; found boxes without area miss. NaN if none is known.
    """
    there = _area(np.asarray(known)) > 0
    if not there.any():
        return float("nan")
    return float((box_iou(found, known)[there] >= threshold).mean())


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the IoU (m,) of each of m boxes (m, 4) with the box of the same row."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.shape[-1:] != (4,):
        raise UsageError(f"expected boxes (m, 4) twice, not {first.shape} and {second.shape}")
    corner = np.maximum(first[..., :2], second[..., :2])
    common = _area(np.concatenate([corner, np.minimum(first[..., 2:], second[..., 2:])], -1))
    return _divide(common, _area(first) + _area(second) - common)


def _part_corloc(
    concepts: np.ndarray, parts: np.ndarray, concept: int, part: int, threshold: float
) -> float:
    known = np.array([box_of(mask, largest=False) or (0, 0, 0, 0) for mask in parts[:, part]])
    found = np.zeros_like(known)
    if concept >= 0:
        found = np.array([box_of(mask) or (0, 0, 0, 0) for mask in concepts[:, concept]])
    return corloc(found, known, threshold=threshold)


def _areas(concepts: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels in common (k, p), of concepts (k,) and of parts (p,), over all images."""
    overlap = np.zeros((concepts.shape[1], parts.shape[1]))
    for ours, theirs in zip(concepts, parts, strict=True):
        a, b = (m.reshape(len(m), -1).astype(np.float32) for m in (ours, theirs))
        overlap += a @ b.T
    return overlap, concepts.sum((0, 2, 3), dtype=float), parts.sum((0, 2, 3), dtype=float)


def _area(boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0).astype(np.float64)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _divide(share: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return share / whole, 0 where the whole is 0."""
    return np.divide(share, whole, out=np.zeros(np.shape(share)), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _check(concepts: np.ndarray, parts: np.ndarray, names: tuple[str, ...]) -> None:
    for name, masks in (("concepts", concepts), ("parts", parts)):
        if masks.ndim != 4 or masks.dtype != bool or 0 in masks.shape:
            raise UsageError(
                f"{name} must be boolean masks (images, {name}, height, width), not "
                f"{masks.dtype} of shape {masks.shape}; threshold the maps first"
            )
    if concepts.shape[:1] + concepts.shape[2:] != parts.shape[:1] + parts.shape[2:]:
        raise UsageError(
            f"concepts {concepts.shape} and parts {parts.shape} must be masks of the same images"
        )
    if len(names) != parts.shape[1]:
        raise UsageError(f"expected {parts.shape[1]} part names, not {len(names)}")
