"""How well concepts locate annotated classes: CorLoc and mask IoU, per class and mean.

- CorLoc (Deselaers, Alexe and Ferrari, "Localizing Objects While Learning Their Appearance",
  2010): the share of images with a class in which the one box of its concept has an IoU of at
  least 0.5 with a box of the class.
- Mean IoU: of the concept's mask and the class's, image by image, over the images that show the
  class, as co-segmentation counts it. Pooled IoU: pixels of all annotated images together, so that
  what a concept marks elsewhere counts against it, as part IoU does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from dff.colocalization.annotations import Known, matched, read_annotations
from dff.colocalization.run.coco import annotations_of
from dff.colocalization.run.finished import Run
from dff.concepts import check_level
from dff.errors import UsageError
from dff.maps.rle import drawn
from dff.metrics import box_iou

__all__ = ["ClassResult", "Evaluation", "evaluate"]

LOCALIZED = 0.5  # the IoU from which on a box counts in CorLoc


@dataclass(frozen=True)
class ClassResult:
    """One class and the concept, or union of concepts, that locates it best.

    Attributes:
        name: of the class.
        images: how many annotated images show it.
        concept: index of the matched node, from 0: unions come after the concepts
            (:meth:`dff.ConceptBank.nodes`).
        members: the concepts of the node, from 0: one, or those of a union.
        concept_name: its name.
        corloc: in [0, 1].
        box_iou: mean over those images of the IoU with the nearest box of the class.
        mask_iou: likewise of the masks; None where no masks are annotated.
        pooled_iou: of all pixels together; None likewise.
    """

    name: str
    images: int
    concept: int
    members: tuple[int, ...]
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
                {
                    **asdict(result),
                    "concept": result.concept + 1,
                    "members": [k + 1 for k in result.members],
                }
                for result in self.classes
            ],
        }


def evaluate(
    run: Run | str | Path, annotations: str | Path, *, level: str | None = None
) -> Evaluation:
    """Measure a run against annotations.

    The node of a class is the one with the highest pooled IoU of masks or, where only boxes are
    annotated, with the highest mean IoU of boxes. Nodes may serve several classes.

    Args:
        run: a finished run, or its folder.
        annotations: COCO JSON, or a folder of Pascal VOC's XML.
        level: "part": concepts only; "object": concepts and their unions. None is the run's.

    Raises:
        RunError: it is no finished run.
        UsageError: the annotations cannot be read, or are of other images; no such level, or
            "object" of a run at the level of parts.
    """
    run = run if isinstance(run, Run) else Run(run)
    nodes = run.bank.nodes(_level(run, level))
    paths = run.table("images", columns=["path"])["path"].to_pylist()
    known = matched(read_annotations(annotations), paths)
    classes = sorted({name for annotated in known.values() for name in annotated.boxes})
    boxes, overlaps = _measured(run, known, classes, len(nodes))
    return Evaluation(
        len(known),
        tuple(_class(run, name, known, boxes, overlaps[name], nodes) for name in classes),
    )


def _level(run: Run, level: str | None) -> str:
    own: str = run.state["settings"]["level"]
    if level is None:
        return own
    check_level(level)
    if level == "object" and own == "part":
        raise UsageError(
            "the run was made at the level of parts and holds no unions of concepts: make one "
            "with --level object, or evaluate it with --level part"
        )
    return level


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


def _measured(
    run: Run, known: dict[int, Known], classes: list[str], count: int
) -> tuple[dict[int, np.ndarray], dict[str, _Overlap]]:
    """Return the boxes (count, 4) of each image's nodes, zero where not found, and the overlaps."""
    boxes = {image: np.zeros((count, 4)) for image in known}
    overlaps = {name: _Overlap(np.zeros(count), np.zeros(count), 0.0, []) for name in classes}
    segmented = sorted({name for annotated in known.values() for name in annotated.masks})
    for image, found in _found(run, known, count):
        for node, annotation in found.items():
            x, y, width, height = annotation["bbox"]
            boxes[image][node] = (x, y, x + width, y + height)
        if segmented:
            masks = {node: drawn(entry["segmentation"]) for node, entry in found.items()}
            shape = (known[image].height, known[image].width)
            for name in segmented:
                _add(overlaps[name], masks, known[image].mask(name), shape=shape)
    return boxes, overlaps


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


def _found(
    run: Run, known: dict[int, Known], count: int
) -> Iterator[tuple[int, dict[int, dict[str, Any]]]]:
    """Yield (image, COCO's annotations by node, from 0) of annotated images, line by line."""
    seen = set()
    annotations = annotations_of(run.folder.file("coco.json"), known)
    for image, group in groupby(annotations, key=itemgetter("image_id")):
        seen.add(image)
        found = {annotation["category_id"] - 1: annotation for annotation in group}
        yield image, {node: annotation for node, annotation in found.items() if node < count}
    for image in known.keys() - seen:
        yield image, {}


def _class(
    run: Run,
    name: str,
    known: dict[int, Known],
    boxes: dict[int, np.ndarray],
    overlap: _Overlap,
    nodes: Sequence[tuple[int, ...]],
) -> ClassResult:
    images = [i for i, annotated in known.items() if name in annotated.boxes]
    ious = np.array([_nearest(boxes[i], known[i].boxes[name]) for i in images])
    best = int(overlap.pooled.argmax()) if overlap.known else int(ious.mean(0).argmax())
    return ClassResult(
        name=name,
        images=len(images),
        concept=best,
        members=nodes[best],
        concept_name=run.bank.node_names()[best],
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
