"""The sheet of several photos in shared concepts: a row a concept, a column a photo."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dff.concepts import titles
from dff.explain.drawing import Drawing
from dff.explain.photo import Photo
from dff.explain.questions.labels import first_labels
from dff.labels import NO_CLASS, short_name
from dff.maps import fitted, within
from dff.rendering import LegendEntry, Line, contact_sheet

__all__ = ["clear_where", "draw_sheet", "spoken_in"]

COLUMNS = 8
TILE = 160
PALE = 238
WHITE = (255, 255, 255)


def draw_sheet(
    clips: Sequence[Sequence[Photo]], *, top_k: int = 3, smooth: bool = False
) -> Image.Image:
    """Draw a row for each concept: each photo clear where the concept is, and pale elsewhere.

    The first row is the photos with all concepts. Of more than eight photos a concept's row shows
    those in which it is most present. Beside it stands what it speaks for, and in how many photos.

    Args:
        clips: photos that share concepts, each alone, or clips (their first frames are shown).
        top_k: most classes a concept.
        smooth: as of :class:`dff.explain.drawing.Drawing`.
    """
    photos = [clip[0] for clip in clips]
    bank = photos[0].bank
    shown = photos[:COLUMNS]
    painted = [Drawing([one], smooth=smooth).overlay(with_legend=False) for one in shown]
    title = "all concepts" if len(photos) <= COLUMNS else f"the first {COLUMNS} of {len(photos)}"
    rows: list[tuple[LegendEntry, Sequence[np.ndarray | Image.Image]]] = [
        (LegendEntry(WHITE, title), painted)
    ]
    presence = np.stack([photo.maps().mean((1, 2)) for photo in photos])
    spoken = spoken_in(photos, top_k)
    cleared = functools.cache(lambda i: clear_where(photos[i], TILE))
    for k, name in enumerate(titles(bank.names)):
        best = [*range(len(photos))]
        if len(best) > COLUMNS:
            best = np.argsort(-presence[:, k], kind="stable")[:COLUMNS].tolist()
        pictures = [cleared(i)[k] for i in best]
        rows.append((LegendEntry(bank.colors[k], name, float(bank.shares[k]), spoken[k]), pictures))
    return contact_sheet(rows, tile=TILE)


def clear_where(photo: Photo, side: int) -> list[np.ndarray]:
    """Return for each concept the photo, `side` pixels on its longer side, clear where that is."""
    size = within(photo.picture.pixels.shape[:2], side)
    small = fitted(photo.picture.pixels, size)
    shares = [0.2 + 0.8 * np.clip(1.5 * m[..., None], 0, 1) for m in photo.heatmaps(size)]
    return [(small * share + PALE * (1 - share)).astype(np.uint8) for share in shares]


def spoken_in(photos: Sequence[Photo], top_k: int) -> list[list[Line]]:
    """Return for each concept the classes that come first, and in how many photos they do."""
    shared = photos[0].shared
    if shared.unscored:
        return [[] for _ in range(len(shared.bank))]
    found: list[list[Line]] = []
    for counts in first_labels(photos):
        lines: list[Line] = [
            (short_name(index, shared.class_names), f"{count} of {len(photos)}")
            for index, count in counts.most_common(top_k)
        ]
        found.append(lines or [NO_CLASS])
    return found
