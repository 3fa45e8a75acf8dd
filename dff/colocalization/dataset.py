"""What a dataset is: a numbered sequence of images, wherever they lie.

A folder (class subfolders become labels), a text or CSV list of paths, tar shards, a video, or a
Python dataset: each becomes a :class:`Dataset`, whose order never changes between two runs.
"""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dff.errors import ImageError, RunError, UsageError, closest
from dff.images import Source

__all__ = ["Dataset", "FileDataset", "PythonDataset", "open_dataset"]

IMAGES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".dib",
        ".gif",
        ".tif",
        ".tiff",
        ".avif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".jp2",
    ]
)
VIDEOS = frozenset([".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"])
PATH_COLUMNS = ("path", "file", "filename", "file_name", "image")
LABEL_COLUMNS = ("label", "class", "category")


class Dataset(ABC):
    """Images by number.

    Attributes:
        kind: "folder", "list", "tar", "video" or "python".
        root: what the paths are relative to.
        paths: (n,) names of the images, as tables show them.
        labels: (n,) class names, None where unknown.
        given: the path that the user named, absolute; None where it was no single path.
    """

    def __init__(
        self, kind: str, root: str, paths: Sequence[str], labels: Sequence[str | None]
    ) -> None:
        self.kind = kind
        self.root = root
        self.paths = paths
        self.labels = labels
        self.given: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @abstractmethod
    def source(self, index: int) -> Source:
        """Return what :func:`dff.images.read_image` takes for an image; called by threads.

        Raises:
            ImageError: the image is not there.
        """

    def file(self, index: int) -> str | None:
        """Return the file whose times tell whether an image has changed; None where none does."""
        return None

    def fingerprint(self) -> str:
        """Return a digest of all paths and labels."""
        digest = hashlib.sha256()
        for path, label in zip(self.paths, self.labels, strict=True):
            digest.update(repr((path, label)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


class FileDataset(Dataset):
    """Image files; paths are relative to the root, or absolute."""

    def source(self, index: int) -> Source:
        return os.path.join(self.root, self.paths[index])

    def file(self, index: int) -> str:
        return os.path.join(self.root, self.paths[index])


class PythonDataset(Dataset):
    """A dataset in the manner of torchvision: ``dataset[i]`` is an image, or (image, target)."""

    def __init__(self, items: Any) -> None:
        names = list(getattr(items, "classes", None) or [])
        targets = getattr(items, "targets", None)
        labels: list[str | None] = [None] * len(items)
        if targets is not None and len(targets) == len(items):
            labels = [names[int(t)] if int(t) < len(names) else str(int(t)) for t in targets]
        files = getattr(items, "samples", None) or getattr(items, "imgs", None)
        paths = [f"item {i}" for i in range(len(items))]
        if files is not None and len(files) == len(items):
            paths = [os.fspath(one[0] if isinstance(one, tuple) else one) for one in files]
        super().__init__("python", type(items).__name__, paths, labels)
        self.items = items

    def file(self, index: int) -> str | None:
        path = self.paths[index]
        return path if os.path.isfile(path) else None

    def source(self, index: int) -> Source:
        item = self.items[index]
        image = item[0] if isinstance(item, (tuple, list)) else item
        if hasattr(image, "detach"):  # a tensor (3, height, width)
            image = image.detach().cpu().numpy()
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] in (1, 3):
            image = np.ascontiguousarray(image.transpose(1, 2, 0))
        return image


def open_dataset(given: Any, *, skip: Path | None = None) -> Dataset:
    """Return the images that a user names.

    Args:
        given: a folder; a ``.txt`` (one path a line) or ``.csv`` list (a column "path", and
            "label" if there are labels); a ``.tar`` file, or a folder or pattern of them such as
            ``"shards/{000..099}.tar"``; a video; a list of paths; or an object with ``len`` and
            indices, such as a torchvision dataset.
        skip: a folder that is left out: the run's own.

    Raises:
        UsageError: there is no such file, or no image in it.
    """
    if isinstance(given, Dataset):
        return given
    if isinstance(given, (str, os.PathLike)):
        found = _on_disk(os.fspath(given), skip)
        found.given = os.path.abspath(given)
    elif isinstance(given, (list, tuple)) and all(
        hasattr(p, "__fspath__") or isinstance(p, str) for p in given
    ):
        found = FileDataset("list", os.getcwd(), [os.fspath(p) for p in given], [None] * len(given))
    elif hasattr(given, "__len__") and hasattr(given, "__getitem__"):
        found = PythonDataset(given)
    else:
        raise UsageError(
            "a dataset is a folder, a list of paths, tar shards, a video, or an object with "
            f"len() and indices, not {type(given).__name__}"
        )
    if not len(found):
        raise UsageError(
            f"there is no image in {given!r}; endings that count as images: "
            + " ".join(sorted(IMAGES))
        )
    return found


def _on_disk(path: str, skip: Path | None) -> Dataset:
    from dff.colocalization.tars import open_tars, tar_files
    from dff.colocalization.video import VideoDataset

    if tars := tar_files(path):
        return open_tars(tars)
    if os.path.isdir(path):
        return _folder(path, skip)
    ending = os.path.splitext(path)[1].lower()
    if not os.path.exists(path):
        beside = Path(path).parent
        names = [p.name for p in beside.iterdir()] if beside.is_dir() else []
        raise UsageError(f"there is no dataset {path!r}{closest(Path(path).name, names)}")
    if ending in VIDEOS:
        return VideoDataset.open(path)
    if ending in (".csv", ".tsv"):
        return _csv(path, "\t" if ending == ".tsv" else ",")
    if ending in IMAGES:
        raise UsageError(f"{path!r} is one image; give a folder of them, or use `dff analyze`")
    return _list(path)


def _folder(root: str, skip: Path | None) -> FileDataset:
    avoid = None if skip is None else os.path.realpath(skip)
    paths = sorted(_walk(root, avoid))
    labels = [path.split(os.sep)[0] if os.sep in path else None for path in paths]
    return FileDataset("folder", os.path.abspath(root), paths, labels)


def _walk(root: str, avoid: str | None) -> Iterator[str]:
    """Yield the relative paths of images below `root`; links are followed, but never in a circle.

    A folder that cannot be listed is yielded itself: it becomes a row with its error.
    """
    stack: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while stack:
        relative, above = stack.pop()
        folder = os.path.join(root, relative)
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if not relative:
                raise UsageError(f"cannot list {root!r}: {error.strerror}") from None
            yield relative
            continue
        me = (status.st_dev, status.st_ino)
        if me in above or os.path.realpath(folder) == avoid:
            continue
        for entry in entries:
            name = os.path.join(relative, entry.name)
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                stack.append((name, above | {me}))
            elif os.path.splitext(entry.name)[1].lower() in IMAGES:
                yield name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _list(path: str) -> FileDataset:
    lines = [line.strip("\r") for line in _text(path).split("\n")]
    paths = [line for line in lines if line.strip() and not line.startswith("#")]
    return FileDataset("list", os.path.dirname(os.path.abspath(path)), paths, [None] * len(paths))


def _csv(path: str, delimiter: str) -> FileDataset:
    rows = list(csv.DictReader(_text(path).splitlines(keepends=True), delimiter=delimiter))
    columns = {str(name).strip().lower(): name for name in (rows[0] if rows else {})}
    paths = next((columns[name] for name in PATH_COLUMNS if name in columns), None)
    labels = next((columns[name] for name in LABEL_COLUMNS if name in columns), None)
    if paths is None:
        raise UsageError(
            f"{path!r} needs a column named one of {', '.join(PATH_COLUMNS)}; it has "
            f"{', '.join(columns) or 'no rows'}"
        )
    kept = [row for row in rows if row[paths]]
    root = os.path.dirname(os.path.abspath(path))
    return FileDataset(
        "list",
        root,
        [r[paths] for r in kept],
        [r[labels] or None if labels else None for r in kept],
    )


def _text(path: str) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UsageError(f"{path!r} is not a regular file")
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the list {path!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(
            f"{path!r} is neither a folder, a list of paths (UTF-8), tar shards nor a video"
        ) from None


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
