"""The pictures of a photo's concepts: overlay, legend, panel."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from dff import rendering
from dff.concepts import titles
from dff.errors import UsageError
from dff.explain.photo import Photo, Target
from dff.explain.shared import SharedConcepts
from dff.images import Picture
from dff.maps import fitted, sharpened, within
from dff.rendering import LegendEntry

__all__ = ["by_name", "draw_overlay", "draw_panel", "file_name", "legend_entries"]

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_SIDE = 2048
"""Pictures are drawn at the photo's own size, up to this many pixels on the long side."""


def by_name(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method without positional arguments say what it takes, when it is given one."""
    options = [f"{name}=" for name in inspect.signature(method).parameters if name != "self"]
    name = method.__name__

    @functools.wraps(method)
    def call(*args: P.args, **options_given: P.kwargs) -> R:
        if len(args) > 1:
            raise UsageError(
                f"{name}() takes its options by name ({', '.join(options)}), not {args[1]!r:.40}; "
                f"of several photos, photo i is result[i].{name}()"
            )
        return method(*args, **options_given)

    return call


def legend_entries(shared: SharedConcepts, *, top_k: int = 3) -> list[LegendEntry]:
    """Return a legend entry for each concept: swatch, name, share, and its top classes."""
    bank = shared.bank
    return [
        LegendEntry(
            color=tuple(int(v) for v in color),
            title=name,
            share=float(share),
            lines=[(c.name, c.probability) for c in shared.top_classes(k, top_k=top_k)],
        )
        for k, (color, name, share) in enumerate(
            zip(bank.colors, titles(bank.names), bank.shares.tolist(), strict=True)
        )
    ]


def draw_overlay(
    photos: Sequence[Photo],
    *,
    top_k: int = 3,
    with_legend: bool = True,
    image_weight: float = 0.5,
    smooth: bool = False,
) -> Image.Image:
    """Draw the strongest concept at each pixel over the photo, with a legend at its right.

    `photos` is one, or the frames of a clip, which are set in rows. Maps follow the photo's edges
    (:func:`dff.maps.sharpened`), but with `smooth`.
    """
    painted = _overlaid(photos, image_weight, smooth=smooth)
    if not with_legend:
        return Image.fromarray(painted)
    return rendering.panel([("", painted)], legend=legend_entries(photos[0].shared, top_k=top_k))


def draw_panel(
    photos: Sequence[Photo],
    *,
    target: Target | None = None,
    top_k: int = 3,
    smooth: bool = False,
) -> Image.Image:
    """Draw photo | concepts | Grad-CAM side by side, with titles and the legend.

    `photos` is one, or the frames of a clip, which are set in rows in each picture;
    `smooth` as in :func:`draw_overlay`.

    Grad-CAM is left out where the concepts have no scores, or the model no gradients.
    """
    photo = photos[0]
    class_index = None if photo.shared.headless and target is None else photo.target(target)
    concepts = _overlaid(photos, smooth=smooth)
    pictures = [
        (file_name(photos), rendering.film([_reduced(frame.picture) for frame in photos])),
        (f"{len(photo.bank)} concepts", concepts),
    ]
    unscored = photo.shared.unscored or photo.undifferentiable
    if class_index is not None and not unscored:
        cells = photo.cam_cells(class_index)
        heatmap = rendering.film([_heated(frame, cells) for frame in photos])
        pictures.append((f"Grad-CAM: {photo.shared.class_name(class_index)}", heatmap))
    return rendering.panel(pictures, legend=legend_entries(photo.shared, top_k=top_k))


def file_name(photos: Sequence[Photo]) -> str:
    """Return the name of a photo, or of the clip that these are the frames of."""
    name = photos[0].picture.name
    return name if len(photos) == 1 else name.rpartition("-")[0] or name


def _overlaid(photos: Sequence[Photo], image_weight: float = 0.5, *, smooth: bool) -> np.ndarray:
    """Return a photo under its concepts, numbered, or the frames of a clip in rows."""
    frames = []
    for photo in photos:
        pixels, colors = _reduced(photo.picture), photo.bank.colors
        size = (pixels.shape[0], pixels.shape[1])
        maps = photo.heatmaps(size)
        if not smooth:
            maps = sharpened(maps, pixels, radius=max(1, round(size[0] / photo.grid.rows)))
        painted = rendering.overlay(pixels, maps, colors=colors, image_weight=image_weight)
        if len(photos) == 1:  # frames in rows are too small for numbers
            painted = rendering.number_concepts(painted, maps, colors=colors)
        frames.append(painted)
    return rendering.film(frames)


def _heated(photo: Photo, cells: Tensor) -> np.ndarray:
    pixels = _reduced(photo.picture)
    cam = photo.cam_on_pixels(cells, (pixels.shape[0], pixels.shape[1]))
    return rendering.heatmap_overlay(pixels, cam)


def _reduced(picture: Picture) -> np.ndarray:
    """Return the photo at the size it is drawn at."""
    longest = max(picture.height, picture.width)
    if longest <= LONGEST_SIDE:
        return picture.pixels
    return fitted(picture.pixels, within((picture.height, picture.width), LONGEST_SIDE))
