"""How an attribution is shown: which sign, on which scale, in which colours.

A map v (height, width) is the sum of an attribution over its channels. Drawn is v / s, cut to
[-1, 1], where s is the scale of one map or of several (:func:`scale_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dff.errors import UsageError, closest
from dff.rendering.palette import as_colors

__all__ = ["SIGNS", "STYLES", "Look", "as_map", "scale_of"]

STYLES = ("original", "heat_map", "blended_heat_map", "masked_image", "alpha_scaling")
"""The photo; the map; the map over the photo; the photo darkened, or faded to white, by the map."""

SIGNS = {
    "all": ("RdBu_r", "for the class: red, against it: blue"),
    "positive": ("Reds", "what speaks for the class"),
    "negative": ("Blues", "what speaks against the class"),
    "absolute": ("inferno", "what matters to the class, either way"),
}
"""Which values are shown, in which colours (a name of matplotlib's), and what they say."""

LEVELS = 256


@dataclass(frozen=True)
class Look:
    """How attributions are shown.

    Attributes:
        style: one of :data:`STYLES`; ``-`` is as good as ``_``.
        sign: a key of :data:`SIGNS`.
        outlier_percentile: the largest values that together hold this share of the map, in
            percent, are cut to the end of the scale.
        colormap: a name of matplotlib's, one of its objects, or (n, 3) colours, RGB, from the
            scale's low end to its high one; None is the sign's own.
        image_weight: how much of the photo shows in a blended heat map, in [0, 1].

    Raises:
        UsageError: one of them cannot be; the closest names are given.
    """

    style: str = "blended_heat_map"
    sign: str = "all"
    outlier_percentile: float = 2.0
    colormap: Any = None
    image_weight: float = 0.4
    table: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        style = str(self.style).replace("-", "_")
        sign = {"absolute_value": "absolute"}.get(self.sign, self.sign)
        for what, value, known in (("style", style, STYLES), ("sign", sign, SIGNS)):
            if value not in known:
                hint = closest(str(value), known) or f"; there are {', '.join(known)}"
                raise UsageError(f"there is no {what} {value!r}{hint}")
        if not 0 <= self.outlier_percentile < 100:
            raise UsageError(
                f"outlier_percentile lies from 0 to below 100, not {self.outlier_percentile!r}"
            )
        if not 0 <= self.image_weight <= 1:
            raise UsageError(f"image_weight lies in [0, 1], not {self.image_weight!r}")
        object.__setattr__(self, "style", style)
        object.__setattr__(self, "sign", sign)
        chosen = SIGNS[sign][0] if self.colormap is None else self.colormap
        object.__setattr__(self, "table", _table(chosen))

    @property
    def ends(self) -> tuple[int, int]:
        """The low and the high end of the scale, in scales."""
        return {"all": (-1, 1), "negative": (-1, 0)}.get(self.sign, (0, 1))

    def scaled(self, values: np.ndarray, scale: float) -> np.ndarray:
        """Return a map by its scale, the other sign 0: float32 in [-1, 1]."""
        shown = _of_sign(as_map(values), self.sign)
        if scale <= 0:
            return np.zeros(shown.shape, np.float32)
        return np.clip(shown / scale, -1, 1).astype(np.float32)

    def colors(self, scaled: np.ndarray) -> np.ndarray:
        """Return the colours uint8 (..., 3) of values in [-1, 1]; more is further along the table.

        Of what speaks against, more is more negative.
        """
        place = (scaled + 1) / 2 if self.sign == "all" else np.abs(scaled)
        return self.table[np.clip(np.rint(place * (LEVELS - 1)), 0, LEVELS - 1).astype(int)]


def as_map(values: Any) -> np.ndarray:
    """Return an attribution (channels, height, width) or (height, width) as one map, float64.

    Channels are added up, so that what they say of a pixel together is shown.

    Raises:
        UsageError: another shape, or NaN or infinity.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 3:
        array = array.sum(0)
    if array.ndim != 2 or 0 in array.shape:
        raise UsageError(
            f"an attribution has the shape (channels, height, width), not {np.shape(values)}"
        )
    if not np.isfinite(array).all():
        raise UsageError("the attribution holds NaN or infinity: there is no picture of it")
    return array


def scale_of(maps: Sequence[Any], look: Look) -> float:
    """Return the scale on which all of some maps are shown; 0 where there is nothing to show.

    The largest values of all maps together that hold ``outlier_percentile`` of their sum are above
    it.
    """
    sizes = [np.abs(_of_sign(as_map(values), look.sign)).ravel() for values in maps]
    ordered = np.sort(np.concatenate(sizes)) if sizes else np.zeros(1)
    largest = float(ordered[-1])
    if largest <= 0:
        return 0.0
    held = np.cumsum(ordered / largest)
    first = int(np.searchsorted(held, held[-1] * (1 - look.outlier_percentile / 100)))
    return float(ordered[min(first, len(ordered) - 1)]) or largest


def _of_sign(values: np.ndarray, sign: str) -> np.ndarray:
    if sign == "positive":
        return np.maximum(values, 0)
    if sign == "negative":
        return np.minimum(values, 0)
    return np.abs(values) if sign == "absolute" else values


def _table(chosen: Any) -> np.ndarray:
    """Return the colours uint8 (256, 3) of a colour map."""
    if isinstance(chosen, str):
        import matplotlib

        if chosen not in matplotlib.colormaps:
            hint = closest(chosen, matplotlib.colormaps) or "; matplotlib's names are taken"
            raise UsageError(f"there is no colour map {chosen!r}{hint}")
        chosen = matplotlib.colormaps[chosen]
    if callable(chosen):
        chosen = np.asarray(chosen(np.linspace(0, 1, LEVELS)))[:, :3]
    colors = as_colors(chosen, len(chosen)).astype(np.float64)
    if len(colors) < 2:
        raise UsageError(f"a colour map has two colours or more, not {len(colors)}")
    place = np.linspace(0, len(colors) - 1, LEVELS)
    spread = [np.interp(place, np.arange(len(colors)), channel) for channel in colors.T]
    return np.rint(np.stack(spread, 1)).astype(np.uint8)
