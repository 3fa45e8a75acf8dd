"""How well concepts locate annotated classes: CorLoc and mask IoU, per class and mean.

- CorLoc (Deselaers, Alexe and Ferrari, "Localizing Objects While Learning Their Appearance",
  2010): the share of images with a class in which the one box of its concept has an IoU of at
  least 0.5 with a box of the class.
- Mean IoU: of the concept's mask and the class's, image by image, over the images that show the
  class, as co-segmentation counts it. Pooled IoU: pixels of all annotated images together, so that
  what a concept marks elsewhere counts against it, as part IoU does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from dff.colocalization.annotations import Known, matched, read_annotations
from dff.colocalization.run.coco import annotations_of
from dff.colocalization.run.finished import Run
from dff.maps.rle import drawn
from dff.metrics import box_iou

__all__ = ["ClassResult", "Evaluation", "evaluate"]

LOCALIZED = 0.5  # the IoU from which on a box counts in CorLoc


@dataclass(frozen=True)
class ClassResult:
    """One class and the concept that locates it best.

    Attributes:
        name: of the class.
        images: how many annotated images show it.
        concept: index of the matched concept, from 0.
        concept_name: its name.
        corloc: in [0, 1].
        box_iou: mean over those images of the IoU with the nearest box of the class.
        mask_iou: likewise of the masks; None where no masks are annotated.
        pooled_iou: of all pixels together; None likewise.
    """

    name: str
    images: int
    concept: int
    concept_name: str
    corloc: float
    box_iou: float
    mask_iou: float | None
    pooled_iou: float | None


@dataclass(frozen=True)
class Evaluation:
    """The result: `images` of the run are annotated; `classes` in order of their names."""

    images: int
    classes: tuple[ClassResult, ...]

    @property
    def corloc(self) -> float:
        """Mean over classes."""
        return float(np.mean([result.corloc for result in self.classes]))

    @property
    def mask_iou(self) -> float | None:
        """Mean over the classes that have masks."""
        return _mean([result.mask_iou for result in self.classes])

    @property
    def pooled_iou(self) -> float | None:
        """Mean over the classes that have masks."""
        return _mean([result.pooled_iou for result in self.classes])

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON, where concepts count from 1."""
        return {
            "images": self.images,
            "corloc": self.corloc,
            "mask_iou": self.mask_iou,
            "pooled_iou": self.pooled_iou,
            "classes": [
                {**asdict(result), "concept": result.concept + 1} for result in self.classes
            ],
        }


def evaluate(run: Run | str | Path, annotations: str | Path) -> Evaluation:
    """Measure a run against annotations.

    The concept of a class is the one with the highest pooled IoU of masks or, where only boxes
    are annotated, with the highest mean IoU of boxes. Concepts may serve several classes.

    Args:
        run: a finished run, or its folder.
        annotations: COCO JSON, or a folder of Pascal VOC's XML.

    Raises:
        RunError: it is no finished run.
        UsageError: the annotations cannot be read, or are of other images.
    """
    run = run if isinstance(run, Run) else Run(run)
    table = run.table("images")
    known = matched(read_annotations(annotations), table["path"].to_pylist())
    boxes = _boxes(run, len(table))
    classes = sorted({name for annotated in known.values() for name in annotated.boxes})
    overlaps = _mask_overlaps(run, known, classes)
    return Evaluation(
        len(known), tuple(_class(run, name, known, boxes, overlaps[name]) for name in classes)
    )


def _boxes(run: Run, images: int) -> np.ndarray:
    """Return the boxes (images, k, 4), all zero where a concept was not found."""
    table = run.table("instances").select(["image_id", "concept", "x0", "y0", "x1", "y1"])
    table = table.filter(table["x0"].is_valid())
    boxes = np.zeros((images, len(run.bank), 4))
    where = (table["image_id"].to_numpy(), table["concept"].to_numpy() - 1)
    boxes[where] = np.stack([table[c].to_numpy() for c in ("x0", "y0", "x1", "y1")], 1)
    return boxes


@dataclass(eq=False)
class _Overlap:
    """Pixels of a class: in common with each concept, of the concepts, and of the class.

    `each` holds the IoU (k,) of every image that shows the class with a mask.
    """

    common: np.ndarray
    concept: np.ndarray
    known: float
    each: list[np.ndarray]

    @property
    def pooled(self) -> np.ndarray:
        union = self.concept + self.known - self.common
        return np.asarray(np.divide(self.common, union, out=np.zeros_like(union), where=union > 0))


def _mask_overlaps(run: Run, known: dict[int, Known], classes: list[str]) -> dict[str, _Overlap]:
    k = len(run.bank)
    overlaps = {name: _Overlap(np.zeros(k), np.zeros(k), 0.0, []) for name in classes}
    segmented = {name for annotated in known.values() for name in annotated.masks}
    if not segmented:
        return overlaps
    for index, masks in _found_masks(run, known):
        annotated = known[index]
        for name in sorted(segmented):
            truth = annotated.mask(name)
            _add(overlaps[name], masks, truth, shape=(annotated.height, annotated.width))
    return overlaps


def _add(
    overlap: _Overlap,
    masks: dict[int, np.ndarray],
    truth: np.ndarray | None,
    shape: tuple[int, int],
) -> None:
    iou = np.zeros_like(overlap.common)
    area = 0 if truth is None else int(truth.sum())
    for concept, mask in masks.items():
        if mask.shape != shape:
            continue
        size = int(mask.sum())
        common = 0 if truth is None else int((mask & truth).sum())
        overlap.common[concept] += common
        overlap.concept[concept] += size
        iou[concept] = common / max(size + area - common, 1)
    if truth is not None:
        overlap.known += area
        overlap.each.append(iou)


def _found_masks(run: Run, known: dict[int, Known]) -> Any:
    """Yield (image, masks by concept from 0) of annotated images, from coco.json line by line."""
    seen = set()
    annotations = annotations_of(run.folder.file("coco.json"), known)
    for image, group in groupby(annotations, key=itemgetter("image_id")):
        seen.add(image)
        yield (
            image,
            {
                annotation["category_id"] - 1: drawn(annotation["segmentation"])
                for annotation in group
            },
        )
    for image in known.keys() - seen:
        yield image, {}


def _class(
    run: Run, name: str, known: dict[int, Known], boxes: np.ndarray, overlap: _Overlap
) -> ClassResult:
    images = [i for i, annotated in known.items() if name in annotated.boxes]
    ious = np.array([_nearest(boxes[i], known[i].boxes[name]) for i in images])
    best = int(overlap.pooled.argmax()) if overlap.known else int(ious.mean(0).argmax())
    return ClassResult(
        name=name,
        images=len(images),
        concept=best,
        concept_name=run.bank.names[best],
        corloc=float((ious[:, best] >= LOCALIZED).mean()),
        box_iou=float(ious[:, best].mean()),
        mask_iou=float(np.mean([ious[best] for ious in overlap.each])) if overlap.each else None,
        pooled_iou=float(overlap.pooled[best]) if overlap.known else None,
    )


def _nearest(boxes: np.ndarray, known: list[tuple[float, float, float, float]]) -> np.ndarray:
    """Return for each concept's box (k, 4) the highest IoU (k,) with any known box."""
    return np.asarray(
        np.max([box_iou(boxes, np.broadcast_to(box, boxes.shape)) for box in known], axis=0)
    )


def _mean(values: list[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return float(np.mean(kept)) if kept else None
