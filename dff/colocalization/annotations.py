"""Annotations to measure a run against: COCO JSON, or a folder of Pascal VOC's XML.

The files are not trusted: what is read is checked entry by entry, in bounded memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from dff.errors import UsageError, shortened
from dff.images import MAX_PIXELS
from dff.maps.rle import drawn, encoded, union

__all__ = ["Known", "Segmentation", "matched", "read_annotations"]

Box = tuple[float, float, float, float]

MAX_JSON = 512 << 20  # bytes; the largest of COCO's own files is 450 MB
MAX_XML = 16 << 20
FARTHEST = 1e9  # pixels; beyond it, areas of boxes are no numbers any more


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One of COCO's segmentations (polygons, or RLE) as it came, and the entry that it is from."""

    entry: str
    content: Any


@dataclass(eq=False)
class Known:
    """What is annotated in one image.

    Attributes:
        file_name: as the annotations call the image.
        width, height: in pixels; 0 where a VOC file does not say.
        boxes: class name to its boxes (x0, y0, x1, y1), half-open, in pixels.
        masks: class name to its segmentations.
    """

    file_name: str
    width: int
    height: int
    boxes: dict[str, list[Box]] = field(default_factory=dict)
    masks: dict[str, list[Segmentation]] = field(default_factory=dict)

    def mask(self, name: str) -> np.ndarray | None:
        """Return the union of a class's masks, bool (height, width); None where there are none.

        Raises:
            UsageError: a segmentation is not in COCO's format, or not of this image.
        """
        parts = self.masks.get(name)
        if not parts:
            return None
        size = (self.height, self.width)
        masks = []
        for part in parts:
            try:
                masks.append(encoded(part.content, size))
            except UsageError as error:
                raise UsageError(f"{part.entry}: {error}") from None
        return drawn(union(masks), size)


def read_annotations(path: str | Path) -> list[Known]:
    """Read a COCO JSON file, or a folder of Pascal VOC's XML files (or its parent).

    Raises:
        UsageError: it is neither, holds no annotation, or an entry cannot be.
    """
    path = Path(path)
    if path.is_dir():
        folder = path / "Annotations" if (path / "Annotations").is_dir() else path
        known = [_voc(file) for file in sorted(folder.glob("*.xml"))]
    else:
        known = _coco(path)
    known = [one for one in known if one.boxes]
    if not known:
        raise UsageError(
            f"there is no annotation in {shortened(path)!r}; expected COCO JSON, or a folder of "
            "VOC XML"
        )
    return known


def _content(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file that is not larger than `most`."""
    if not path.exists():
        raise UsageError(f"there are no annotations {shortened(path)!r}")
    if not path.is_file():
        raise UsageError(f"the annotations {shortened(path)!r} are not a regular file")
    with path.open("rb") as file:
        content = file.read(most + 1) if path.stat().st_size <= most else b"-" * (most + 1)
    if len(content) > most:
        raise UsageError(f"the annotations {shortened(path)!r} are larger than {most >> 20} MiB")
    return content


def _coco(path: Path) -> list[Known]:
    what = f"{shortened(path)!r} is not COCO's format of object detection"
    try:
        content = json.loads(_content(path, MAX_JSON).decode("utf-8-sig"))
    except UsageError:
        raise
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        raise UsageError(f"{what}: {shortened(error or 'it needs too much memory')}") from None
    lists: dict[str, list[Any]] = {}
    for key in ("categories", "images", "annotations"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UsageError(f"{what}: it has no list of {key}")
        lists[key] = entries
    names, images = _Entries(what, "category"), _Entries(what, "image")
    for number, one in enumerate(lists["categories"]):
        names.add(number, one, lambda one: _text(one, "name"))
    for number, one in enumerate(lists["images"]):
        images.add(number, one, lambda one: Known(_text(one, "file_name"), *_size(one)))
    for number, one in enumerate(lists["annotations"]):
        entry = f"annotation {number}"
        try:
            image, name = images.of(one, "image_id"), names.of(one, "category_id")
            _annotate(image, name, one, f"{shortened(path)!r}, {entry}")
        except ValueError as error:
            raise UsageError(f"{what}: {entry}: {error}") from None
    return list(images.known.values())


class _Entries:
    """COCO's images or categories, by their id."""

    def __init__(self, what: str, kind: str) -> None:
        self.what, self.kind = what, kind
        self.known: dict[int | str, Any] = {}

    def add(self, number: int, one: Any, make: Any) -> None:
        try:
            key = _id(one, "id")
            if key in self.known:
                raise ValueError(f"the id {shortened(key, 60)!r} occurs twice")
            self.known[key] = make(one)
        except ValueError as error:
            raise UsageError(f"{self.what}: {self.kind} {number}: {error}") from None

    def of(self, one: Any, key: str) -> Any:
        number = _id(one, key)
        if number not in self.known:
            raise ValueError(f"there is no {self.kind} {shortened(number, 60)!r}")
        return self.known[number]


def _id(one: Any, key: str) -> int | str:
    """Return the id of an entry: a whole number or a text; lists and the like are none."""
    value = one.get(key) if isinstance(one, dict) else None
    if type(value) is int and abs(value) < 2**63:
        return value
    if isinstance(value, str):
        return value
    raise ValueError(f"its {key} is no whole number: {_shown(value)}")


def _text(one: dict[str, Any], key: str) -> str:
    value = one.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"its {key} is no text: {_shown(value)}")
    return value


def _size(one: dict[str, Any]) -> tuple[int, int]:
    """Return (width, height)."""
    sides = []
    for key in ("width", "height"):
        value = one.get(key)
        number = _number(value, key)
        if number < 1 or number != int(number):
            raise ValueError(f"its {key} is no number of pixels: {_shown(value)}")
        sides.append(int(number))
    return _within_limits(sides[0], sides[1])


def _within_limits(width: int, height: int) -> tuple[int, int]:
    if width * height > MAX_PIXELS:
        raise ValueError(f"its size of {width} x {height} is over {MAX_PIXELS:,} pixels")
    return width, height


def _number(value: Any, key: str) -> float:
    """Return a finite number that is no further than FARTHEST from 0."""
    if type(value) not in (int, float) or not -FARTHEST <= value <= FARTHEST:
        raise ValueError(f"its {key} is no number up to 10^9: {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    """Return a value of a file for a message, without writing out all of a large one."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if type(value) is int and abs(value) > 10**30:
        return "a very large number"
    return shortened(repr(value[:80]) if isinstance(value, str) else value, 80)


def _annotate(image: Known, name: str, one: dict[str, Any], entry: str) -> None:
    """Add one of COCO's annotations to its image; a box without area is none."""
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"its bbox is not [x, y, width, height]: {_shown(box)}")
    x, y, w, h = (_number(value, "bbox") for value in box)
    if w < 0 or h < 0:
        raise ValueError(f"its bbox is {w:g} wide and {h:g} high")
    if w > 0 and h > 0:
        image.boxes.setdefault(name, []).append((x, y, x + w, y + h))
    if one.get("segmentation"):
        image.masks.setdefault(name, []).append(Segmentation(entry, one["segmentation"]))


def _voc(path: Path) -> Known:
    try:
        root = _xml(_content(path, MAX_XML))
        size = root.find("size")
        known = Known(root.findtext("filename") or path.stem, *_voc_size(size))
        for name, (x0, y0, x1, y1) in _voc_objects(root):
            # VOC counts pixels from 1, and its last pixel lies inside.
            known.boxes.setdefault(name, []).append((x0 - 1, y0 - 1, x1, y1))
    except UsageError:
        raise
    except (ElementTree.ParseError, LookupError, ValueError, OSError, MemoryError) as error:
        raise UsageError(
            f"{shortened(path)!r} is not Pascal VOC's XML: {shortened(error)}"
        ) from None
    return known


def _xml(content: bytes) -> ElementTree.Element:
    """Parse XML without a document type: only there can entities grow without bounds."""
    # Without its zeros, UTF-16 reads as ASCII; no other encoding that is parsed can hide it.
    if b"<!DOCTYPE" in content.replace(b"\0", b""):
        raise ValueError("it declares a document type, which no annotation needs")
    return ElementTree.fromstring(content)


def _voc_size(size: ElementTree.Element | None) -> tuple[int, int]:
    if size is None:
        return 0, 0
    sides = [_parsed(size.findtext(key) or "0", key) for key in ("width", "height")]
    if any(side < 0 or side != int(side) for side in sides):
        raise ValueError(f"its size is no number of pixels: {sides[0]:g} x {sides[1]:g}")
    return _within_limits(int(sides[0]), int(sides[1]))


def _parsed(text: str | None, key: str) -> float:
    try:
        return _number(float(text or ""), key)
    except ValueError:
        raise ValueError(f"its {key} is no number up to 10^9: {_shown(text)}") from None


def _voc_objects(root: ElementTree.Element) -> Iterator[tuple[str, list[float]]]:
    for number, one in enumerate(root.iter("object")):
        box, name = one.find("bndbox"), one.findtext("name")
        if box is None:
            continue
        if not name:
            raise ValueError(f"object {number} has no name")
        try:
            corners = [_parsed(box.findtext(k), k) for k in ("xmin", "ymin", "xmax", "ymax")]
        except ValueError as error:
            raise ValueError(f"object {number}: {error}") from None
        if corners[2] < corners[0] or corners[3] < corners[1]:
            raise ValueError(f"object {number}: its box ends before it starts")
        yield name, corners


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
            f"annotations {shortened(known[0].file_name)!r}, …"
        )
    return found
