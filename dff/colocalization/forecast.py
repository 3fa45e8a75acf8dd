"""What a run would take, before it begins: passes, memory, disk, and time after a trial.

The trial is a real run on :data:`TRIAL` images, spread over the dataset, in a temporary folder:
its times and files, an image each, are multiplied by how many there are. Stages whose work does
not grow with the images are counted once.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dff.colocalization.run.finished import Run
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.stages.job import Job
from dff.concepts import most_concepts
from dff.errors import OutputError
from dff.images import Source

__all__ = ["TRIAL", "Forecast", "Trial", "check_room", "forecast"]

TRIAL = 50
"""Images that are tried."""


@dataclass(frozen=True)
class Forecast:
    """What a run would take.

    Attributes:
        images: how many there are.
        passes: of the model over all images: 1, or 2 where a sample is fitted.
        rows: cells that are fitted.
        memory: bytes of the rows while they are fitted.
        disk: bytes at most at a time, in the run's folder.
        kept: bytes of the results.
        free: bytes that the folder's disk has.
        seconds: by stage, on this machine by one process.
        unreadable: of the images tried, how many could not be read.
        tried: how many images were tried.
    """

    images: int
    passes: int
    rows: int
    memory: int
    disk: int
    kept: int
    free: int
    seconds: dict[str, float]
    unreadable: int
    tried: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return asdict(self)


class Trial(Dataset):
    """Some images of a dataset, spread over it."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        step = max(1, math.ceil(len(dataset) / count))
        self.whole, self.chosen = dataset, range(0, len(dataset), step)
        labels = [dataset.labels[i] for i in self.chosen]
        super().__init__("python", dataset.root, [dataset.paths[i] for i in self.chosen], labels)

    def source(self, index: int) -> Source:
        return self.whole.source(self.chosen[index])

    def file(self, index: int) -> str | None:
        return self.whole.file(self.chosen[index])


def forecast(job: Job, tried: Callable[[Dataset, Path], Run]) -> Forecast:
    """Return what a job would take, after a trial.

    Args:
        job: what would be done.
        tried: makes a run of a dataset in a folder, with everything else as in the job.
    """
    trial = Trial(job.dataset, TRIAL)
    with tempfile.TemporaryDirectory(prefix="dff-trial-") as folder:
        started = time.monotonic()
        run = tried(trial, Path(folder) / "run")
        spent = time.monotonic() - started
        timings, counts = run.state["timings"], run.state["counts"]
        fixed, maps, tables = _sizes(run.path)
    plan = job.plan
    times = plan.images / len(trial)
    rows = len(plan.chosen) * plan.per_image
    seconds = {
        "extract": timings["extract"] * len(plan.chosen) / len(trial),
        "fit": timings["fit"] * max(1.0, rows / max(counts["rows"], 1)),
        "encode": (timings["encode"] + (0 if plan.exact else timings["extract"])) * times,
        "tables": timings["tables"] * times,
        "exemplars": timings["exemplars"],
        "opening": max(0.0, spent - sum(timings.values())),
    }
    kept = int(fixed + (maps + tables) * times)
    parts = int(tables * times)  # of which the tables are put together at the end
    return Forecast(
        plan.images, 1 if plan.exact else 2, rows, _row_bytes(job, 4),
        _row_bytes(job, _item(job)) + parts + kept, kept, _free(job.folder.path),
        {stage: round(value, 1) for stage, value in seconds.items()},
        counts.get("unreadable", 0), len(trial),
    )  # fmt: skip


def check_room(job: Job) -> None:
    """Refuse a run whose rows and maps alone do not fit on the disk.

    Raises:
        OutputError: they need more than is free; what the run has written already counts as room.
    """
    if job.folder.done("encode"):
        return
    rows, cols = job.network.cells
    maps = job.plan.images * most_concepts(job.concepts) * rows * cols * 2
    needed = _row_bytes(job, _item(job)) + maps
    written = sum(_size(job.folder.path / name) for name in job.folder.manifest)
    free = _free(job.folder.path)
    if needed > free + written:
        raise OutputError(
            f"{str(job.folder.path)!r} needs {needed / 1e9:.1f} GB for activations and maps, and "
            f"{free / 1e9:.1f} GB are free: choose another --out, or less --memory (fewer "
            "activations are kept between the passes)"
        )


def _item(job: Job) -> int:
    return 2 if job.network.precision == "bfloat16" else 4


def _row_bytes(job: Job, item: int) -> int:
    return len(job.plan.chosen) * job.plan.per_image * job.network.channels * item


def _sizes(folder: Path) -> tuple[int, int, int]:
    """Return the bytes of what does not grow with a run's images, of its maps and its tables."""
    fixed = maps = tables = 0
    for path in folder.rglob("*"):
        if path.parent.parent.name == "exemplars" or path.name in (
            "concepts.png", "bank.safetensors", "scores.parquet", "cooccurrence.parquet"
        ):  # fmt: skip
            fixed += _size(path)
        elif path.parent.name == "maps":
            maps += _size(path)
        else:
            tables += _size(path)
    return fixed, maps, tables


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _free(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is, or will be, on."""
    existing: Sequence[Path] = [p for p in (folder, *folder.absolute().parents) if p.is_dir()]
    return shutil.disk_usage(os.fspath(existing[0])).free
