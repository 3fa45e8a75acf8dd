"""Tar shards (WebDataset), local or at an address: found by headers, read by offsets."""

from __future__ import annotations

import glob
import os
import re
import tarfile
from collections.abc import Sequence

from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.remote import is_address, opened, store_of
from dff.errors import ImageError, UsageError
from dff.images import IMAGES, Source

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

    def file(self, index: int) -> str | None:
        file = self.places[index][0]
        return None if is_address(file) else file

    def source(self, index: int) -> Source:
        file, offset, length = self.places[index]
        try:
            data = _part(file, offset, length)
        except OSError as error:
            raise ImageError(f"cannot read {file}: {error.strerror or error}") from None
        if len(data) < length:
            raise ImageError(f"cannot read {self.paths[index]}: the shard ends early")
        return data


def _part(file: str, offset: int, length: int) -> bytes:
    if is_address(file):
        system, inner = store_of(file)
        return bytes(system.cat_file(inner, start=offset, end=offset + length))
    with open(file, "rb") as shard:
        return os.pread(shard.fileno(), length, offset)


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
        UsageError: a file is not a tar file, or compressed.
    """
    files = [file if is_address(file) else os.path.abspath(file) for file in files]
    root = os.path.dirname(files[0])
    rows: list[tuple[str, str | None, tuple[str, int, int]]] = []
    for file in files:
        try:
            rows += _members(file)
        except (tarfile.TarError, OSError) as error:
            raise UsageError(f"cannot read {file!r} as an uncompressed tar file: {error}") from None
    return TarDataset(root, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


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
    name = os.path.basename(file)
    return [
        (f"{name}/{inner}", labels.get(os.path.splitext(inner)[0]), position)
        for inner, position in images
    ]
