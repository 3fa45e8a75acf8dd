"""The folder of a run: its settings, the state of its stages, and the lock on it.

Every file appears whole or not at all. Each chunk of images leaves its own files, so what exists
is done, and a run that was killed goes on with what does not exist.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dff.errors import RunError
from dff.files import make_folder, write_file

__all__ = ["FORMAT", "RunFolder"]

FORMAT = 1
STAGES = ("extract", "fit", "encode", "tables", "exemplars")
OWN = (
    "run.json", "images.parquet", "bank.safetensors", "maps", "instances.parquet",
    "scores.parquet", "concepts.parquet", "cooccurrence.parquet", "labels.parquet",
    "coco.json", "exemplars", "concepts.png", "overlay.mp4", "report.html", "work",
)  # fmt: skip


class RunFolder:
    """A run on disk.

    Args:
        path: the folder, made by :meth:`claim`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.work = self.path / "work"
        self.state: dict[str, Any] = {}

    @property
    def file(self) -> Path:
        """run.json."""
        return self.path / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out, until the end of this one at the latest.

        Raises:
            RunError: another process is at work in it.
            OutputError: the folder cannot be made.
        """
        make_folder(self.path)
        import fcntl

        with (self.path / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                who = lock.read().strip() or "another process"
                raise RunError(
                    f"{who} is at work in {str(self.path)!r}; wait for it, or choose another --out"
                ) from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {os.uname().nodename}")
            lock.flush()
            yield

    def claim(self, settings: Mapping[str, Any], *, force: bool) -> None:
        """Begin, or go on with, a run of these settings.

        Raises:
            RunError: the folder holds something else: files of another kind, a run of another
                version, or a run of other settings (all are named).
        """
        others = [p.name for p in self.path.iterdir() if p.name != ".lock"]
        if not self.file.exists():
            alien = [name for name in others if name not in OWN and not name.startswith(".")]
            if alien and not force:
                raise RunError(
                    f"{str(self.path)!r} is not a run: it holds {', '.join(sorted(alien)[:3])}; "
                    "choose a new folder for --out, or give --force"
                )
            self._begin(settings)
            return
        if not force:
            self.state = read_state(self.path)
            if different := _differences(self.state["settings"], settings):
                raise RunError(
                    f"{str(self.path)!r} is a run of other settings: {'; '.join(different)}; "
                    "choose another --out, or give --force to start over"
                )
            self._sweep()
            return
        with contextlib.suppress(RunError):
            self.state = read_state(self.path)
        if not self.state or _differences(self.state["settings"], settings):
            self._begin(settings)

    def _begin(self, settings: Mapping[str, Any]) -> None:
        """Start from nothing; what an earlier run left is removed, run.json first."""
        for name in OWN:
            target = self.path / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        self._sweep()
        self.state = {
            "format": FORMAT,
            "version": version("deep-feature-factorization"),
            "settings": dict(settings),
            "stages": dict.fromkeys(STAGES, "to do"),
            "counts": {},
            "timings": {},
        }
        self.save()

    def _sweep(self) -> None:
        """Remove what was being written when an earlier process was killed."""
        for left in self.path.rglob(".*.*"):
            if left.is_file():
                left.unlink(missing_ok=True)

    def save(self) -> None:
        """Write run.json."""
        write_file(self.file, json.dumps(self.state, indent=2, ensure_ascii=False) + "\n")

    def done(self, stage: str) -> bool:
        """Return whether a stage is complete."""
        return bool(self.state["stages"][stage] == "done")

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

    def chunk(self, kind: str, index: int) -> Path:
        """Return the file of a chunk: kind "rows", "maps" or a kind of part."""
        if kind == "maps":
            return self.path / "maps" / f"{index:05d}.safetensors"
        if kind == "rows":
            return self.work / "rows" / f"{index:05d}.safetensors"
        return self.work / "parts" / f"{index:05d}.{kind}"


def read_state(path: Path) -> dict[str, Any]:
    """Return the content of a run's run.json.

    Raises:
        RunError: there is none, it is damaged, or of another version.
    """
    file = path / "run.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{str(path)!r} is not a run: it has no run.json; `dff colocalize` makes one"
        ) from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {str(file)!r}: {error}; give --force to start over") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        made = state.get("version", "unknown") if isinstance(state, dict) else "unknown"
        raise RunError(
            f"{str(path)!r} is a run of another version (made by {made}); choose another --out, "
            "or give --force to start over"
        )
    return state


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two settings: "concepts was 5 and is now 8"."""
    found = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        name = f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{name} ")
        elif old != new:
            found.append(f"{name} was {old!r} and is now {new!r}")
    return found
