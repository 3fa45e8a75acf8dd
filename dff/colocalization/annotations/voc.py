"""Pascal VOC's format, an XML file for each image.

It is not trusted: what is read is checked entry by entry, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from dff.colocalization.annotations.records import (
    Known,
    checked_number,
    checked_size,
    excerpt,
    read_bounded,
)
from dff.errors import UsageError, shortened

__all__ = ["read_voc"]

MAX_XML = 16 << 20  # bytes


def read_voc(path: Path) -> Known:
    """Read the XML file of an image."""
    try:
        root = _xml(read_bounded(path, MAX_XML))
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
    return checked_size(int(sides[0]), int(sides[1]))


def _parsed(text: str | None, key: str) -> float:
    try:
        return checked_number(float(text or ""), key)
    except ValueError:
        raise ValueError(f"its {key} is no number up to 10^9: {excerpt(text)}") from None


def _voc_objects(root: ElementTree.Element) -> Iterator[tuple[str, list[float]]]:
    for number, entry in enumerate(root.iter("object")):
        box, name = entry.find("bndbox"), entry.findtext("name")
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
