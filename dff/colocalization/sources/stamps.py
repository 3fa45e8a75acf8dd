"""Has an image changed since it was read?

A stamp is the state of the file that holds an image when it was read, and the digest of the bytes
that were decoded. Where size and times are the same, so is the image; where they are not, or were
too fresh to be trusted when it was read, the content decides. (Git does likewise: racy entries.)
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from dff.files import digest_of

if TYPE_CHECKING:
    from dff.colocalization.sources.dataset import Dataset

__all__ = ["Row", "Stamp", "changed_images", "looks", "status"]

FRESH = 2_000_000_000
"""Nanoseconds within which a file may be written twice and keep its times (FAT counts in 2 s)."""
MOST_LOOKS, ASKED = 4096, 256  # files that tell whether ranks agree; images a thread asks for
Row = tuple[int, int, int, str]


@dataclass(frozen=True)
class Stamp:
    """The state of an image.

    Attributes:
        size: bytes of the file that holds it; -1 where there is none.
        modified: time of its last modification, ns.
        changed: time of the last change of its inode, ns; 0 where it was too fresh.
        digest: of the image's own bytes; "" where they were not read.
    """

    size: int
    modified: int
    changed: int
    digest: str = ""

    @property
    def row(self) -> Row:
        """The same as a tuple, for tables."""
        return self.size, self.modified, self.changed, self.digest

    def of_content(self, content: bytes | io.BufferedReader) -> Stamp:
        """Return the stamp with the digest of what was read; a file is left at its start."""
        digest = digest_of(io.BytesIO(content) if isinstance(content, bytes) else content)
        if not isinstance(content, bytes):
            content.seek(0)
        return replace(self, digest=digest)


def status(path: str) -> Stamp:
    """Return the stamp of a file without its content's digest."""
    try:
        now = os.stat(path)
    except (OSError, ValueError):
        return Stamp(-1, 0, 0)
    fresh = time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) < FRESH
    return Stamp(now.st_size, now.st_mtime_ns, 0 if fresh else now.st_ctime_ns)


def looks(dataset: Dataset) -> dict[int, tuple[int, int]]:
    """Return (size in bytes, -1 where missing; time of change in s) of some files, evenly spread.

    By the image that they hold; of a dataset without files, nothing.
    """
    step = -(-len(dataset) // MOST_LOOKS)
    found: dict[str, Stamp] = {}
    seen = {}
    for index in range(0, len(dataset), max(1, step)):
        if (path := dataset.file(index)) is not None:
            if path not in found:
                found[path] = status(path)
            seen[index] = (found[path].size, found[path].modified // 10**9)
    return seen


def changed_images(
    dataset: Dataset, rows: Iterable[tuple[int, Row | None]], *, workers: int = 1
) -> set[int]:
    """Return the images (id, what they were when they were read) that are not the same any more.

    Threads ask, as the answer of a store far away takes its time.
    """

    def changed(some: Sequence[tuple[int, Row]]) -> set[int]:
        return {index for index, row in some if _has_changed(dataset, index, row)}

    known = ((index, row) for index, row in rows if row is not None)
    found: set[int] = set()
    with ThreadPoolExecutor(workers, thread_name_prefix="dff-looker") as pool:
        while some := list(islice(known, ASKED * workers)):
            for part in pool.map(changed, [some[i::workers] for i in range(workers)]):
                found |= part
    return found


def _has_changed(dataset: Dataset, index: int, row: Row) -> bool:
    path = dataset.file(index)
    if path is None:
        return False
    now, before = status(path), Stamp(*row)
    if before.changed and now.row[:3] == tuple(row[:3]):
        return False
    if not before.digest or now.size < 0:
        return (now.size, now.modified) != (before.size, before.modified)
    try:
        source = dataset.source(index)
        if isinstance(source, bytes):
            return before.digest != digest_of(io.BytesIO(source))
        return now.size != before.size or before.digest != digest_of(path)
    except (OSError, ValueError):
        return True
