"""COCO's format of object detection, a JSON file.

It is not trusted: what is read is checked entry by entry, in bounded memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dff.colocalization.annotations.records import (
    Known,
    Segmentation,
    checked_number,
    checked_size,
    excerpt,
    read_bounded,
)
from dff.errors import UsageError, shortened

__all__ = ["read_coco"]

MAX_JSON = 512 << 20  # bytes; the largest of COCO's own files is 450 MB


def read_coco(path: Path) -> list[Known]:
    """Read the images of a COCO JSON file, each with what is annotated in it."""
    complaint = f"{shortened(path)!r} is not COCO's format of object detection"
    try:
        content = json.loads(read_bounded(path, MAX_JSON).decode("utf-8-sig"))
    except UsageError:
        raise
    except (ValueError, RecursionError, MemoryError, OSError) as error:
        raise UsageError(f"{complaint}: {shortened(error or 'it needs too much memory')}") from None
    lists: dict[str, list[Any]] = {}
    for key in ("categories", "images", "annotations"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UsageError(f"{complaint}: it has no list of {key}")
        lists[key] = entries
    names, images = _Entries(complaint, "category"), _Entries(complaint, "image")
    for number, entry in enumerate(lists["categories"]):
        names.add(number, entry, lambda entry: _text(entry, "name"))
    for number, entry in enumerate(lists["images"]):
        images.add(number, entry, lambda entry: Known(_text(entry, "file_name"), *_size(entry)))
    for number, entry in enumerate(lists["annotations"]):
        position = f"annotation {number}"
        try:
            image, name = images.of(entry, "image_id"), names.of(entry, "category_id")
            _annotate(image, name, entry, f"{shortened(path)!r}, {position}")
        except ValueError as error:
            raise UsageError(f"{complaint}: {position}: {error}") from None
    return list(images.known.values())


class _Entries:
    """COCO's images or categories, by their id."""

    def __init__(self, complaint: str, noun: str) -> None:
        self.complaint, self.noun = complaint, noun
        self.known: dict[int | str, Any] = {}

    def add(self, number: int, entry: Any, make: Any) -> None:
        try:
            key = _id(entry, "id")
            if key in self.known:
                raise ValueError(f"the id {shortened(key, 60)!r} occurs twice")
            self.known[key] = make(entry)
        except ValueError as error:
            raise UsageError(f"{self.complaint}: {self.noun} {number}: {error}") from None

    def of(self, entry: Any, key: str) -> Any:
        number = _id(entry, key)
        if number not in self.known:
            raise ValueError(f"there is no {self.noun} {shortened(number, 60)!r}")
        return self.known[number]


def _id(entry: Any, key: str) -> int | str:
    """Return the id of an entry: a whole number or a text; lists and the like are none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is int and abs(value) < 2**63:
        return value
    if isinstance(value, str):
        return value
    raise ValueError(f"its {key} is no whole number: {excerpt(value)}")


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"its {key} is no text: {excerpt(value)}")
    return value


def _size(entry: dict[str, Any]) -> tuple[int, int]:
    """Return (width, height)."""
    sides = []
    for key in ("width", "height"):
        value = entry.get(key)
        number = checked_number(value, key)
        if number < 1 or number != int(number):
            raise ValueError(f"its {key} is no number of pixels: {excerpt(value)}")
        sides.append(int(number))
    return checked_size(sides[0], sides[1])


def _annotate(image: Known, name: str, entry: dict[str, Any], position: str) -> None:
    """Add one of COCO's annotations to its image; a box without area is none."""
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"its bbox is not [x, y, width, height]: {excerpt(box)}")
    x, y, w, h = (checked_number(value, "bbox") for value in box)
    if w < 0 or h < 0:
        raise ValueError(f"its bbox is {w:g} wide and {h:g} high")
    if w > 0 and h > 0:
        image.boxes.setdefault(name, []).append((x, y, x + w, y + h))
    if entry.get("segmentation"):
        image.masks.setdefault(name, []).append(Segmentation(position, entry["segmentation"]))
