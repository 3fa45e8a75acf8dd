"""Heatmaps over photos."""

from __future__ import annotations

import cv2
import numpy as np

from dff.errors import UsageError
from dff.rendering.palette import Colors, as_colors

__all__ = ["check_image", "heatmap_overlay", "overlay"]

# Rows are worked off in blocks of about this many pixels: what a processor's cache holds.
BLOCK = 1 << 16
TOLERANCE = 1e-3


def overlay(
    image: np.ndarray,
    maps: np.ndarray,
    *,
    colors: Colors | None = None,
    image_weight: float = 0.5,
) -> np.ndarray:
    """Lay concepts over a photo: the strongest concept at each pixel gives its colour.

    The stronger it is, the more opaque the colour and the paler the photo's own colours. Where
    no concept is present, the photo stays exactly as it is.

    Args:
        image: uint8 (height, width, 3), RGB.
        maps: floating point (k, height, width) in [0, 1], one heatmap a concept.
        colors: k colours, RGB, 0..255 or floating point in [0, 1]; default: the palette.
        image_weight: how much of the photo shows where a concept is wholly present, in [0, 1].

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
    palette = np.zeros((256, 1, 3), np.uint8)
    palette[: len(maps), 0] = as_colors(colors, len(maps))
    if len(maps) == 0:
        return image.copy()
    strength, strongest = _strongest(maps)
    # Where two concepts meet, the colour changes from one pixel to the next: smooth that edge.
    radius = 2 * round(min(image.shape[:2]) / 300) + 1
    tint = cv2.blur(cv2.applyColorMap(strongest, palette), (max(radius, 3), max(radius, 3)))
    return _blend(image, tint, strength, image_weight)


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


def _strongest(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at each pixel the greatest value, float32, and whose it is, uint8; first of equals."""
    height, width = maps.shape[1:]
    strength = np.empty((height, width), np.float32)
    strongest = np.zeros((height, width), np.uint8)
    rows = max(1, BLOCK // width)
    for top in range(0, height, rows):
        block = slice(top, top + rows)
        best, label = strength[block], strongest[block]
        best[:] = maps[0, block]
        for k in range(1, len(maps)):
            current = maps[k, block]
            stronger = (current > best).view(np.uint8)
            np.maximum(label, stronger * np.uint8(k), out=label)  # k exceeds all labels so far
            np.maximum(best, current, out=best)
    return np.clip(strength, 0, 1, out=strength), strongest


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
