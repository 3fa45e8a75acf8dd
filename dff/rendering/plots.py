"""Curves, by matplotlib without its global state; it is imported only when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL import Image

from dff.errors import UsageError

__all__ = ["curves"]


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    mark: float | None = None,
    mark_label: str = "",
    width: int = 720,
    height: int = 400,
) -> Image.Image:
    """Draw lines over a common x, all values in [0, 1], with a legend.

    Args:
        x: (n,) positions.
        lines: by name, (n,) values each; NaN leaves a gap.
        xlabel: what x is.
        mark: an x to mark with a vertical line, named `mark_label`.
        width: of the picture, in pixels.
        height: likewise.

    Raises:
        UsageError: a line of another length than x, or no lines.
    """
    if not lines or any(len(values) != len(x) for values in lines.values()):
        raise UsageError(f"expected lines of {len(x)} values each")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), style in zip(lines.items(), ("o-", "s--", "^-.", "d:") * 8, strict=False):
        axes.plot(x, values, style, label=name, markersize=5, linewidth=1.8)
    if mark is not None:
        axes.axvline(mark, color="0.35", linewidth=1, label=mark_label or None)
    axes.set_xlabel(xlabel)
    axes.set_ylim(-0.02, 1.05)
    if all(float(value).is_integer() for value in x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")
