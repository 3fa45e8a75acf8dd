"""Tar shards (WebDataset), local or at an address: found by headers, read by offsets.

At an address they are fetched from front to back, in blocks (``blocks``): once for the headers,
and once in each pass.
"""

from __future__ import annotations

import glob
import os
import re
import tarfile
import warnings
from collections.abc import Sequence
from typing import Any

from dff.colocalization.sources.blocks import Blocks
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.remote import is_address, opened, unread, versions
from dff.errors import ImageError, UsageError
from dff.images import IMAGES, Source
from dff.images.addresses import shown

__all__ = ["TarDataset", "open_tars", "tar_files"]

LABELS = (".cls", ".txt")


class TarDataset(Dataset):
    """Images inside tar files, read without unpacking; names are ``SHARD.tar/INNER``."""

    def __init__(
        self,
        root: str,
        paths: Sequence[str],
        labels: Sequence[str | None],
        places: Sequence[tuple[str, int, int]],
    ) -> None:
        super().__init__("tar", root, paths, labels)
        self.places = places
        self._blocks = Blocks()

    def facts(self) -> list[str]:
        return versions(list(dict.fromkeys(file for file, _, _ in self.places)))

    def file(self, index: int) -> str | None:
        file = self.places[index][0]
        return None if is_address(file) else file

    def source(self, index: int) -> Source:
        file, offset, length = self.places[index]
        try:
            if is_address(file):
                data = self._blocks.read(file, offset, length)
            else:
                with open(file, "rb") as shard:
                    data = os.pread(shard.fileno(), length, offset)
        except Exception as error:  # a store may raise anything
            raise unread(file, error) from None
        if len(data) < length:
            raise ImageError(f"cannot read {self.paths[index]}: the shard ends early")
        return data


def tar_files(path: str) -> list[str]:
    """Return the tar files that a path, pattern or folder names; none if it means another kind."""
    if match := re.search(r"\{(\d+)\.\.(\d+)\}", path):
        first, last = match.groups()
        names = [
            path[: match.start()] + str(i).zfill(len(first)) + path[match.end() :]
            for i in range(int(first), int(last) + 1)
        ]
        if missing := [n for n in names if not is_address(n) and not os.path.isfile(n)]:
            raise UsageError(f"there is no shard {missing[0]!r} ({len(missing)} are missing)")
        return names
    if path.endswith(".tar"):
        if is_address(path):
            return [path]
        shards = [path] if os.path.isfile(path) else sorted(glob.glob(path))
        if not shards:
            raise UsageError(f"there is no tar file {path!r}")
        return shards
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        tars = [name for name in names if name.endswith(".tar")]
        if tars and not any(os.path.splitext(n)[1].lower() in IMAGES for n in names):
            return [os.path.join(path, name) for name in tars]
    return []


def open_tars(files: Sequence[str]) -> TarDataset:
    """List the images of tar files; ``KEY.cls`` beside ``KEY.jpg`` is its label.

    Raises:
        UsageError: a file is not a tar file, compressed, or cut short.
    """
    files = [file if is_address(file) else os.path.abspath(file) for file in files]
    root = os.path.dirname(files[0])
    rows: list[tuple[str, str | None, tuple[str, int, int]]] = []
    for file in files:
        try:
            rows += _members(file)
        except (tarfile.TarError, OSError) as error:
            raise UsageError(
                f"cannot read {shown(file)!r} as an uncompressed tar file: {error}; fetch or "
                "make it again, or leave it out"
            ) from None
    return TarDataset(root, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def _check_end(file: str, handle: Any, offset: int) -> None:
    """Refuse a shard that ends within a header, and warn of one without an end.

    Two blocks of zeros end a tar file. Python takes any end for one.
    """
    handle.seek(offset)
    left = len(handle.read(tarfile.BLOCKSIZE))
    if left == 0:
        warnings.warn(
            f"{shown(file)!r} has no mark at its end: if it was cut short, the images after that "
            "are missing",
            stacklevel=2,
        )
    elif left < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends within a header")


def _members(file: str) -> list[tuple[str, str | None, tuple[str, int, int]]]:
    labels: dict[str, str] = {}
    images: list[tuple[str, tuple[str, int, int]]] = []
    with opened(file) as handle, tarfile.open(fileobj=handle, mode="r:") as shard:
        for member in shard:
            stem, ending = os.path.splitext(member.name)
            if not member.isfile():
                continue
            if ending.lower() in IMAGES:
                images.append((member.name, (file, member.offset_data, member.size)))
            elif ending in LABELS and member.size < 256 and stem not in labels:
                content = shard.extractfile(member)
                if content is not None:
                    labels[stem] = content.read().decode("utf-8", "replace").strip()
            shard.members = []  # type: ignore[attr-defined]  # else every header stays in memory
        _check_end(file, handle, shard.offset)
    name = os.path.basename(file)
    return [
        (f"{name}/{inner}", labels.get(os.path.splitext(inner)[0]), position)
        for inner, position in images
    ]
