"""The stages of a run, each of which goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from safetensors.torch import load_file

from dff.colocalization import tables
from dff.colocalization.chunks import (
    Chunk,
    Writer,
    encode_chunk,
    extract,
    load_chunk,
    save_chunk,
)
from dff.colocalization.dataset import Dataset
from dff.colocalization.exemplars import best_instances, wanted_masks, write_exemplars
from dff.colocalization.fit import fit_bank
from dff.colocalization.instances import GUIDE_SIDE, MaskOptions
from dff.colocalization.network import Network
from dff.colocalization.plan import Plan
from dff.colocalization.ranks import Ranks
from dff.colocalization.reading import Reader
from dff.colocalization.run import RunFolder
from dff.colocalization.scores import write_scores
from dff.colocalization.video import VideoDataset, write_video
from dff.concepts import ConceptBank
from dff.errors import DFFError, RunError
from dff.files import make_folder, write_file
from dff.heatmaps import upsample
from dff.images import read_image
from dff.rendering import overlay

__all__ = [
    "Job", "Progress", "encode_stage", "exemplars_stage", "extract_stage", "fit_stage", "silent",
    "tables_stage",
]  # fmt: skip

Progress = Callable[[str, int, int], None]


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


def extract_stage(job: Job) -> None:
    """The first pass: rows of each chunk, all of them or a sample."""
    make_folder(job.folder.work / "rows")
    wanted = job.plan.fit_chunks
    exact = job.plan.exact
    mine = [
        i for i in job.ranks.share(range(len(wanted))) if not job.folder.chunk("rows", i).exists()
    ]
    stage = "reading and running the model" if exact else "first pass: a sample"
    for at, index, chunk in _chunks(job, [wanted[i] for i in mine], mine, predict=exact):
        chunk.save(job.folder.chunk("rows", index))
        job.progress(stage, at, len(mine))


@dataclass(eq=False)
class _Ready:
    """A chunk that was run, and the writer that takes it."""

    chunk: Chunk
    writer: Writer

    def save(self, path: Path) -> None:
        """Write it in the background."""
        self.writer.submit(save_chunk, path, self.chunk)


def _chunks(
    job: Job,
    chunks: Sequence[Sequence[int]],
    numbers: Sequence[int],
    *,
    predict: bool,
    whole: bool = False,
) -> Iterator[tuple[int, int, _Ready]]:
    """Run chunks through the model; yield (how many are done, number, chunk)."""
    prep = job.network.preprocessing
    ids = [int(i) for chunk in chunks for i in chunk]
    ahead = max(2 * job.batch, 2 * job.workers)
    with (
        Reader(job.dataset, prep, workers=job.workers, ahead=ahead) as reader,
        Writer() as writer,
    ):
        samples = reader.stream(ids)
        for at, (number, some) in enumerate(zip(numbers, chunks, strict=True), 1):
            chunk = extract(
                job.network, samples, some, job.plan, batch=job.batch, predict=predict,
                whole=whole,
            )  # fmt: skip
            if job.strict:
                _refuse_errors(chunk)
            yield at, number, _Ready(chunk, writer)


def _refuse_errors(chunk: Chunk) -> None:
    wrong = [error for error in chunk.errors if error is not None]
    if wrong:
        raise RunError(f"{wrong[0]} (--strict; without it, the run goes on without such images)")


def fit_stage(job: Job) -> None:
    """Factorize the rows; rank 0 writes the bank."""
    job.progress("factorizing", 0, 1)
    count = len(job.plan.fit_chunks)
    paths = [job.folder.chunk("rows", i) for i in job.ranks.share(range(count))]
    bank, rows = fit_bank(paths, job.concepts, job.network, job.ranks)
    if job.ranks.first:
        bank.save(job.folder.path / "bank.safetensors")
        job.folder.state["exact"] = job.plan.exact
        job.folder.state["counts"]["rows"] = rows
    job.progress("factorizing", 1, 1)


def encode_stage(job: Job) -> None:
    """Maps, instances and masks of each chunk, from its rows or from a second pass."""
    make_folder(job.folder.work / "parts")
    make_folder(job.folder.path / "maps")
    bank = ConceptBank.load(job.folder.path / "bank.safetensors")
    mine = [
        i
        for i in job.ranks.share(range(len(job.chunks)))
        if not job.folder.chunk("maps", i).exists()
    ]
    for at, index, chunk, writer in _to_encode(job, mine):
        guides = _guides(job, chunk) if job.options.refine else None
        files = encode_chunk(chunk, bank, job.network, job.options, guides)
        writer.submit(_save_parts, job.folder, index, files)
        job.progress("placing concepts", at, len(mine))


def _to_encode(job: Job, mine: Sequence[int]) -> Iterator[tuple[int, int, Chunk, Writer]]:
    if not job.plan.exact:
        chunks = [job.chunks[i] for i in mine]
        for at, index, ready in _chunks(job, chunks, mine, predict=True, whole=True):
            yield at, index, ready.chunk, ready.writer
        return
    with Writer() as writer:
        for at, index in enumerate(mine, 1):
            yield at, index, load_chunk(job.folder.chunk("rows", index)), writer


def _save_parts(folder: RunFolder, index: int, files: dict[str, bytes]) -> None:
    """Write the files of a chunk, its maps last: they say that it is done."""
    for kind in ("images", "instances", "coco", "maps"):
        write_file(folder.chunk(kind, index), files[kind])


def _guides(job: Job, chunk: Chunk) -> list[np.ndarray | None]:
    """Return small versions of a chunk's photos, None where one cannot be read (any more)."""
    from concurrent.futures import ThreadPoolExecutor

    def read(index: int) -> np.ndarray | None:
        try:
            pixels = read_image(job.dataset.source(index)).pixels
        except (DFFError, OSError):
            return None
        scale = 2 * GUIDE_SIDE / max(pixels.shape[:2])
        if scale >= 1:
            return pixels
        size = tuple(max(2, round(side * scale)) for side in pixels.shape[1::-1])
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))

    with ThreadPoolExecutor(job.workers) as pool:
        return list(pool.map(read, chunk.ids))


def tables_stage(job: Job) -> None:
    """All tables, from the chunks' parts."""
    folder, chunks = job.folder, len(job.chunks)
    bank = ConceptBank.load(folder.path / "bank.safetensors")
    job.progress("writing tables", 0, 4)
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
    folder = job.folder
    bank = ConceptBank.load(folder.path / "bank.safetensors")
    apart = max(1, len(job.dataset) // 24) if job.dataset.kind == "video" else 1
    wanted = {
        (one.image, k + 1)
        for k in range(len(bank))
        for one in best_instances(folder, k + 1, 8, apart=apart)
    }
    write_exemplars(folder, job.dataset, bank, wanted_masks(folder, wanted))
    if isinstance(job.dataset, VideoDataset):
        _overlay(job, job.dataset, bank)


def _overlay(job: Job, video: VideoDataset, bank: ConceptBank) -> None:
    """Write overlay.mp4: each frame with its concepts, whose colours are the bank's throughout."""

    def frames() -> Iterator[np.ndarray]:
        for index, some in enumerate(job.chunks):
            maps = load_file(job.folder.chunk("maps", index))["maps"].float().numpy()
            for at, image in enumerate(some):
                pixels = read_image(video.source(image)).pixels
                shown = upsample(np.clip(maps[at], 0, 1), pixels.shape[:2], job.network.grid)
                yield overlay(pixels, shown, colors=bank.colors)

    write_video(job.folder.path / "overlay.mp4", frames(), video.rate)
