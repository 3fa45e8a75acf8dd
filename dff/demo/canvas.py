"""Paint outlines onto pixels, and keep for every pixel the number of what is seen there.

Points are rounded to 1/256 pixel, and from there on all arithmetic is on integers, so the same
scene has the same bytes on every machine. (OpenCV's anti-aliased painting agrees between its
versions 4.8 and 5.0; its plain filling of polygons does not, and is not used.)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

__all__ = ["Canvas", "Colour", "Layer", "mix"]

Colour = tuple[int, int, int]
_SHIFT = 8


@dataclass(frozen=True)
class Layer:
    """One painted outline of an animal.

    `points` (n, 2) is the outline, `marks` are outlines in another colour `ink`, seen only
    inside it. `relief` (0 to 170) is how round it looks, `line` whether it has a dark rim,
    `joined` are further outlines that melt into the first.
    """

    part: str
    points: np.ndarray
    colour: Colour
    marks: Sequence[np.ndarray] = field(default=())
    ink: Colour = (0, 0, 0)
    relief: int = 150
    line: bool = True
    joined: Sequence[np.ndarray] = field(default=())


@functools.lru_cache(maxsize=1024)
def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour `share` (0 to 1) of the way from the first to the second."""
    weight = round(share * 256)
    r, g, b = (a + (((z - a) * weight) >> 8) for a, z in zip(first, second, strict=True))
    return r, g, b


class Canvas:
    """An image being painted: `pixels` (size, size, 3) uint8 RGB, `owner` (size, size) uint8.

    Coordinates are shares of the side: (0, 0) is the upper left corner, (1, 1) the lower right.
    `light` is the side from which the light comes: -1 left, 1 right.
    """

    def __init__(self, pixels: np.ndarray, light: int) -> None:
        self.pixels = pixels
        self.size = int(pixels.shape[0])
        self.owner = np.zeros(pixels.shape[:2], np.uint8)
        self.light = light
        self._owned = False
        self._margin = self.size // 48 + 1

    def fill(self, outlines: Sequence[np.ndarray], colour: Colour, owner: int = 0) -> None:
        """Fill outlines flatly, and give what they cover to `owner` (0 is nobody)."""
        for points in outlines:
            fixed = [self._fixed(points)]
            cv2.fillPoly(self.pixels, fixed, colour, cv2.LINE_AA, _SHIFT)
            box = self._box(fixed[0]) if self._owned else None
            if box is not None:
                x0, y0, x1, y1 = box
                self.owner[y0:y1, x0:x1][self._inside(box, fixed) > 127] = owner

    def shade(self, points: np.ndarray) -> None:
        """Darken what lies under an outline by a third; it owns nothing."""
        fixed = self._fixed(points)
        box = self._box(fixed)
        if box is None:
            return
        x0, y0, x1, y1 = box
        share = _shares(self._inside(box, [fixed]))
        spot = self.pixels[y0:y1, x0:x1]
        spot[...] = (spot * (768 - share)) // 768

    def paint(self, layer: Layer, owner: int) -> None:
        """Paint a layer with marks, relief and rim, and give what it covers to `owner`."""
        self._owned |= owner > 0
        if not (layer.relief or layer.line or layer.marks):
            return self.fill((layer.points, *layer.joined), layer.colour, owner)
        outlines = [self._fixed(points) for points in (layer.points, *layer.joined)]
        box = self._box(outlines[0] if len(outlines) == 1 else np.concatenate(outlines))
        if box is None:
            return
        x0, y0, x1, y1 = box
        if layer.line:
            rim, wide = mix(layer.colour, (16, 10, 14), 0.62), max(1, self.size // 80)
            cv2.polylines(self.pixels, outlines, True, rim, wide, cv2.LINE_AA, _SHIFT)
        padded = self._coverage(box, outlines)
        cover = self._trimmed(padded)
        colour: np.ndarray = np.array(layer.colour, np.int32)
        if len(layer.marks):
            marked = self._inside(box, [self._fixed(m) for m in layer.marks])
            ink = np.array(layer.ink, np.int32) - colour
            colour = colour + ((ink * _shares(marked)) >> 8)
        if layer.relief:
            colour = np.minimum((colour * self._relief(padded, layer.relief)) >> 8, 255)
        spot = self.pixels[y0:y1, x0:x1]
        spot += (((colour - spot) * _shares(cover)) >> 8).astype(np.uint8)  # wraps, as it should
        self.owner[y0:y1, x0:x1][cover > 127] = owner

    def _relief(self, padded: np.ndarray, strength: int) -> np.ndarray:
        """Return brightness (h, w, 1), 256 meaning unchanged, as if the shape were rounded.

        Blurred coverage rises inwards from the edges; where it rises downwards, or away from the
        light, the surface faces the light. `padded` is coverage with a margin all round.
        """
        reach = max(2, self.size // 24)
        side, m = 2 * reach + 1, self._margin
        soft = cv2.boxFilter(
            padded, cv2.CV_32S, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT
        )
        slope = 2 * (soft[2 * m :, m:-m] - soft[: -2 * m, m:-m])
        slope -= self.light * (soft[m:-m, 2 * m :] - soft[m:-m, : -2 * m])
        slope *= strength
        slope //= 512 * side * side
        slope += 256
        return slope[..., None]

    def _coverage(self, box: tuple[int, int, int, int], outlines: list[np.ndarray]) -> np.ndarray:
        """Return how much (0 to 255) of every pixel of a box and its margin lies in an outline."""
        x0, y0, x1, y1 = box
        m = self._margin
        cover = np.zeros((y1 - y0 + 2 * m, x1 - x0 + 2 * m), np.uint8)
        corner = np.array([(x0 - m) << _SHIFT, (y0 - m) << _SHIFT], np.int32)
        for points in outlines:
            cv2.fillPoly(cover, [points - corner], 255, cv2.LINE_AA, _SHIFT)
        return cover

    def _inside(self, box: tuple[int, int, int, int], outlines: list[np.ndarray]) -> np.ndarray:
        """Return the coverage of a box, without the margin."""
        return self._trimmed(self._coverage(box, outlines))

    def _trimmed(self, padded: np.ndarray) -> np.ndarray:
        return padded[self._margin : -self._margin, self._margin : -self._margin]

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        # Half a pixel less, since the painter counts from pixel centres.
        return np.rint((points * self.size - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def _box(self, points: np.ndarray) -> tuple[int, int, int, int] | None:
        x, y, w, h = cv2.boundingRect(points)
        x0, y0 = max((x >> _SHIFT) - 3, 0), max((y >> _SHIFT) - 3, 0)
        x1 = min(((x + w) >> _SHIFT) + 5, self.size)
        y1 = min(((y + h) >> _SHIFT) + 5, self.size)
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _shares(cover: np.ndarray) -> np.ndarray:
    """Return coverage (h, w) of 0 to 255 as weights (h, w, 1) of 0 to 256."""
    return (cover.astype(np.int32) + (cover >> 7))[..., None]
