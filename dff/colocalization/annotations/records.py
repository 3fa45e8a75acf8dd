"""What is annotated in an image, and the checks that every value of a file passes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dff.errors import UsageError, shortened
from dff.images import MAX_PIXELS
from dff.maps.rle import drawn, encoded, union

__all__ = [
    "Known",
    "Segmentation",
    "checked_number",
    "checked_size",
    "excerpt",
    "matched",
    "read_bounded",
]

Box = tuple[float, float, float, float]

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
    by_image = {}
    for annotated in known:
        index = by_path.get(annotated.file_name)
        if index is None:
            index = by_name.get(os.path.basename(annotated.file_name))
        if index is not None:
            by_image[index] = annotated
    if not by_image:
        raise UsageError(
            f"none of the run's images is annotated: they are called {paths[0]!r}, …, the "
            f"annotations {shortened(known[0].file_name)!r}, …"
        )
    return by_image


def read_bounded(path: Path, most: int) -> bytes:
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


def checked_size(width: int, height: int) -> tuple[int, int]:
    """Return the size of an image, which is one that can be read."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"its size of {width} x {height} is over {MAX_PIXELS:,} pixels")
    return width, height


def checked_number(value: Any, key: str) -> float:
    """Return a finite number that is no further than FARTHEST from 0."""
    if type(value) not in (int, float) or not -FARTHEST <= value <= FARTHEST:
        raise ValueError(f"its {key} is no number up to 10^9: {excerpt(value)}")
    return float(value)


def excerpt(value: Any) -> str:
    """Return a value of a file for a message, without writing out all of a large one."""
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    if type(value) is int and abs(value) > 10**30:
        return "a very large number"
    return shortened(repr(value[:80]) if isinstance(value, str) else value, 80)
