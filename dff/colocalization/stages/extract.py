"""The first pass: images through the model, to rows of activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dff.colocalization.run.folder import RunFolder, chunk_name
from dff.colocalization.sources.reader import Reader, Sample
from dff.colocalization.stages.chunks import Behind, Chunk, chunk_bytes
from dff.colocalization.stages.job import READING, SAMPLING, Counter, Job
from dff.colocalization.stages.network import Network
from dff.colocalization.stages.plan import Plan
from dff.errors import RunError

__all__ = ["extract_stage", "run_chunks"]

NOT_FINITE = "the activations hold NaN or infinite values for this image"


def extract_stage(job: Job) -> None:
    """The first pass: rows of each chunk, all of them or a sample."""
    fit_chunks = job.plan.fit_chunks
    exact = job.plan.exact
    own = [
        i
        for i in job.ranks.share(range(len(fit_chunks)))
        if chunk_name("rows", i) not in job.folder.manifest
    ]
    with Behind("writer") as writer:
        todo = {i: fit_chunks[i] for i in own}
        tally = Counter(job, READING if exact else SAMPLING, own, fit_chunks)
        for index, chunk in run_chunks(job, todo, predict=exact):
            writer.submit(_save_rows, job.folder, index, chunk)
            tally.add(index)


def _save_rows(folder: RunFolder, index: int, chunk: Chunk) -> None:
    folder.write({chunk_name("rows", index): chunk_bytes(chunk)})


def run_chunks(
    job: Job, chunks: Mapping[int, Sequence[int]], *, predict: bool, whole: bool = False
) -> Iterator[tuple[int, Chunk]]:
    """Run chunks of images, by number, through the model; yield each (number, chunk)."""
    prep = job.network.preprocessing
    ids = (int(i) for chunk in chunks.values() for i in chunk)
    ahead = max(2 * job.batch, 2 * job.workers)
    with Reader(job.dataset, prep, workers=job.workers, ahead=ahead) as reader:
        samples = reader.stream(ids)
        for index, chunk_ids in chunks.items():
            chunk = extract(
                job.network, samples, chunk_ids, job.plan, batch=job.batch, predict=predict,
                whole=whole,
            )  # fmt: skip
            if job.strict:
                _refuse_errors(chunk)
            yield index, chunk


def _refuse_errors(chunk: Chunk) -> None:
    wrong = [error for error in chunk.errors if error is not None]
    if wrong:
        raise RunError(f"{wrong[0]} (--strict; without it, the run goes on without such images)")


def extract(
    network: Network,
    samples: Iterator[Sample],
    ids: Sequence[int],
    plan: Plan,
    *,
    batch: int,
    predict: bool,
    whole: bool = False,
) -> Chunk:
    """Run the images of one chunk through the model.

    Args:
        network: the model.
        samples: where the images come from, in the order of `ids`.
        ids: their numbers.
        plan: which cells are kept.
        batch: images run together.
        predict: go on to the classes.
        whole: keep all cells, whatever the plan draws.
    """
    chunk = Chunk([int(i) for i in ids])
    rows: list[Tensor] = []
    for start in range(0, len(chunk.ids), batch):
        batch_ids = chunk.ids[start : start + batch]
        rows += _run_batch(network, samples, batch_ids, plan, chunk, predict, whole)
    chunk.rows = torch.cat(rows) if rows else None
    return chunk


def _run_batch(
    network: Network,
    samples: Iterator[Sample],
    ids: Sequence[int],
    plan: Plan,
    chunk: Chunk,
    predict: bool,
    whole: bool,
) -> list[Tensor]:
    read = [next(samples) for _ in ids]
    readable = [i for i, sample in enumerate(read) if sample.pixels is not None]
    errors = [sample.error for sample in read]
    classes = [-1] * len(ids)
    chances: list[float | None] = [None] * len(ids)
    kept: list[Tensor] = []
    if readable:
        passed = network(
            np.stack([s.pixels for s in read if s.pixels is not None]), predict=predict
        )
        finite = passed.rows.sum((1, 2), dtype=torch.float32).isfinite().tolist()
        if passed.logits is not None:
            indices, values = network.meaning.predicted(passed.logits)
            for i, index, chance in zip(readable, indices.tolist(), values.tolist(), strict=True):
                classes[i], chances[i] = index, chance
        for row, i in enumerate(readable):
            if not finite[row]:
                errors[i] = NOT_FINITE
        sound = [row for row in range(len(readable)) if finite[row]]
        kept = _drawn(passed.rows, sound, [ids[i] for i in readable], plan, whole)
    chunk.widths += [sample.width for sample in read]
    chunk.heights += [sample.height for sample in read]
    chunk.errors += errors
    chunk.predicted += classes
    chunk.probability += chances
    chunk.stamps += [None if sample.stamp is None else sample.stamp.row for sample in read]
    return kept


def _drawn(rows: Tensor, sound: list[int], ids: list[int], plan: Plan, whole: bool) -> list[Tensor]:
    """Return the rows that are kept of a batch, on the CPU."""
    if not sound:
        return []
    if whole or plan.exact:
        return [(rows if len(sound) == len(rows) else rows[sound]).cpu()]
    cells = torch.from_numpy(np.stack([plan.cells_of(ids[row]) for row in sound]))
    indices = torch.tensor(sound)[:, None].to(rows.device)
    return [rows[indices, cells.to(rows.device)].cpu()]
