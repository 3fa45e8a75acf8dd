"""Which files of a folder the program wrote: the proof without which nothing is replaced.

A folder of results holds ``.dff-manifest.jsonl``: a line with the folder's identity, then a line
for each file with its name and the digest of its content, written before the file appears. A file
is the program's own if its content is one that was recorded for its name; whatever else lies in
the folder is the user's, and is never deleted, replaced or followed.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from dff.errors import OutputError
from dff.files import (
    Content,
    aside,
    digest_of,
    fill,
    is_regular,
    make_folder,
    put,
    taken,
)
from dff.record import (
    FORMAT,
    append,
    read_entries,
    record_files,
    record_name,
    refuse_foreign,
)

__all__ = ["Manifest"]

REMOVED = 1024  # files that are deleted between two looks at the record
STALE = 3600  # seconds after which a temporary file belongs to no living process


class Manifest:
    """The record of what the program wrote into one folder.

    Args:
        folder: of the results; need not exist before something is written.
        writer: number of this process among those that write into the folder at the same time;
            each has a record of its own.

    Attributes:
        identity: of the folder, 16 hexadecimal digits; it marks temporary files.
    """

    def __init__(self, folder: str | Path, *, writer: int = 0) -> None:
        self.folder = Path(folder)
        self.file = self.folder / record_name(writer)
        self.identity = ""
        self._digests: dict[str, list[str]] = {}
        self.load()

    def load(self) -> None:
        """Read the records again, those of other writers included."""
        self._digests = {}
        for file in record_files(self.folder):
            for entry in read_entries(file):
                if isinstance(entry.get("identity"), str):
                    self.identity = self.identity or entry["identity"]
                name, digest = entry.get("name"), entry.get("digest")
                if isinstance(name, str) and isinstance(digest, str):
                    self._digests.setdefault(name, []).append(digest)
                elif isinstance(name, str):
                    self._digests.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the folder's files, in order."""
        yield from sorted(name for name in self._digests if _inside(name))

    def sound(self, name: str) -> bool:
        """Return whether a file is there just as it was written last."""
        known = self._digests.get(name)
        return known is not None and self._digest(name) == known[-1]

    def owns(self, name: str) -> bool:
        """Return whether the program wrote what a file holds now."""
        digest = self._digest(name)
        if digest is not None and digest not in self._digests.get(name, ()):
            self.load()  # another process of this program may have written it meanwhile
        return digest in self._digests.get(name, ())

    def check(self, names: Iterable[str], inputs: Iterable[str | Path] = ()) -> None:
        """Refuse to write `names` before any of them is written.

        Args:
            names: relative to the folder, or absolute.
            inputs: what the command reads.

        Raises:
            OutputError: something else lies there, or one of them is an input.
        """
        refuse_foreign(self.file)
        read = {os.path.realpath(path): str(path) for path in inputs}
        for name in names:
            path = self.folder / name
            if (given := read.get(os.path.realpath(path))) is not None:
                raise OutputError(
                    f"{str(path)!r} would be replaced, but it is an input ({given!r}): choose "
                    "another --out"
                )
            if os.path.lexists(path) and not self.owns(name):
                raise taken(path)

    def write(self, files: Mapping[str, Content]) -> list[Path]:
        """Write files, each whole or not at all; all are complete before the first appears.

        Raises:
            OutputError: something else lies there, the disk is full, ...; nothing stays behind.
        """
        with ExitStack() as stack:
            filled = []
            for name, content in files.items():
                path = stack.enter_context(self._aside(name))
                filled.append((name, path, fill(path, content)))
            return [self._place(*entry) for entry in self._recorded(filled)]

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary file to be filled, which then becomes `name`."""
        with self._aside(name) as path:
            yield path
            with path.open("rb") as file:
                os.fsync(file.fileno())
            for entry in self._recorded([(name, path, digest_of(path))]):
                self._place(*entry)

    def remove(self, names: Iterable[str]) -> list[str]:
        """Delete files that the program wrote, and folders that are empty then.

        Returns the names of those that were changed since, which stay.
        """
        waiting, kept = iter(list(names)), []
        while some := list(islice(waiting, REMOVED)):
            with ThreadPoolExecutor() as pool:  # digests leave Python's lock alone
                gone = [name for name, sure in zip(some, pool.map(self._mine, some), strict=True)
                        if sure]  # fmt: skip
            for name in gone:
                (self.folder / name).unlink(missing_ok=True)
            self._forget(gone)
            kept += [name for name in some if name not in set(gone)]
            for parent in {parent for name in gone for parent in PurePosixPath(name).parents}:
                self._prune(parent)
        return kept

    def _mine(self, name: str) -> bool:
        """Return whether nothing lies at a name but what the program wrote."""
        return self.owns(name) or not os.path.lexists(self.folder / name)

    def _prune(self, parent: PurePosixPath) -> None:
        """Remove a folder below this one, and those above it, as far as they are empty."""
        while parent.parts:
            try:
                (self.folder / parent).rmdir()
            except OSError:
                break
            parent = parent.parent

    def set_aside(self, name: str) -> Path:
        """Rename what lies at `name`, whatever it is, to NAME~1 (or ~2, …); return its new path.

        The name is forgotten: what is renamed is nobody's but the user's from now on.
        """
        path, number = self.folder / name, 1
        while os.path.lexists(kept := path.with_name(f"{path.name}~{number}")):
            number += 1
        path.rename(kept)
        self._forget([name])
        return kept

    def _forget(self, names: Sequence[str]) -> None:
        self._append([{"name": name} for name in names])
        for name in names:
            self._digests.pop(name, None)

    def sweep(self, *, age: float = STALE) -> None:
        """Remove temporary files that a killed process left, by the folder's identity.

        Their `age` in seconds is told by the clock of the disk that they lie on: this machine's
        own may differ from that of a server, or of another node.
        """
        if not self.identity:
            return
        mark = f".dff-{self.identity}-"
        left = [e for e in os.scandir(self.folder)
                if e.name.startswith(mark) and e.is_file(follow_symlinks=False)]  # fmt: skip
        with ExitStack() as stack:
            fresh = stack.enter_context(aside(self.file)).stat().st_mtime if left and age else 0
            for entry in left:
                with suppress(FileNotFoundError):
                    if not age or fresh - entry.stat().st_mtime >= age:
                        Path(entry.path).unlink(missing_ok=True)

    def compact(self) -> None:
        """Write one record of what is there now in place of all writers' records."""
        refuse_foreign(self.file)
        entries: list[dict[str, Any]] = [self._head()]
        entries += [{"name": name, "digest": d[-1]} for name, d in sorted(self._digests.items())]
        others = [file for file in record_files(self.folder) if file != self.file]
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        with aside(self.file, owner=self.identity) as temporary:
            fill(temporary, text)
            put(temporary, self.file, replace=True)
        for file in others:
            file.unlink(missing_ok=True)

    def _head(self) -> dict[str, Any]:
        self.identity = self.identity or secrets.token_hex(8)
        return {"format": FORMAT, "identity": self.identity}

    def _aside(self, name: str) -> Any:
        """Open a temporary file in the folder itself, where :meth:`sweep` finds it."""
        self.begin()
        path = self.folder / name
        if not _inside(name):
            return aside(path)
        make_folder(path.parent)
        if self._leads_out(name):
            raise OutputError(f"{str(path.parent)!r} leads out of the folder: choose another --out")
        return aside(path, folder=self.folder, owner=self.identity)

    def begin(self) -> None:
        """Make the folder and its record, if they are not there yet."""
        if not is_regular(self.file):
            make_folder(self.folder)
            self._append([])

    def _recorded(self, files: list[tuple[str, Path, str]]) -> list[tuple[str, Path, str]]:
        """Write down what is about to appear: only then is it known as the program's own."""
        for name, _, _ in files:
            if os.path.lexists(self.folder / name) and not self.owns(name):
                raise taken(self.folder / name)
        self._append([{"name": name, "digest": digest} for name, _, digest in files])
        return files

    def _place(self, name: str, temporary: Path, digest: str) -> Path:
        path = self.folder / name
        try:
            put(temporary, path, replace=self.owns(name))
        except OutputError:
            if not self.owns(name):
                raise
            put(temporary, path, replace=True)  # it came meanwhile from this program, too
        self._digests.setdefault(name, []).append(digest)
        return path

    def _append(self, entries: list[dict[str, Any]]) -> None:
        append(self.file, entries, head=self._head)

    def _digest(self, name: str) -> str | None:
        path = self.folder / name
        try:
            return digest_of(path) if is_regular(path) and not self._leads_out(name) else None
        except OSError:
            return None

    def _leads_out(self, name: str) -> bool:
        """Return whether a link takes a name of the folder to somewhere else."""
        parent = Path(os.path.realpath((self.folder / name).parent))
        return _inside(name) and not parent.is_relative_to(os.path.realpath(self.folder))


def _inside(name: str) -> bool:
    """Return whether a name is that of a file below the folder."""
    parts = PurePosixPath(name)
    return not parts.is_absolute() and ".." not in parts.parts
