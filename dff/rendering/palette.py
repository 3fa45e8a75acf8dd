"""The colours of concepts, in the fixed order in which concepts take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dff.errors import UsageError

__all__ = ["Colors", "as_colors", "colors", "paled"]

Colors = Sequence[Sequence[float] | np.ndarray] | np.ndarray

# Found by maximising the least OKLab distance between any two colours, over normal vision
# (weight 0.6) and full protanopia, deuteranopia and tritanopia as simulated by Machado, Oliveira
# and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009.
# Any two of the first 12 stay 0.1 apart for every reader; the others were added one by one,
# farthest from all before them. Greys are left to the photo.
PALETTE = (
    (0, 119, 255),
    (255, 136, 0),
    (0, 204, 136),
    (238, 17, 102),
    (238, 238, 0),
    (102, 34, 153),
    (85, 255, 255),
    (238, 153, 255),
    (136, 34, 51),
    (85, 119, 0),
    (17, 0, 238),
    (153, 102, 170),
    (238, 34, 204),
    (170, 0, 187),
    (153, 136, 255),
    (170, 221, 153),
    (170, 136, 51),
    (0, 136, 119),
    (204, 136, 187),
    (85, 85, 153),
    (255, 204, 102),
    (153, 34, 119),
    (204, 68, 34),
    (255, 153, 170),
    (68, 68, 255),
    (0, 221, 221),
    (51, 187, 0),
    (119, 170, 102),
    (34, 153, 221),
    (187, 204, 34),
    (187, 34, 85),
    (170, 255, 136),
)


def colors(n: int) -> np.ndarray:
    """Return the first `n` colours, uint8 (n, 3), RGB.

    The first 12 are distinguishable under each kind of dichromacy, 32 are all different, and
    after those the palette starts again.
    """
    if n < 0:
        raise UsageError(f"the number of colours is 0 or more, not {n}")
    return np.array([PALETTE[i % len(PALETTE)] for i in range(n)], np.uint8).reshape(n, 3)


def as_colors(custom: Colors | None, n: int) -> np.ndarray:
    """Return `n` colours as uint8 (n, 3), from the palette or from what a user gave.

    Args:
        custom: None; or at least `n` colours, RGB or RGBA (its opacity is not used), whole
            numbers of 0..255 or floating point in [0, 1].
        n: how many are needed.
    """
    if custom is None:
        return colors(n)
    try:
        table = np.array([np.asarray(color)[:3] for color in custom])
    except (IndexError, ValueError, TypeError):
        table = np.empty(0)
    if n == 0:
        return colors(0)
    if (
        table.ndim != 2
        or table.shape[1] != 3
        or table.shape[0] < n
        or table.dtype.kind not in "uif"
    ):
        raise UsageError(f"colors must hold {n} colours of three numbers (R, G, B), not {custom!r}")
    top = 1 if table.dtype.kind == "f" else 255
    if not (table.min() >= 0 and table.max() <= top):
        raise UsageError(
            "colours are whole numbers of 0 to 255 or floating point in [0, 1], "
            f"but came in [{table.min():.4g}, {table.max():.4g}]"
        )
    return np.rint(table[:n] * (255 / top)).astype(np.uint8)


def paled(table: np.ndarray) -> np.ndarray:
    """Return colours, uint8 (..., 3), nearer to light grey: of what is to stay behind."""
    return np.rint(np.asarray(table) * 0.45 + 205 * 0.55).astype(np.uint8)
