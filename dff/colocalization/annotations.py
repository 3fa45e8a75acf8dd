"""Annotations to measure a run against: COCO JSON, or a folder of Pascal VOC's XML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from dff.colocalization.masks import draw
from dff.colocalization.rle import runs_from_rle
from dff.errors import UsageError

__all__ = ["Known", "read_annotations"]

Box = tuple[float, float, float, float]


@dataclass(eq=False)
class Known:
    """What is annotated in one image.

    Attributes:
        file_name: as the annotations call the image.
        width, height: in pixels.
        boxes: class name to its boxes (x0, y0, x1, y1), half-open, in pixels.
        masks: class name to its segmentations, in COCO's forms.
    """

    file_name: str
    width: int
    height: int
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    masks: dict[str, list[Any]] = field(default_factory=dict)

    def mask(self, name: str) -> np.ndarray | None:
        """Return the union of a class's masks, bool (height, width); None where there are none."""
        parts = self.masks.get(name)
        if not parts:
            return None
        union = np.zeros((self.height, self.width), np.uint8)
        for part in parts:
            if isinstance(part, dict):
                union |= draw(runs_from_rle(part)).astype(np.uint8)
            else:
                polygons = [np.rint(np.reshape(p, (-1, 2))).astype(np.int32) for p in part]
                cv2.fillPoly(union, polygons, 1)
        return union.astype(bool)


def read_annotations(path: str | Path) -> list[Known]:
    """Read a COCO JSON file, or a folder of Pascal VOC's XML files (or its parent).

    Raises:
        UsageError: it is neither, or holds no annotation.
    """
    path = Path(path)
    if path.is_dir():
        folder = path / "Annotations" if (path / "Annotations").is_dir() else path
        known = [_voc(file) for file in sorted(folder.glob("*.xml"))]
    elif path.is_file():
        known = _coco(path)
    else:
        raise UsageError(f"there are no annotations {str(path)!r}")
    known = [one for one in known if one.boxes]
    if not known:
        raise UsageError(
            f"there is no annotation in {str(path)!r}; expected COCO JSON, or a folder of VOC XML"
        )
    return known


def _coco(path: Path) -> list[Known]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        images = {
            i["id"]: Known(str(i["file_name"]), int(i["width"]), int(i["height"]))
            for i in content["images"]
        }
        for one in content["annotations"]:
            image, name = images[one["image_id"]], names[one["category_id"]]
            x, y, w, h = (float(v) for v in one["bbox"])
            if w > 0 and h > 0:
                image.boxes.setdefault(name, []).append((x, y, x + w, y + h))
            if one.get("segmentation"):
                image.masks.setdefault(name, []).append(one["segmentation"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UsageError(
            f"{str(path)!r} is not COCO's format of object detection: {error!r}"
        ) from None
    return list(images.values())


def _voc(path: Path) -> Known:
    try:
        root = ElementTree.parse(path).getroot()
        size = root.find("size")
        known = Known(
            root.findtext("filename") or path.stem,
            int(size.findtext("width") or 0) if size is not None else 0,
            int(size.findtext("height") or 0) if size is not None else 0,
        )
        for name, corners in _voc_objects(root):
            x0, y0, x1, y1 = corners
            # VOC counts pixels from 1, and its last pixel lies inside.
            known.boxes.setdefault(name, []).append((x0 - 1, y0 - 1, x1, y1))
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise UsageError(f"{str(path)!r} is not Pascal VOC's XML: {error}") from None
    return known


def _voc_objects(root: ElementTree.Element) -> Iterator[tuple[str, list[float]]]:
    for one in root.iter("object"):
        box = one.find("bndbox")
        if box is not None:
            yield (
                str(one.findtext("name")),
                [float(box.findtext(key) or "nan") for key in ("xmin", "ymin", "xmax", "ymax")],
            )


def matched(known: list[Known], paths: list[str]) -> dict[int, Known]:
    """Return the annotations of a run's images, by path, else by a file name that is unique.

    Raises:
        UsageError: no image of the run is annotated.
    """
    by_path: dict[str, int | None] = {path: i for i, path in enumerate(paths)}
    by_name: dict[str, int | None] = {}
    for i, path in enumerate(paths):
        for name in (os.path.basename(path), os.path.splitext(os.path.basename(path))[0]):
            by_name[name] = None if name in by_name and by_name[name] != i else i
    found = {}
    for one in known:
        index = by_path.get(one.file_name)
        if index is None:
            index = by_name.get(os.path.basename(one.file_name))
        if index is not None:
            found[index] = one
    if not found:
        raise UsageError(
            f"none of the run's images is annotated: they are called {paths[0]!r}, …, the "
            f"annotations {known[0].file_name!r}, …"
        )
    return found
