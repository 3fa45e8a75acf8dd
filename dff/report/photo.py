"""The page of photos: each with its concepts drawn live, and what was asked about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from dff.maps import fitted
from dff.rendering import BarColumn, overlay
from dff.report.page import html_page, rounded
from dff.report.pictures import heat_colors, jpeg_uri, map_uri, png_uri

__all__ = [
    "Answers",
    "ConceptEntry",
    "Figure",
    "PhotoEntry",
    "PhotoPage",
    "Table",
    "photo_page",
]

MOST_DRAWN = 256  # concepts in one picture
SCRIPTS = ("painter.js", "bars.js", "viewer.js", "photo.js")


@dataclass(frozen=True)
class ConceptEntry:
    """A concept: its title, its colour (R, G, B), and its share of the activations in [0, 1]."""

    title: str
    color: tuple[int, int, int]
    share: float


@dataclass(frozen=True)
class Table:
    """Figures with a title: rows of texts under columns, and a sentence that sums them up."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing with a title, and a sentence about it."""

    title: str
    picture: Image.Image
    text: str = ""


@dataclass(frozen=True)
class Answers:
    """What was asked about a photo.

    Attributes:
        bars: columns of one number a concept, each with what they come to.
        tables: other figures.
        figures: curves and other drawings.
    """

    bars: Sequence[BarColumn] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True, eq=False)
class PhotoEntry:
    """A photo and its concepts.

    Attributes:
        name: of the photo, as it is shown.
        pixels: uint8 (height, width, 3), as large as it is shown.
        sharp: (k, rows, cols) in [0, 1]: the maps, fitted to the photo's edges.
        smooth: likewise, as they are.
        shares: (k,) of the photo's activations.
        labels: for each concept (class, confidence), the surest first.
        predictions: (class, probability) of the photo, best first.
        cams: (class, map (rows, cols) in [0, 1]) of Grad-CAM.
        answers: what was asked about it.
    """

    name: str
    pixels: np.ndarray
    sharp: np.ndarray
    smooth: np.ndarray
    shares: Sequence[float]
    labels: Sequence[Sequence[tuple[str, float]]]
    predictions: Sequence[tuple[str, float]] = ()
    cams: Sequence[tuple[str, np.ndarray]] = ()
    answers: Answers = field(default_factory=Answers)


@dataclass(frozen=True)
class PhotoPage:
    """All that a page shows.

    Attributes:
        title: of the page.
        about: lines of what the concepts are of: model, layer, output.
        concepts: which the photos share.
        photos: at least one.
        unscored: why the concepts have no classes; "" where they have.
        figures: drawings of all photos together, such as the curve of a sweep.
        left_out: what is not in the page, and why; "" if nothing is.
    """

    title: str
    about: Sequence[str]
    concepts: Sequence[ConceptEntry]
    photos: Sequence[PhotoEntry]
    unscored: str = ""
    figures: Sequence[Figure] = ()
    left_out: str = ""


def photo_page(page: PhotoPage) -> str:
    """Return the page as HTML, in one piece."""
    first = page.photos[0]
    data = {
        "title": page.title,
        "about": list(page.about),
        "unscored": page.unscored,
        "left_out": page.left_out,
        "heat": heat_colors(),
        "concepts": [
            {"title": c.title, "color": list(c.color), "share": rounded(c.share)}
            for c in page.concepts
        ],
        "photos": [_photo(photo) for photo in page.photos],
        "figures": [_figure(figure) for figure in page.figures],
    }
    return html_page(page.title, data, SCRIPTS, fallback=_still(first, page.concepts))


def _photo(photo: PhotoEntry) -> dict[str, Any]:
    return {
        "name": photo.name,
        "width": photo.pixels.shape[1],
        "height": photo.pixels.shape[0],
        "image": jpeg_uri(photo.pixels),
        "sharp": [map_uri(one) for one in photo.sharp],
        "smooth": [map_uri(one) for one in photo.smooth],
        "shares": rounded(photo.shares),
        "labels": [[[name, rounded(sure)] for name, sure in row] for row in photo.labels],
        "predictions": [[name, rounded(value)] for name, value in photo.predictions],
        "cams": [[name, map_uri(one)] for name, one in photo.cams],
        "bars": [_bars(column) for column in photo.answers.bars],
        "tables": [
            {"title": t.title, "columns": list(t.columns), "rows": [list(r) for r in t.rows],
             "text": t.text}
            for t in photo.answers.tables
        ],
        "figures": [_figure(figure) for figure in photo.answers.figures],
    }  # fmt: skip


def _bars(column: BarColumn) -> dict[str, Any]:
    return {
        "heading": column.heading,
        "about": column.about,
        "values": rounded(column.values, 5),
        "addends": [[name, rounded(value, 5)] for name, value in column.addends],
        "total": column.total and [column.total[0], rounded(column.total[1], 5)],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {"title": figure.title, "text": figure.text, "picture": png_uri(figure.picture)}


def _still(photo: PhotoEntry, concepts: Sequence[ConceptEntry]) -> str:
    """Return the photo under its concepts as a picture, for readers without scripts."""
    if len(concepts) > MOST_DRAWN:
        return jpeg_uri(photo.pixels, quality=70)
    size = (photo.pixels.shape[0], photo.pixels.shape[1])
    maps = np.stack([fitted(one, size) for one in photo.smooth]).clip(0, 1)
    painted = overlay(photo.pixels, maps, colors=np.array([c.color for c in concepts]))
    return jpeg_uri(painted, quality=70)
