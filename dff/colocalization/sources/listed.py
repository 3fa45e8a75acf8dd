"""Image files, found in a folder (class subfolders become labels) or named by a list."""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.remote import is_address, opened, unread
from dff.errors import UsageError
from dff.images import IMAGES, Source

__all__ = ["FileDataset", "files_below", "listed", "tabled"]

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image")
LABEL_COLUMNS = ("label", "class", "category")


class FileDataset(Dataset):
    """Image files; paths are relative to the root, absolute, or addresses."""

    def source(self, index: int) -> Source:
        path = self.paths[index]
        if not is_address(path):
            return os.path.join(self.root, path)
        if re.match(r"https?://", path, re.IGNORECASE):
            return path
        try:
            with opened(path) as file:
                return bytes(file.read())
        except Exception as error:
            raise unread(path, error) from None

    def file(self, index: int) -> str | None:
        path = self.paths[index]
        return None if is_address(path) else os.path.join(self.root, path)


def files_below(root: str, skip: Path | None) -> FileDataset:
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


def listed(path: str) -> FileDataset:
    lines = [line.strip("\r") for line in _text(path).split("\n")]
    paths = [line for line in lines if line.strip() and not line.startswith("#")]
    return FileDataset("list", os.path.dirname(os.path.abspath(path)), paths, [None] * len(paths))


def tabled(path: str, delimiter: str) -> FileDataset:
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
