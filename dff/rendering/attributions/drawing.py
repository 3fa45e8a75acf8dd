"""One attribution, drawn."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from dff.errors import UsageError
from dff.images import Preprocessing
from dff.maps import fitted
from dff.rendering.attributions.looks import Look, as_map, scale_of
from dff.rendering.overlays import check_image

__all__ = ["as_photo", "draw_attribution"]

CLEAR = 0.35
"""The part of the scale from 0 on over which a signed map lets the photo through."""


def draw_attribution(
    values: Any,
    image: Any,
    look: Look | None = None,
    *,
    scale: float | None = None,
    preprocessing: Preprocessing | None = None,
) -> np.ndarray:
    """Draw an attribution at the size of its photo.

    A map of zeros, or of none of the sign asked for, has the picture of the scale's zero.

    Args:
        values: (channels, height, width) or (height, width), signed; of the whole photo, at any
            size.
        image: see :func:`as_photo`.
        look: how; None is signed, over the photo.
        scale: what the end of the colours stands for; None takes the map's own
            (:func:`dff.rendering.attributions.scale_of`).
        preprocessing: of a normalised image.

    Returns:
        uint8 (height, width, 3), RGB.

    Raises:
        UsageError: an argument of wrong shape or type, or NaN.
    """
    look = look or Look()
    photo = as_photo(image, preprocessing)
    if look.style == "original":
        return photo
    shown = as_map(values)
    shown = look.scaled(shown, scale_of([shown], look) if scale is None else scale)
    shown = _at_size(shown, (photo.shape[0], photo.shape[1]))
    strength = np.abs(shown)[..., None]
    if look.style == "heat_map":
        return look.colors(shown)
    if look.style == "masked_image":
        return np.rint(photo * strength).astype(np.uint8)
    if look.style == "alpha_scaling":
        return np.rint(255 + (photo - 255.0) * strength).astype(np.uint8)
    return _blended(photo, look, shown)


def as_photo(image: Any, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Return an image as uint8 (height, width, 3), RGB.

    Args:
        image: uint8 or [0, 1] (height, width, 3); or a model's input (3, height, width), normalised
            by `preprocessing`; if that is None, its values are spread from black to white.
        preprocessing: of that input.

    Raises:
        UsageError: another shape or type.
    """
    if hasattr(image, "detach"):
        image = image.detach().cpu()
        if preprocessing is not None and image.ndim == 3:
            image = preprocessing.to_pixels(image)
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] != 3 and array.shape[0] in (1, 3):
        array = np.repeat(array, 3 // len(array), 0).transpose(1, 2, 0)
    if array.dtype.kind == "f" and array.ndim == 3 and array.size:
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            raise UsageError("the image holds NaN or infinity")
        if low < 0 or high > 1:  # normalised
            array = (array - low) / max(high - low, 1e-12)
        array = np.rint(array * 255).astype(np.uint8)
    check_image(array)
    return np.ascontiguousarray(array)


def _at_size(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = values.shape[0] > size[0] or values.shape[1] > size[1]
    return fitted(values, size, way="area" if shrinks else "linear")


def _blended(photo: np.ndarray, look: Look, shown: np.ndarray) -> np.ndarray:
    """Lay a map over the photo in grey, clear where it is about 0."""
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    opacity = (1 - look.image_weight) * np.clip(np.abs(shown) / CLEAR, 0, 1)[..., None]
    return np.rint(grey * (1 - opacity) + look.colors(shown) * opacity).astype(np.uint8)
