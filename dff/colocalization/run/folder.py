"""The folder of a run: its settings, the state of its stages, its files, and the lock on it.

Every file appears whole or not at all, and is recorded with its digest before it appears
(:mod:`dff.manifest`). So what is recorded and sound is done, a run that was killed goes on with the
rest, and what is damaged is noticed and made again. Nothing else in the folder is touched.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dff.errors import OutputError, RunError
from dff.files import Content, is_regular, make_folder
from dff.manifest import Manifest
from dff.version import __version__

__all__ = ["FORMAT", "INPUTS", "TABLES", "RunFolder", "chunk_name", "read_state"]

FORMAT = 2
STATE, LOCK = "run.json", ".dff-lock"
INPUTS = ".dff-inputs.parquet"
"""What each photo was when it was read (:mod:`dff.colocalization.sources.stamps`)."""
ARRIVAL = 60.0
"""Seconds for which a network file system may go on showing a node what was there before."""
TABLES = ("images", "instances", "scores", "concepts", "cooccurrence", "labels")


class RunFolder:
    """A run on disk.

    Args:
        path: the folder, made by :meth:`claim`.

    Attributes:
        path: the folder.
        manifest: which files of it the program wrote.
        state: what run.json says.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest = Manifest(path)
        self.state: dict[str, Any] = {}
        self._checked: set[str] = set()
        self._patience = 0.0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out, until the end of this one at the latest.

        Raises:
            RunError: another process is at work in it.
            OutputError: the folder cannot be made, or the lock's place holds something else.
        """
        from filelock import FileLock, Timeout

        lock = make_folder(self.path) / LOCK
        if os.path.lexists(lock) and not (is_regular(lock) and lock.stat().st_size == 0):
            raise OutputError(f"{str(lock)!r} is not the lock of a run: move it away")
        try:
            with FileLock(lock, timeout=0):
                yield
        except Timeout:
            raise RunError(
                f"another process is at work in {str(self.path)!r}; wait for it, or choose "
                "another --out"
            ) from None

    def claim(self, settings: Mapping[str, Any], stages: Sequence[str], *, force: bool) -> None:
        """Begin, or go on with, a run of these settings and stages.

        Raises:
            RunError: the folder holds something else, whether `force` or not; or, without
                `force`, a run of another version or of other settings (all are named).
        """
        self.manifest.load()
        others = [p.name for p in self.path.iterdir() if not p.name.startswith(".dff-")]
        if not others:
            self._begin(settings, stages)
            return
        if STATE in others and STATE not in self.manifest:
            read_state(self)  # says what is wrong with it
        if STATE not in self.manifest:
            raise RunError(
                f"{str(self.path)!r} is not a run: it holds {', '.join(sorted(others)[:3])}; "
                "choose a new folder for --out"
            )
        self.manifest.sweep(age=0)
        try:
            self.state = read_state(self)
        except RunError:
            if not force:
                raise
        different = _differences(self.state.get("settings", {}), settings)
        if different or "clearing" in self.state:
            if not force and different:
                raise RunError(
                    f"{str(self.path)!r} is a run of other settings: {'; '.join(different)}; "
                    "choose another --out, or give --force to start over"
                )
            self._begin(settings, stages)

    def _begin(self, settings: Mapping[str, Any], stages: Sequence[str]) -> None:
        """Start from nothing: of an earlier run, what it recorded is removed."""
        self.state = {
            "format": FORMAT,
            "version": __version__,
            "settings": dict(settings),
            "stages": dict.fromkeys(stages, "to do"),
            "counts": {},
            "timings": {},
            "clearing": True,
        }
        if os.path.lexists(self.path / STATE) and not self.manifest.owns(STATE):
            self.forget([STATE])
        self.save()
        self.forget([name for name in self.manifest if name != STATE])
        del self.state["clearing"]
        self.save()

    def join(self, state: dict[str, Any], rank: int, *, of: int) -> None:
        """Take part in what the first `of` several ranks has claimed."""
        self.state = state
        self._patience = ARRIVAL if of > 1 else 0.0
        if rank:
            self.manifest = Manifest(self.path, writer=rank)

    def save(self) -> None:
        """Write run.json."""
        self.write({STATE: json.dumps(self.state, indent=2, ensure_ascii=False) + "\n"})

    def write(self, files: Mapping[str, Content]) -> None:
        """Write files of the run, named relative to its folder."""
        self.manifest.write(files)
        self._checked.difference_update(files)

    def file(self, name: str) -> Path:
        """Return the path of a file that is as it was written.

        Raises:
            RunError: it is gone or damaged.
        """
        if name not in self._checked:
            if not self._arrived(name):
                raise RunError(
                    f"{str(self.path / name)!r} is damaged or gone: start the run's `dff "
                    "colocalize` command again, it is made again"
                )
            self._checked.add(name)
        return self.path / name

    def _arrived(self, name: str) -> bool:
        """Return whether a file is sound; of several ranks, another node's may take its time."""
        until = time.monotonic() + self._patience
        while not self.manifest.sound(name):
            if time.monotonic() >= until:
                return False
            time.sleep(1)
            self.manifest.load()
        return True

    def damaged(self) -> list[str]:
        """Return the recorded files that are not as they were written, in order."""
        names = list(self.manifest)
        with ThreadPoolExecutor() as pool:  # digests leave Python's lock alone
            sound = pool.map(self.manifest.sound, names)
            found = [name for name, is_sound in zip(names, sound, strict=True) if not is_sound]
        self._checked.update(set(names).difference(found))
        return found

    def forget(self, names: Sequence[str]) -> None:
        """Remove files of the run; what was changed since it was written is set aside, and said."""
        for name in self.manifest.remove(names):
            kept = self.manifest.set_aside(name)
            warnings.warn(
                f"{str(self.path / name)!r} was changed or damaged: it is made again, and "
                f"what was there is kept as {kept.name!r}",
                stacklevel=2,
            )

    def done(self, stage: str) -> bool:
        """Return whether a stage is complete."""
        return bool(self.state["stages"][stage] == "done")

    def redo(self, stages: Sequence[str]) -> None:
        """Mark stages as to be done again."""
        self.state["stages"].update(dict.fromkeys(stages, "to do"))
        self.save()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add up the time of a stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            timings = self.state["timings"]
            timings[stage] = round(timings.get(stage, 0) + time.monotonic() - started, 2)

    def finish(self, stage: str, *, write: bool) -> None:
        """Mark a stage as complete, on disk if `write`."""
        self.state["stages"][stage] = "done"
        if write:
            self.save()

    def close(self) -> None:
        """Remove what only a run that goes on needs, and put the records together."""
        self.manifest.load()
        self.forget([name for name in self.manifest if name.startswith("work/")])
        self.manifest.compact()


def chunk_name(part: str, index: int) -> str:
    """Return the name of a chunk's file: of its "rows", its "maps", or a part of the tables."""
    folder = part if part == "maps" else f"work/{part if part == 'rows' else 'parts'}"
    return f"{folder}/{index:05d}.{'safetensors' if part in ('rows', 'maps') else part}"


def read_state(folder: RunFolder) -> dict[str, Any]:
    """Return the content of a run's run.json.

    Raises:
        RunError: there is none, it is damaged, or of another version.
    """
    file = folder.path / STATE
    advice = "choose another --out"
    if STATE in folder.manifest:
        advice += ", or give --force to start over"
    if not is_regular(file):
        raise RunError(
            f"{str(folder.path)!r} is not a run: it has no run.json; `dff colocalize` makes one"
        )
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {str(file)!r}: {error}; {advice}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        made = state.get("version", "unknown") if isinstance(state, dict) else "unknown"
        raise RunError(
            f"{str(folder.path)!r} is a run of another version (made by {made}); {advice}"
        )
    if not folder.manifest.owns(STATE):
        raise RunError(
            f"{str(file)!r} was changed since it was written, or its record is gone; {advice}"
        )
    return state


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Name what differs between two settings: "concepts was 5 and is now 8"."""
    differences = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        name = f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differences += _differences(old, new, f"{name} ")
        elif old != new:
            differences.append(f"{name} was {old!r} and is now {new!r}")
    return differences
