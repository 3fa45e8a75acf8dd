"""Plain data in, one self-contained page of HTML out: to be opened from disk, offline, or mailed.

- :class:`PhotoPage`, :func:`photo_page`: photos with their concepts drawn live.
- :class:`RunPage`, :func:`run_page`: what was found in a dataset, to be looked through.
- :func:`frame`: a page inside a notebook; :func:`bank_table`: a bank there.

A page holds its data as JSON and its pictures as data URIs; its script and style are files of this
room (``assets``), named by their digests in the page's Content-Security-Policy, under which it can
load nothing and run nothing else.
"""

from __future__ import annotations

from dff.report.notebook import bank_table, frame
from dff.report.photo import (
    Answers,
    ConceptEntry,
    Figure,
    PhotoEntry,
    PhotoPage,
    Table,
    photo_page,
)
from dff.report.run import (
    ClassTable,
    ConceptSection,
    Facts,
    ImageTable,
    RunPage,
    Thumbnail,
    run_page,
)

__all__ = [
    "Answers", "ClassTable", "ConceptEntry", "ConceptSection", "Facts", "Figure", "ImageTable",
    "PhotoEntry", "PhotoPage", "RunPage", "Table", "Thumbnail", "bank_table", "frame",
    "photo_page", "run_page",
]  # fmt: skip
