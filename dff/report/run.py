"""The page of a run: its concepts, its images, where the model errs, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dff.report.page import html_page, rounded
from dff.report.pictures import levels_text

__all__ = [
    "ClassTable",
    "ConceptSection",
    "Facts",
    "ImageTable",
    "RunPage",
    "Thumbnail",
    "run_page",
]

SCRIPTS = (
    "painter.js", "viewer.js", "heat.js", "table.js", "concepts.js", "gallery.js", "run.js",
)  # fmt: skip


@dataclass(frozen=True)
class ConceptSection:
    """A concept of a run.

    Attributes:
        title: with its number.
        name: its own, which a reader may change.
        color: (R, G, B).
        share: of the activations, in [0, 1].
        prevalence: of the images, in [0, 1].
        images: how many show it.
        classes: that it speaks for, the first first; None where nothing is scored.
        crops: pictures that show it best, as data URIs.
        place: where it sits in images on average, a picture as a data URI; "" if unknown.
        near: (concept from 0, images that show both, lift), the likeliest companions first.
    """

    title: str
    name: str
    color: tuple[int, int, int]
    share: float
    prevalence: float
    images: int
    classes: Sequence[str] | None
    crops: Sequence[str]
    place: str
    near: Sequence[tuple[int, int, float]]


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of a run; lists of one length, n.

    Attributes:
        ids: numbers in the run, from 0.
        paths: as the run names them.
        labels: of the dataset; None where there is none.
        predicted: class names; None where none is predicted.
        probability: of that class, (n,) in [0, 1].
        right: 1 where the label is the class, 0 where not, -1 where that cannot be told.
        strength: (n, k) in [0, 1], 0 where a concept was not found.
    """

    ids: Sequence[int]
    paths: Sequence[str]
    labels: Sequence[str | None]
    predicted: Sequence[str | None]
    probability: np.ndarray
    right: Sequence[int]
    strength: np.ndarray


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A small picture of an image, a data URI, its size, and the maps of some of its concepts.

    Attributes:
        picture: as a data URI.
        width, height: of it, in pixels.
        concepts: which maps are there, from 0.
        maps: (len(concepts), rows, cols) in [0, 1], at the run's cells.
    """

    picture: str
    width: int
    height: int
    concepts: Sequence[int]
    maps: np.ndarray


@dataclass(frozen=True, eq=False)
class ClassTable:
    """What concepts are to classes, or to labels: those that have the most images.

    Attributes:
        title: of the table.
        names: of the rows.
        images: of each row.
        values: (rows, k) what stands in the table.
        kind: "share" of the row's images that show a concept, or what it adds in "logit"s.
        about: what the values are.
        left_out: how many more rows there are.
    """

    title: str
    names: Sequence[str]
    images: Sequence[int]
    values: np.ndarray
    kind: str
    about: str
    left_out: int = 0


@dataclass(frozen=True)
class Facts:
    """A table with a title: rows of texts and numbers under columns, and a sentence above them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    text: str = ""


@dataclass(frozen=True, eq=False)
class RunPage:
    """All that the page of a run shows.

    Attributes:
        title: of the page.
        folder: of the run, for the commands that the page suggests.
        about: lines of what the run is.
        concepts: in order.
        images: the table of images.
        thumbnails: by the image's number in the run.
        grid: where the maps' cells lie (fields of :class:`dff.maps.Grid`).
        classes: what is known of classes and labels.
        lift: (k, k) how much more often two concepts come together than by chance.
        errors: where the model errs, or why that is not known.
        settings: how the run was made, what failed, and how well it locates classes.
        left_out: what is not in the page, and why.
    """

    title: str
    folder: str
    about: Sequence[str]
    concepts: Sequence[ConceptSection]
    images: ImageTable
    thumbnails: Mapping[int, Thumbnail]
    grid: Mapping[str, Any]
    lift: np.ndarray
    classes: Sequence[ClassTable] = ()
    errors: Sequence[Facts] = ()
    settings: Sequence[Facts] = ()
    left_out: Sequence[str] = field(default_factory=tuple)


def run_page(page: RunPage) -> str:
    """Return the page as HTML, in one piece."""
    data = {
        "title": page.title,
        "folder": page.folder,
        "about": list(page.about),
        "concepts": [{**asdict(c), "color": list(c.color)} for c in page.concepts],
        "images": _images(page.images),
        "thumbnails": {
            number: {
                "picture": one.picture,
                "size": [one.width, one.height],
                "concepts": list(one.concepts),
                "maps": levels_text(one.maps),
            }
            for number, one in page.thumbnails.items()
        },
        "grid": dict(page.grid),
        "lift": rounded(page.lift, 2),
        "classes": [
            {**asdict(table), "values": rounded(np.nan_to_num(table.values), 3)}
            for table in page.classes
        ],
        "errors": [asdict(facts) for facts in page.errors],
        "settings": [asdict(facts) for facts in page.settings],
        "left_out": list(page.left_out),
    }
    return html_page(page.title, data, SCRIPTS)


def _images(table: ImageTable) -> dict[str, Any]:
    labels, label = _coded(table.labels)
    classes, predicted = _coded(table.predicted)
    return {
        "ids": list(table.ids),
        "paths": list(table.paths),
        "labels": labels,
        "label": label,
        "classes": classes,
        "predicted": predicted,
        "probability": levels_text(table.probability),
        "right": list(table.right),
        "strength": levels_text(table.strength),
    }


def _coded(names: Sequence[str | None]) -> tuple[list[str], list[int]]:
    """Return the distinct names, sorted, and the place of each name in them; -1 for None."""
    distinct = sorted({name for name in names if name is not None})
    place = {name: i for i, name in enumerate(distinct)}
    return distinct, [-1 if name is None else place[name] for name in names]
