"""Pictures and maps as text: data URIs, and bytes in base64."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dff.errors import UsageError

__all__ = [
    "heat_colors", "heat_uri", "jpeg_uri", "levels", "levels_text", "map_uri", "png_uri", "uri",
]  # fmt: skip


def jpeg_uri(pixels: np.ndarray, *, quality: int = 86) -> str:
    """Return a photo, uint8 (height, width, 3) RGB, as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
    return uri(buffer.getvalue(), "jpeg")


def png_uri(picture: Image.Image) -> str:
    """Return a drawing as a data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return uri(buffer.getvalue(), "png")


def map_uri(one: np.ndarray) -> str:
    """Return a map (height, width) in [0, 1] as a grey PNG in a data URI."""
    done, data = cv2.imencode(".png", levels(one), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise UsageError(f"a map of shape {one.shape} cannot be written as a picture")
    return uri(data.tobytes(), "png")


def levels(values: Any) -> np.ndarray:
    """Return numbers in [0, 1] as uint8 0..255; NaN is 0."""
    return np.rint(np.clip(np.nan_to_num(np.asarray(values, np.float32)), 0, 1) * 255).astype("u1")


def levels_text(values: Any) -> str:
    """Return numbers in [0, 1] as base64 of one byte each, in C order."""
    return base64.b64encode(levels(values).tobytes()).decode()


def uri(data: bytes, kind: str) -> str:
    """Return the bytes of a picture as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@cache
def heat_colors() -> str:
    """Return the 256 colours of heatmaps (inferno, as elsewhere), base64 of RGB triples."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO)
    return base64.b64encode(cv2.cvtColor(table, cv2.COLOR_BGR2RGB).tobytes()).decode()


def heat_uri(one: np.ndarray) -> str:
    """Return a map (height, width) in [0, 1] in the colours of heatmaps, as a data URI."""
    colored = cv2.applyColorMap(levels(one), cv2.COLORMAP_INFERNO)
    return png_uri(Image.fromarray(cv2.cvtColor(colored, cv2.COLOR_BGR2RGB)))
