"""Images of any number of channels: what a model reads of them, and what people are shown.

A photo is 8-bit RGB. Whatever else is handed in (one channel of 16 bits, RGBA, seven bands of a
satellite) keeps its channels as *bands*, in the levels of a photo, 0 to 255, but as fine as they
came. A model of three channels reads the picture, any other the bands.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from dff.errors import ImageError
from dff.images.picture import Picture

__all__ = ["MAX_CHANNELS", "channels_of", "pictured"]

MAX_CHANNELS = 1024
STRETCH = (2, 98)
"""Percentiles that a false-colour picture runs between, from black to full light."""


def pictured(bands: np.ndarray) -> Picture:
    """Return a picture of bands (height, width, channels), levels in [0, 255] of any type.

    One channel is shown in grey; RGBA over white; of any other number the first three as red,
    green and blue, or the first alone, each stretched to its own range, as the picture says
    (`shown`).
    """
    count = bands.shape[2]
    if count == 3:
        return Picture(_rounded(bands))
    if count == 1:
        return Picture(np.repeat(_rounded(bands), 3, axis=2), bands=bands)
    if count == 4:
        image = Image.fromarray(_rounded(bands))  # of four channels: RGBA
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        pixels = np.array(Image.alpha_composite(white, image).convert("RGB"))
        shown = "channels 1, 2, 3 of 4 as red, green, blue, over white where the fourth is low"
        return Picture(pixels, bands=bands, shown=shown)
    colours = [0, 1, 2] if count > 2 else [0, 0, 0]
    low, high = np.percentile(bands[..., colours], STRETCH, axis=(0, 1))
    span = np.where(high > low, high - low, 1)
    pixels = _rounded(np.clip((bands[..., colours] - low) / span, 0, 1) * 255)
    named = "channels 1, 2, 3" if count > 2 else "channel 1"
    way = " as red, green, blue, each" if count > 2 else " in grey,"
    shown = f"{named} of {count}{way} from percentile {STRETCH[0]} to {STRETCH[1]}"
    return Picture(pixels, bands=bands, shown=shown)


def channels_of(picture: Picture, count: int) -> np.ndarray:
    """Return the levels (height, width, count), uint8 or float32 in [0, 255], that a model reads.

    Three channels are the picture's pixels, one its only channel, or its luminance (ITU-R 601);
    any other number are its bands.

    Raises:
        ImageError: it has another number of channels.
    """
    bands = picture.bands
    if bands is not None and bands.shape[2] == count:
        return bands
    in_colour = bands is None or bands.shape[2] in (1, 4)
    if in_colour and count == 3:
        return picture.pixels
    if in_colour and count == 1:
        return np.asarray(Image.fromarray(picture.pixels).convert("L"))[..., None]
    there = "3 (a photo)" if bands is None else bands.shape[2]
    hint = f"give an array (height, width, {count})"
    if count == 4 and bands is None:
        hint += ", or an image with transparency (RGBA)"
    if picture.height == count and bands is not None:
        hint = f"channels come last: array.transpose(1, 2, 0) is (height, width, {count})"
    raise ImageError(
        f"the model takes images of {count} channel{'s' * (count > 1)}, and {picture.name!r} has "
        f"{there} on {picture.height} x {picture.width} pixels; {hint}"
    )


def _rounded(levels: np.ndarray) -> np.ndarray:
    if levels.dtype == np.uint8:
        return levels
    return (np.clip(levels, 0, 255) + 0.5).astype(np.uint8)
