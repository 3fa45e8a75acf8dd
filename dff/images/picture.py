"""The one form in which pixels travel through the toolkit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dff.errors import UsageError

__all__ = ["Picture"]


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, upright, as it is shown to people.

    Attributes:
        pixels: uint8 (height, width, 3), RGB, read-only.
        name: short name for titles and file names: the file's stem, or "image".
        full_size: (height, width) of the photo itself, upright, in pixels; more than the pixels
            here where it was read no larger than needed (:func:`dff.images.read_image`).
        bands: (height, width, channels), uint8 or float32 in [0, 255], read-only: what a model of
            another number of channels reads (:mod:`dff.images.bands`); None of a plain photo.
        shown: how the pixels show the bands, where that is not plain; else "".
    """

    pixels: np.ndarray
    name: str = "image"
    full_size: tuple[int, int] = (0, 0)
    bands: np.ndarray | None = None
    shown: str = ""

    def __post_init__(self) -> None:
        pixels = self.pixels
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            came = getattr(pixels, "dtype", type(pixels).__name__)
            raise UsageError(f"a Picture holds a uint8 array, not {came}; use read_image")
        if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise UsageError(
                f"a Picture holds an array of shape (height, width, 3), not {pixels.shape}; "
                "use read_image"
            )
        object.__setattr__(self, "pixels", _read_only(pixels))
        if self.bands is not None:
            object.__setattr__(self, "bands", _read_only(self.bands))
        if 0 in self.full_size:
            object.__setattr__(self, "full_size", (self.height, self.width))

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
