"""Concepts of a whole dataset: shared concepts, and their place in every image.

- :func:`colocalize`: a folder, list, tar shards, video or dataset in, a run on disk out.
- :func:`dry_run`: what that would take, after a trial.
- :class:`RunOptions`, :class:`MaskOptions`: how it is made.
- :class:`Run`: a run that is on disk, opened.

Concepts count from 0 in Python (`Run.concept(0)`, `bank.names[0]`), and from 1 on screen, on the
command line and on disk ("Concept 1", category 1 of COCO); images count from 0 everywhere.
"""

from __future__ import annotations

from dff.colocalization.forecast import TRIAL, Forecast
from dff.colocalization.options import MaskOptions, RunOptions
from dff.colocalization.pipeline import colocalize, dry_run
from dff.colocalization.run.finished import Run
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.opening import open_dataset

__all__ = [
    "TRIAL",
    "Dataset",
    "Forecast",
    "MaskOptions",
    "Run",
    "RunOptions",
    "colocalize",
    "dry_run",
    "open_dataset",
]
