"""The file that a folder's manifest is kept in: lines of JSON, only ever added to.

It begins with the folder's identity. Each process that writes into the folder at the same time has
a record of its own. What a killed process left of a last line is passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dff.errors import OutputError
from dff.files import explained, is_regular

__all__ = [
    "FORMAT",
    "append",
    "read_entries",
    "record_files",
    "record_name",
    "refuse_foreign",
]

FORMAT = 1
STEM = ".dff-manifest"
_HEAD = f'{{"format": {FORMAT}, "identity": "'.encode()  # how a record begins


def record_name(writer: int) -> str:
    """Return the name of a writer's record."""
    return f"{STEM}{f'.{writer}' if writer else ''}.jsonl"


def record_files(folder: Path) -> list[Path]:
    """Return the first writer's record, then those of others."""
    try:
        files = [path for path in folder.glob(f"{STEM}*.jsonl") if _is_record(path)]
    except (OSError, ValueError):  # no folder can have this name, as making it will say
        return []
    return sorted(files, key=lambda path: (len(path.name), path.name))


def read_entries(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a record that are whole."""
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def append(
    file: Path, entries: Sequence[dict[str, Any]], *, head: Callable[[], dict[str, Any]]
) -> None:
    """Add lines to a record, on the disk before this returns; `head` gives the first of all.

    Raises:
        OutputError: it is another's file, or cannot be written.
    """
    refuse_foreign(file)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(file, flags, 0o666), "r+b") as opened:
            size = opened.seek(0, os.SEEK_END)
            lines = entries if size else [head(), *entries]
            text = "".join(json.dumps(entry) + "\n" for entry in lines).encode()
            if size:
                opened.seek(size - 1)
                text = (b"" if opened.read(1) == b"\n" else b"\n") + text  # a torn last line
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        raise explained(file, error) from None


def refuse_foreign(file: Path) -> None:
    """Refuse a file of the user's that has the name of a record.

    Raises:
        OutputError: it is one.
    """
    if is_regular(file) and not _is_record(file):
        raise OutputError(
            f"{str(file)!r} is no record that this program wrote: move it away, or choose "
            "another --out"
        )


def _is_record(file: Path) -> bool:
    """Return whether a regular file begins as a record does; one that is empty or torn may."""
    if not is_regular(file):
        return False
    try:
        with file.open("rb") as opened:
            return _HEAD.startswith(opened.read(len(_HEAD)))
    except OSError:
        return False
