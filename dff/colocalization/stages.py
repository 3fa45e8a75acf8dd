"""The stages of a run, each of which goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from safetensors.torch import load_file

from dff.colocalization import tables
from dff.colocalization.chunks import (
    Chunk,
    Writer,
    chunk_bytes,
    encode_chunk,
    extract,
    load_chunk,
)
from dff.colocalization.dataset import Dataset
from dff.colocalization.exemplars import write_exemplars
from dff.colocalization.fit import fit_bank
from dff.colocalization.network import Network
from dff.colocalization.plan import Plan
from dff.colocalization.ranks import Ranks
from dff.colocalization.reading import Reader
from dff.colocalization.run import RunFolder, chunk_name
from dff.colocalization.scores import write_scores
from dff.colocalization.video import VideoDataset, write_video
from dff.concepts import ConceptBank
from dff.errors import DFFError, RunError
from dff.images import read_image
from dff.maps import fitted, upsample, within
from dff.maps.masks import GUIDE_SIDE, MaskOptions
from dff.rendering import overlay

__all__ = [
    "Job", "Progress", "encode_stage", "exemplars_stage", "extract_stage", "fit_stage", "silent",
    "tables_stage",
]  # fmt: skip

Progress = Callable[[str, int, int], None]
PARTS = ("images", "instances", "coco", "maps")  # what a chunk leaves


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(eq=False)
class Job:
    """What the stages share."""

    folder: RunFolder
    dataset: Dataset
    network: Network
    plan: Plan
    concepts: int
    options: MaskOptions
    batch: int
    workers: int
    strict: bool
    ranks: Ranks
    progress: Progress = field(default=silent)

    @property
    def chunks(self) -> list[Sequence[int]]:
        """All images, a shard of maps each."""
        return self.plan.chunks

    def bank(self) -> ConceptBank:
        """The concepts, once they are found."""
        return ConceptBank.load(self.folder.file("bank.safetensors"))


def extract_stage(job: Job) -> None:
    """The first pass: rows of each chunk, all of them or a sample."""
    fit_chunks = job.plan.fit_chunks
    exact = job.plan.exact
    mine = [
        i
        for i in job.ranks.share(range(len(fit_chunks)))
        if chunk_name("rows", i) not in job.folder.manifest
    ]
    stage = "reading and running the model" if exact else "first pass: a sample"
    with Writer() as writer:
        todo = {i: fit_chunks[i] for i in mine}
        for count, (index, chunk) in enumerate(_run_chunks(job, todo, predict=exact), 1):
            writer.submit(_save_rows, job.folder, index, chunk)
            job.progress(stage, count, len(mine))


def _save_rows(folder: RunFolder, index: int, chunk: Chunk) -> None:
    folder.write({chunk_name("rows", index): chunk_bytes(chunk)})


def _run_chunks(
    job: Job, chunks: Mapping[int, Sequence[int]], *, predict: bool, whole: bool = False
) -> Iterator[tuple[int, Chunk]]:
    """Run chunks of images, by number, through the model; yield each (number, chunk)."""
    prep = job.network.preprocessing
    ids = [int(i) for chunk in chunks.values() for i in chunk]
    ahead = max(2 * job.batch, 2 * job.workers)
    with Reader(job.dataset, prep, workers=job.workers, ahead=ahead) as reader:
        samples = reader.stream(ids)
        for index, some in chunks.items():
            chunk = extract(
                job.network, samples, some, job.plan, batch=job.batch, predict=predict,
                whole=whole,
            )  # fmt: skip
            if job.strict:
                _refuse_errors(chunk)
            yield index, chunk


def _refuse_errors(chunk: Chunk) -> None:
    wrong = [error for error in chunk.errors if error is not None]
    if wrong:
        raise RunError(f"{wrong[0]} (--strict; without it, the run goes on without such images)")


def fit_stage(job: Job) -> None:
    """Factorize the rows; rank 0 writes the bank."""
    job.progress("factorizing", 0, 1)
    count = len(job.plan.fit_chunks)
    paths = [job.folder.file(chunk_name("rows", i)) for i in job.ranks.share(range(count))]
    bank, rows = fit_bank(paths, job.concepts, job.network, job.ranks)
    if job.ranks.first:
        job.folder.write({"bank.safetensors": bank.to_bytes()})
        job.folder.state["exact"] = job.plan.exact
        job.folder.state["counts"]["rows"] = rows
    job.progress("factorizing", 1, 1)


def encode_stage(job: Job) -> None:
    """Maps, instances and masks of each chunk, from its rows or from a second pass."""
    bank = job.bank()
    kinds = PARTS if not job.folder.done("tables") else ("maps",)
    mine = [
        i
        for i in job.ranks.share(range(len(job.chunks)))
        if any(chunk_name(kind, i) not in job.folder.manifest for kind in kinds)
    ]
    with Writer() as writer:
        for count, (index, chunk) in enumerate(_to_encode(job, mine), 1):
            guides = _guides(job, chunk) if job.options.refine else None
            files = encode_chunk(chunk, bank, job.network, job.options, guides)
            parts = {chunk_name(kind, index): files[kind] for kind in PARTS}
            writer.submit(job.folder.write, parts)
            job.progress("placing concepts", count, len(mine))


def _to_encode(job: Job, mine: Sequence[int]) -> Iterator[tuple[int, Chunk]]:
    """Yield chunks with all their rows: those of the first pass where they are kept, else anew."""
    kept = [i for i in mine if job.plan.exact and chunk_name("rows", i) in job.folder.manifest]
    for index in kept:
        yield index, load_chunk(job.folder.file(chunk_name("rows", index)))
    left = {i: job.chunks[i] for i in mine if i not in set(kept)}
    yield from _run_chunks(job, left, predict=True, whole=True)


def _guides(job: Job, chunk: Chunk) -> list[np.ndarray | None]:
    """Return small versions of a chunk's photos, None where one cannot be read (any more)."""
    from concurrent.futures import ThreadPoolExecutor

    def read(index: int) -> np.ndarray | None:
        try:
            pixels = read_image(job.dataset.source(index)).pixels
        except (DFFError, OSError):
            return None
        if max(pixels.shape[:2]) <= 2 * GUIDE_SIDE:
            return pixels
        return fitted(pixels, within(pixels.shape[:2], 2 * GUIDE_SIDE, least=2))

    with ThreadPoolExecutor(job.workers) as pool:
        return list(pool.map(read, chunk.ids))


def tables_stage(job: Job) -> None:
    """All tables, from the chunks' parts."""
    folder, chunks = job.folder, len(job.chunks)
    bank = job.bank()
    job.progress("writing tables", 0, 4)
    tables.write_inputs(folder, chunks)
    counts = tables.write_images(folder, job.dataset, chunks, job.network.class_names)
    job.progress("writing tables", 1, 4)
    counts["instances"] = tables.write_instances(folder, chunks)
    job.progress("writing tables", 2, 4)
    tables.write_coco(folder, job.dataset, chunks, bank)
    job.progress("writing tables", 3, 4)
    write_scores(folder, bank, job.network.concept_logits(bank), job.network.class_names)
    folder.state["counts"].update(counts)
    job.progress("writing tables", 4, 4)


def exemplars_stage(job: Job) -> None:
    """Crops and the contact sheet."""
    bank = job.bank()
    write_exemplars(job.folder, job.dataset, bank)
    if isinstance(job.dataset, VideoDataset):
        _overlay(job, job.dataset, bank)


def _overlay(job: Job, video: VideoDataset, bank: ConceptBank) -> None:
    """Write overlay.mp4: each frame with its concepts, whose colours are the bank's throughout."""

    def frames() -> Iterator[np.ndarray]:
        for index, some in enumerate(job.chunks):
            file = job.folder.file(chunk_name("maps", index))
            maps = load_file(file)["maps"].float().numpy()
            for at, image in enumerate(some):
                pixels = read_image(video.source(image)).pixels
                shown = upsample(np.clip(maps[at], 0, 1), pixels.shape[:2], job.network.grid)
                yield overlay(pixels, shown, colors=bank.colors)

    with job.folder.manifest.writing("overlay.mp4") as path:
        write_video(path, frames(), video.rate)
