"""From what a user names to a dataset, and from a finished run to its images again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dff.colocalization.sources.columns import open_parquet, parquet_files
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.listed import FileDataset, files_below, listed, tabled
from dff.colocalization.sources.python import PythonDataset
from dff.colocalization.sources.remote import RemoteDataset, is_address
from dff.colocalization.sources.tars import open_tars, tar_files
from dff.colocalization.sources.video import VideoDataset
from dff.errors import ImageError, RunError, UsageError, closest
from dff.images import IMAGES, VIDEOS

__all__ = ["open_dataset", "reopen"]


def open_dataset(given: Any, *, skip: Path | None = None) -> Dataset:
    """Return the images that a user names.

    Args:
        given: a folder; a ``.txt`` (one path a line) or ``.csv`` list (a column "path", and
            "label" if there are labels); a ``.tar`` file, or a folder or pattern of them such as
            ``"shards/{000..099}.tar"``; ``.parquet`` files with a column of images; a video; an
            address of a folder, tar or parquet file that fsspec reads (``s3://``, ``gs://``,
            ``hf://``, ...); a list of paths; or an object with ``len`` and indices, such as a
            dataset of torchvision or of Hugging Face.
        skip: a folder that is left out: the run's own.

    Raises:
        UsageError: there is no such file, or no image in it.
    """
    if isinstance(given, Dataset):
        return given
    if isinstance(given, (str, os.PathLike)):
        name = os.fspath(given)
        dataset = _on_disk(name, skip)
        dataset.given = name if is_address(name) else os.path.abspath(name)
    elif isinstance(given, (list, tuple)) and all(
        hasattr(p, "__fspath__") or isinstance(p, str) for p in given
    ):
        dataset = FileDataset(
            "list", os.getcwd(), [os.fspath(p) for p in given], [None] * len(given)
        )
    elif hasattr(given, "__len__") and hasattr(given, "__getitem__"):
        dataset = PythonDataset(given)
    else:
        raise UsageError(
            "a dataset is a folder, a list of paths, tar shards, parquet files, a video, an "
            f"address, or an object with len() and indices, not {type(given).__name__}"
        )
    if not len(dataset):
        raise UsageError(
            f"there is no image in {given!r}; endings that count as images: "
            + " ".join(sorted(IMAGES))
        )
    return dataset


def _on_disk(path: str, skip: Path | None) -> Dataset:
    if tars := tar_files(path):
        return open_tars(tars)
    if columns := parquet_files(path):
        return open_parquet(columns)
    if is_address(path):
        return RemoteDataset(path)
    if os.path.isdir(path):
        return files_below(path, skip)
    ending = os.path.splitext(path)[1].lower()
    if not os.path.exists(path):
        beside = Path(path).parent
        names = [p.name for p in beside.iterdir()] if beside.is_dir() else []
        raise UsageError(f"there is no dataset {path!r}{closest(Path(path).name, names)}")
    if ending in VIDEOS:
        return VideoDataset.open(path)
    if ending in (".csv", ".tsv"):
        return tabled(path, "\t" if ending == ".tsv" else ",")
    if ending in IMAGES:
        raise UsageError(f"{path!r} is one image; give a folder of them, or use `dff analyze`")
    return listed(path)


def reopen(kind: str, root: str, given: str, paths: Sequence[str]) -> Dataset:
    """Return the dataset of a finished run again, without listing what need not be listed.

    Raises:
        RunError: it was a Python object, which is not on disk.
    """
    if kind in ("folder", "list"):
        return FileDataset(kind, root, paths, [None] * len(paths))
    if kind == "python":
        raise RunError("this run's dataset was a Python object; its images are not on disk")
    try:
        return _on_disk(given, None)
    except UsageError as error:
        raise ImageError(str(error)) from None
