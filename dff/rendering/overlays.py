"""Heatmaps over photos."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dff.errors import UsageError
from dff.rendering.palette import Colors, as_colors
from dff.rendering.text import INK

__all__ = ["check_image", "heatmap_overlay", "overlay"]

# Rows are worked off in blocks of about this many pixels: what a processor's cache holds.
BLOCK = 1 << 14
TOLERANCE = 1e-3

MEETING = 0.3
"""Concepts mix where they are weaker than the strongest by less than this share of it."""

LEAST_PRESENCE = 0.2
"""What is weaker than this has no outline."""

LEAST_AREA = 1 / 400
"""Nor has what is smaller than this, as a share of the square of the picture's shorter side."""


def overlay(
    image: np.ndarray,
    maps: np.ndarray,
    *,
    colors: Colors | None = None,
    image_weight: float = 0.5,
    opacities: Sequence[float] | None = None,
    outline: bool = False,
) -> np.ndarray:
    """Lay concepts over a photo: the strongest concept at each pixel gives its colour.

    The stronger it is, the more opaque the colour and the paler the photo's own colours. Where
    no concept is present, the photo stays exactly as it is. Where two concepts are about equally
    strong, as at the border between them, their colours mix by their strengths; elsewhere they
    are pure.

    Args:
        image: uint8 (height, width, 3), RGB.
        maps: floating point (k, height, width) in [0, 1], one heatmap a concept.
        colors: k colours, RGB, 0..255 or floating point in [0, 1]; default: the palette.
        image_weight: how much of the photo shows where a concept is wholly present, in [0, 1].
        opacities: (k,) in [0, 1], less for concepts that are to stay behind the others; default 1.
        outline: also draw a line around where each concept is the strongest.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        UsageError: an argument of wrong shape, type or range, or maps that hold NaN.
    """
    check_image(image)
    maps = check_maps(maps, image.shape[:2])
    _check_weight(image_weight)
    if len(maps) > 256:
        raise UsageError(f"at most 256 concepts can be drawn in one picture, not {len(maps)}")
    table = np.empty((len(maps), 4), np.float32)
    table[:, :3] = as_colors(colors, len(maps))
    table[:, 3] = _check_opacities(opacities, len(maps))
    if len(maps) == 0:
        return image.copy()
    tint, opacity = _mixed(maps, table)
    # A border may still be a step from one pixel to the next: smooth it.
    side = max(3, 2 * round(min(image.shape[:2]) / 300) + 1)
    result = _blend(image, cv2.blur(tint, (side, side)), opacity, image_weight)
    return _outlined(result, maps) if outline else result


def heatmap_overlay(
    image: np.ndarray,
    heatmap: np.ndarray,
    *,
    image_weight: float = 0.5,
) -> np.ndarray:
    """Lay one heatmap over a photo, as Grad-CAM is commonly shown.

    Colours are those of inferno, whose lightness rises evenly from black to pale yellow, so that
    brighter is more to every reader, and in print. (Google's "turbo" has no such order.)

    Args:
        image: uint8 (height, width, 3), RGB.
        heatmap: floating point (height, width) in [0, 1].
        image_weight: how much of the photo shows, in [0, 1].

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        UsageError: an argument of wrong shape, type or range, or a map that holds NaN.
    """
    check_image(image)
    if np.ndim(heatmap) != 2:
        raise UsageError(f"one heatmap has the shape (height, width), not {np.shape(heatmap)}")
    heatmap = check_maps(np.asarray(heatmap)[None], image.shape[:2])[0]
    _check_weight(image_weight)
    levels = _to_levels(heatmap)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return cv2.addWeighted(image, image_weight, heat, 1 - image_weight, 0)


def check_image(image: np.ndarray) -> None:
    """Raise a UsageError unless `image` is uint8 (height, width, 3) with pixels in it."""
    if not isinstance(image, np.ndarray):
        raise UsageError(f"an image is a NumPy array, not {type(image).__name__}")
    if image.dtype != np.uint8:
        raise UsageError(f"an image is uint8, RGB, not {image.dtype}; use dff.images.read_image")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(f"an image has the shape (height, width, 3), not {image.shape}")


def check_maps(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return maps (k, height, width) as floating point, or raise a UsageError."""
    maps = np.asarray(maps)
    if maps.dtype.kind != "f":
        raise UsageError(f"maps are floating point in [0, 1], not {maps.dtype}")
    if maps.ndim != 3 or maps.shape[1:] != tuple(size):
        raise UsageError(
            f"maps have the shape (concepts, height, width), here (k, {size[0]}, {size[1]}), "
            f"not {maps.shape}; dff.maps.upsample brings them to the picture's size"
        )
    if maps.size:
        low, high = float(maps.min()), float(maps.max())
        if np.isnan(low) or np.isnan(high):
            raise UsageError("the maps hold NaN; look for it in the model's activations")
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            raise UsageError(
                f"maps lie in [0, 1], but came in [{low:.4g}, {high:.4g}]; "
                "dff.maps.presence and dff.maps.rescale bring them there"
            )
    return maps


def _check_weight(weight: float) -> None:
    if not 0 <= weight <= 1:
        raise UsageError(f"image_weight lies in [0, 1], not {weight!r}")


def _check_opacities(opacities: Sequence[float] | None, n: int) -> np.ndarray:
    table = np.ones(n) if opacities is None else np.asarray(opacities, float)
    if table.shape != (n,) or not ((table >= 0) & (table <= 1)).all():
        raise UsageError(f"opacities must hold {n} numbers in [0, 1], not {opacities!r}")
    return table


def _mixed(maps: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour at each pixel, uint8 (height, width, 3), and how opaque it is, float32.

    A concept weighs w = max(0, 1 - (1 - m / s) / MEETING)^2, m its strength and s the greatest:
    1 for the strongest, and 0 for what is weaker than (1 - MEETING) s.

    Args:
        maps: floating point (k, height, width) in [0, 1].
        table: float32 (k, 4), colours 0..255 and opacities.
    """
    count, height, width = maps.shape
    tint = np.empty((height, width, 3), np.uint8)
    opacity = np.empty((height, width), np.float32)
    summed = np.column_stack([table, np.ones(count, np.float32)]).T  # and the weights' sum
    rows = max(1, BLOCK // width)
    for top in range(0, height, rows):
        part = slice(top, min(top + rows, height))
        block = maps[:, part].reshape(count, -1).astype(np.float32)
        strength = block.max(0)
        block *= (1 / MEETING) / np.maximum(strength, TOLERANCE**2)
        block += 1 - 1 / MEETING
        np.maximum(block, 0, out=block)
        block *= block
        mixed = summed @ block
        mixed[:4] /= np.maximum(mixed[4], TOLERANCE**2)
        opacity[part] = (mixed[3] * strength).reshape(-1, width)
        planes = (mixed[:3] + 0.5).astype(np.uint8).reshape(3, -1, width)
        tint[part] = cv2.merge(list(planes))
    return tint, np.clip(opacity, 0, 1, out=opacity)


def _outlined(picture: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Draw a line, dark on light, around where each concept is the strongest."""
    height, width = picture.shape[:2]
    shorter = min(height, width)
    smooth = [
        cv2.GaussianBlur(one.astype(np.float32), (0, 0), max(1, shorter / 120)) for one in maps
    ]
    strength, strongest = np.max(smooth, 0), np.argmax(smooth, 0)
    strongest[strength < LEAST_PRESENCE] = -1
    thick = max(1, round(shorter / 320))
    beyond = 3 * thick  # so that no line runs along the picture's border
    padded = np.pad(strongest, beyond, mode="edge")
    lines: list[np.ndarray] = []
    for k in range(len(maps)):
        region = (padded == k).astype(np.uint8)
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        lines += [c - beyond for c in contours if cv2.contourArea(c) >= LEAST_AREA * shorter**2]
    result = picture.copy()
    cv2.drawContours(result, lines, -1, (255, 255, 255), 3 * thick, cv2.LINE_AA)
    cv2.drawContours(result, lines, -1, INK, thick, cv2.LINE_AA)
    return result


def _blend(
    image: np.ndarray, tint: np.ndarray, strength: np.ndarray, image_weight: float
) -> np.ndarray:
    """Go from the photo to the tinted, paler photo by strength."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    pale = cv2.addWeighted(image, image_weight, grey, 1 - image_weight, 0)
    tinted = cv2.addWeighted(pale, image_weight, tint, 1 - image_weight, 0)
    return cv2.blendLinear(image, tinted, 1 - strength, strength)


def _to_levels(heatmap: np.ndarray) -> np.ndarray:
    """Round a map in [0, 1] to uint8 levels."""
    return np.clip(heatmap * 255 + 0.5, 0, 255).astype(np.uint8)
