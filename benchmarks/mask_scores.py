"""Maps to masks by several rules, and masks against the truth: for real_masks.py.

- IoU: mean over photos of the mask's with the thing's. CorLoc: the share of photos in which the
  box around the mask's largest component has an IoU of at least 0.5 with the thing's box. Both as
  `dff evaluate` has them, of the one concept of all photos whose mean IoU is highest.
- NMI and ARI (Choudhury, Laina, Rupprecht & Vedaldi, "Unsupervised Part Discovery from Contrastive
  Reconstruction", 2021, section 4) of the segmentation against thing / not thing, over all
  photos together, at every fourth row and column. The paper's FG- variants need parts inside the
  thing, which are not annotated here. A pixel belongs to the strongest of the concepts whose masks
  hold it, or to none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from masked_photos import Photo
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from dff.colocalization import Run
from dff.colocalization.evaluate import ClassResult, evaluate
from dff.maps import Grid, upsample
from dff.maps.masks import MaskOptions, masks_of
from dff.maps.runs import Runs, largest_component, runs_above
from dff.metrics import box_iou

__all__ = ["LIBRARY", "RULES", "Scores", "agreement", "best", "levels_of", "measure", "segments"]

LOCALIZED = 0.5
STEP = 4  # NMI and ARI count every fourth pixel of every fourth row
LIBRARY = "library"
Rule = Callable[[np.ndarray, Grid, Photo], list[Runs]]


def by_options(options: MaskOptions) -> Rule:
    """Return the rule that a run with these options follows."""

    def masks(maps: np.ndarray, grid: Grid, photo: Photo) -> list[Runs]:
        guide = photo.guide if options.refine else None
        return masks_of(maps, grid, photo.size, options, guide=guide)[0]

    return masks


def above(levels_of: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """Return the rule of levels (k,) made from maps (k, h, w); all of what is above counts."""

    def masks(maps: np.ndarray, grid: Grid, photo: Photo) -> list[Runs]:
        return runs_above(maps, np.maximum(levels_of(maps), 1e-6), grid, photo.size)

    return masks


def _of_peak(share: float) -> Rule:
    return above(lambda maps: share * maps.max((1, 2)))


def _percentile(percent: float) -> Rule:
    return above(lambda maps: np.percentile(maps, percent, axis=(1, 2)))


RULES: dict[str, Rule] = {
    LIBRARY: by_options(MaskOptions()),
    "Otsu": by_options(MaskOptions(threshold="otsu", refine=False, least=1e-6)),
    "refined": by_options(MaskOptions(refine=True, least=1e-6)),
    "refined, Otsu": by_options(MaskOptions(threshold="otsu", refine=True, least=1e-6)),
    "refined, peak": by_options(MaskOptions(threshold="peak", refine=True, least=1e-6)),
    **{f"{share:g} of peak": _of_peak(share) for share in (0.3, 0.4, 0.5, 0.6)},
    **{f"top {100 - percent} %": _percentile(percent) for percent in (60, 75, 90)},
}
"""Of these each peer gets the best, chosen with the truth in sight; ours has the library's."""


@dataclass(frozen=True, eq=False)
class Scores:
    """IoU of masks and of boxes, each (photos, concepts)."""

    masks: np.ndarray
    boxes: np.ndarray

    @property
    def concept(self) -> int:
        """The concept with the highest mean IoU of masks."""
        return int(self.masks.mean(0).argmax())

    @property
    def iou(self) -> float:
        """Its mean IoU."""
        return float(self.masks[:, self.concept].mean())

    @property
    def corloc(self) -> float:
        """Its CorLoc."""
        return float((self.boxes[:, self.concept] >= LOCALIZED).mean())


def best(scores: dict[str, Scores]) -> tuple[str, str]:
    """Return the names of the highest IoU and of the highest CorLoc."""
    return max(scores, key=lambda n: scores[n].iou), max(scores, key=lambda n: scores[n].corloc)


def measure(masks: Sequence[Sequence[Runs]], photos: Sequence[Photo]) -> Scores:
    """Score the masks (photos, concepts) of each photo."""
    pairs = list(zip(masks, photos, strict=True))
    overlaps = [[mask_iou(mask, photo) for mask in found] for found, photo in pairs]
    boxes = [[_box_overlap(mask, photo) for mask in found] for found, photo in pairs]
    return Scores(np.array(overlaps), np.array(boxes))


def mask_iou(mask: Runs, photo: Photo) -> float:
    """Return the IoU of a mask with the thing's, from its runs, without drawing it."""
    before = photo.inside_before
    common = int((before[mask.ends] - before[mask.starts]).sum())
    return common / max(mask.area + int(before[-1]) - common, 1)


def _box_overlap(mask: Runs, photo: Photo) -> float:
    box = largest_component(mask).box
    if box is None:
        return 0.0
    return float(max(box_iou(np.array([box]), np.array([known]))[0] for known in photo.boxes))


def levels_of(run: Run, annotations: Path) -> dict[str, ClassResult]:
    """Return what `evaluate` says of the one class at either level: part, and object."""
    levels = ("part", "object")
    return {level: evaluate(run, annotations, level=level).classes[0] for level in levels}


def segments(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return for each pixel the strongest concept whose mask holds it, from 1; 0 where none does.

    Args:
        maps: (k, height, width) at the photo's pixels.
        masks: (k, height, width) bool.
    """
    strongest = np.where(masks, maps, -1).argmax(0) + 1
    return np.where(masks.any(0), strongest, 0)


def agreement(
    maps: Sequence[np.ndarray], grid: Grid, masks: Sequence[Sequence[Runs]], photos: Sequence[Photo]
) -> tuple[float, float]:
    """Return NMI and ARI of the segmentation by maps (k, h, w) and masks (k) of each photo."""
    pairs = list(_labels(maps, grid, masks, photos))
    found, known = (np.concatenate(labels) for labels in zip(*pairs, strict=True))
    return normalized_mutual_info_score(known, found), adjusted_rand_score(known, found)


def _labels(
    maps: Sequence[np.ndarray], grid: Grid, masks: Sequence[Sequence[Runs]], photos: Sequence[Photo]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for shown, found, photo in zip(maps, masks, photos, strict=True):
        height, width = photo.size
        rows, cols = np.arange(STEP // 2, height, STEP), np.arange(STEP // 2, width, STEP)
        large = upsample(shown.astype(np.float32), (len(rows), len(cols)), grid)
        positions = cols * height + rows[:, None]  # column by column, as runs count
        inside = np.stack([_holds(mask, positions) for mask in found])
        yield segments(large, inside).ravel(), photo.truth[np.ix_(rows, cols)].ravel()


def _holds(mask: Runs, positions: np.ndarray) -> np.ndarray:
    """Return which positions lie in a mask."""
    run = np.searchsorted(mask.starts, positions, "right") - 1
    return (run >= 0) & (positions < np.append(mask.ends, 0)[run])
