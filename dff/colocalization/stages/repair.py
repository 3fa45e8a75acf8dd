"""What has to be made again: files that are damaged, and what photos that changed have touched."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dff.colocalization.run.folder import INPUTS, RunFolder, chunk_name
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.stamps import Row, changed_images
from dff.colocalization.stages import STAGES, Job
from dff.colocalization.stages.chunks import load_chunk
from dff.colocalization.stages.encode import PARTS
from dff.errors import UsageError

__all__ = ["check_apart", "forget_changed", "repair"]

SHOWN = 3  # changed photos that are named


def check_apart(dataset: Any, out: Path) -> None:
    """Refuse a run in the folder of its own images.

    Args:
        dataset: it, opened or as the user named it.
        out: the run's folder.

    Raises:
        UsageError: the dataset, or one of its files, lies in the run's folder, or is it.
    """
    inside = os.path.realpath(out)
    paths = set()
    if isinstance(dataset, (str, os.PathLike)):
        paths.add(os.fspath(dataset))
    elif isinstance(dataset, Dataset):
        paths = {os.path.dirname(file) for i in range(len(dataset)) if (file := dataset.file(i))}
        paths |= {dataset.given} if dataset.given else set()
    for path in sorted(paths):
        real = os.path.realpath(path)
        if real == inside or real.startswith(inside + os.sep):
            raise UsageError(
                f"--out {str(out)!r} holds what is read, {path!r}: choose another folder"
            )


def repair(job: Job) -> None:
    """Forget what is damaged, so that it is made again."""
    folder = job.folder
    names = folder.damaged()
    damaged = {stage.name: list(filter(stage.leaves, names)) for stage in STAGES}
    if any(damaged.values()):
        for files in damaged.values():
            folder.forget(files)
        folder.redo(_stages_for({stage for stage, files in damaged.items() if files}, folder))


def _stages_for(damaged: set[str], folder: RunFolder) -> list[str]:
    """Return the stages to do again where files of some stages are damaged."""
    if "fit" in damaged:
        return [stage.name for stage in STAGES]
    again = sorted(damaged)
    if "extract" in damaged and folder.done("fit"):
        again.remove("extract")  # rows that are not there are made again where they are needed
    if "tables" in damaged and "encode" not in again:
        again.append("encode")  # which leaves the parts that tables are made of
    return again


def forget_changed(job: Job) -> bool:
    """Forget what photos have touched that were changed since they were read; say which.

    Each rank looks at its share, and the first forgets. Returns whether something has to be made
    again.
    """
    job.folder.manifest.load()
    own = changed_images(job.dataset, _read_images(job), workers=job.workers)
    changed = set().union(*job.ranks.gather(own))
    if changed and job.ranks.first:
        _say(job.dataset, changed)
        _forget(job, changed)
    return bool(changed)


def _forget(job: Job, changed: set[int]) -> None:
    folder = job.folder
    refit = not changed.isdisjoint(job.plan.chosen.tolist())
    names = []
    for pass_name, chunks in (("rows", job.plan.fit_chunks), ("parts", job.chunks)):
        for index, ids in enumerate(chunks):
            touched = not changed.isdisjoint(ids)
            if pass_name == "rows" and touched:
                names.append(chunk_name("rows", index))
            if pass_name == "parts" and (touched or refit):
                names += [chunk_name(part, index) for part in PARTS]
    names += ["bank.safetensors"] if refit else []
    folder.redo([stage.name for stage in (STAGES if refit else STAGES[2:])])
    folder.forget([name for name in [*names, INPUTS] if name in folder.manifest])


def _read_images(job: Job) -> Iterator[tuple[int, Row | None]]:
    """Yield (id, what it was when it was read) of this rank's share, as often as it was read."""
    folder, share = job.folder, job.ranks.share
    for index in share(range(len(job.plan.fit_chunks))):
        if (name := chunk_name("rows", index)) in folder.manifest:
            chunk = load_chunk(folder.file(name), rows=False)
            yield from zip(chunk.ids, chunk.stamps, strict=True)
    if INPUTS in folder.manifest:  # what the chunks said, put together
        file = pq.ParquetFile(folder.file(INPUTS))
        for group in share(range(file.num_row_groups)):
            columns = [column.to_pylist() for column in file.read_row_group(group).columns]
            for image, *stamp in zip(*columns, strict=True):
                yield image, None if stamp[0] is None else tuple(stamp)
        return
    for index in share(range(len(job.chunks))):
        if (name := chunk_name("images", index)) in folder.manifest:
            facts = json.loads(folder.file(name).read_text())
            yield from zip(facts["ids"], facts["stamps"], strict=True)


def _say(dataset: Dataset, changed: set[int]) -> None:
    names = [dataset.paths[i] for i in sorted(changed)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    warnings.warn(
        f"{len(names)} photo(s) changed since they were read: {', '.join(names[:SHOWN])}{more}; "
        "what they touch is made again",
        stacklevel=2,
    )
