"""The whole run: extract, fit, encode, tables, exemplars; each stage goes on where it stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from safetensors.torch import load_file
from torch import nn

from dff.bank import ConceptBank
from dff.colocalization import tables
from dff.colocalization.chunks import (
    Chunk,
    Writer,
    encode_chunk,
    extract,
    load_chunk,
    save_chunk,
)
from dff.colocalization.dataset import Dataset, open_dataset
from dff.colocalization.exemplars import best_instances, wanted_masks, write_exemplars
from dff.colocalization.fit import fit_bank
from dff.colocalization.instances import GUIDE_SIDE, MaskOptions
from dff.colocalization.network import Network
from dff.colocalization.opened import Run
from dff.colocalization.plan import Plan, parse_memory, plan
from dff.colocalization.ranks import Ranks, start
from dff.colocalization.reading import Reader
from dff.colocalization.run import RunFolder
from dff.colocalization.scores import write_scores
from dff.colocalization.video import VideoDataset, write_video
from dff.errors import DFFError, RunError, UsageError
from dff.explain import Explainer
from dff.files import make_folder, write_file
from dff.heatmaps import upsample
from dff.images import read_image
from dff.models import LoadedModel
from dff.rendering import overlay

__all__ = ["colocalize"]

Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(eq=False)
class _Job:
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
    progress: Progress = field(default=_silent)

    @property
    def chunks(self) -> list[Sequence[int]]:
        """All images, a shard of maps each."""
        return self.plan.chunks


def colocalize(
    dataset: Any,
    out: str | Path,
    *,
    model: str | LoadedModel | nn.Module | Explainer = "resnet50",
    concepts: int = 10,
    layer: str | nn.Module | None = None,
    device: str | None = None,
    memory: int | str = "4G",
    seed: int = 0,
    precision: str = "auto",
    threshold: float | str = "otsu",
    components: str = "largest",
    refine: bool = False,
    least: float = 0.25,
    batch: int = 32,
    workers: int | None = None,
    strict: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Find the concepts that a dataset shares, and their place in every image.

    The same call goes on with a run that was interrupted, and ends in the same bytes. Under
    torchrun, every process makes the same call, on one shared folder `out`.

    Args:
        dataset: a folder (class subfolders become labels), a ``.txt`` or ``.csv`` list of paths,
            tar shards, a video, a list of paths, or a torchvision dataset.
        out: the run's folder, made if it is missing.
        model: a name for :func:`dff.load_model`, what that returns, a module, or an Explainer.
        concepts: k, how many to find.
        layer: the target layer; None finds it.
        device: where a model given by name runs.
        memory: what the activations of the fit may take, over all processes, such as "4G". If
            those of all images fit, the fit is exact and one forward pass is made; else a uniform
            sample is fitted, and a second pass encodes every image.
        seed: of the sample.
        precision: "auto", "float32" or "bfloat16" (:class:`~dff.colocalization.network.Network`).
        threshold: of masks: "otsu", or a presence in (0, 1).
        components: "largest" keeps one component a mask, "all" all of them.
        refine: let masks follow the photo's edges.
        least: the presence from which a concept counts as found in an image.
        batch: images run together.
        workers: threads that read images; None is one for each processor, at most 16.
        strict: an image that cannot be read ends the run.
        force: start over where the folder holds a run of other settings.
        progress: called with (stage, chunks done, chunks in all).

    Returns:
        The finished run.

    Raises:
        UsageError: arguments that cannot be right, or a dataset without images.
        RunError: the folder is in use, holds something else, or a process was lost.
        ImageError, ModelError, FactorizationError, OutputError: what stages run into.
    """
    if isinstance(concepts, bool) or not isinstance(concepts, int) or concepts < 1:
        raise UsageError(f"concepts is a whole number from 1 on, not {concepts!r}")
    if batch < 1 or (workers is not None and workers < 1):
        raise UsageError("batch and workers are 1 or more")
    options = MaskOptions(threshold, components, refine, least)
    room = parse_memory(memory)
    ranks = start()
    folder = RunFolder(out)
    _apart(dataset, folder.path)
    images = open_dataset(dataset, skip=folder.path)
    explainer = (
        model if isinstance(model, Explainer) else Explainer(model, layer=layer, device=device)
    )
    network = Network(explainer, precision=precision)
    if concepts > network.channels:
        raise UsageError(
            f"{concepts} concepts were asked for, but layer {network.layer!r} has "
            f"{network.channels} channels: at most so many"
        )
    cells = network.cells[0] * network.cells[1]
    job = _Job(
        folder, images, network,
        plan(len(images), cells, network.channels, memory=room, seed=seed),
        concepts, options, batch, workers or min(os.cpu_count() or 1, 16), strict, ranks,
        progress or _silent,
    )  # fmt: skip
    given = os.fspath(dataset) if isinstance(dataset, (str, os.PathLike)) else images.root
    settings = _settings(job, os.path.abspath(given), room, seed)
    with ExitStack() as stack:
        with ranks.together("opening the run"):
            if ranks.first:
                stack.enter_context(folder.locked())
                folder.claim(settings, force=force)
        folder.state = ranks.gather(folder.state)[0]
        _run(job)
    return Run(out)


def _apart(dataset: Any, out: Path) -> None:
    if isinstance(dataset, (str, os.PathLike)) and os.path.realpath(dataset) == os.path.realpath(
        out
    ):
        raise UsageError(f"--out {str(out)!r} is the dataset itself; choose another folder")


def _settings(job: _Job, given: str, memory: int, seed: int) -> dict[str, Any]:
    """Return everything that the results depend on."""
    prep = job.network.preprocessing
    return {
        "dataset": {
            "kind": job.dataset.kind, "given": given, "root": job.dataset.root,
            "images": len(job.dataset), "fingerprint": job.dataset.fingerprint(),
        },
        "model": {
            "name": job.network.name, "layer": job.network.layer, "weights": job.network.digest(),
            "size": prep.size, "mean": list(prep.mean), "std": list(prep.std),
        },
        "concepts": job.concepts,
        "memory": memory,
        "seed": seed,
        "precision": job.network.precision,
        "batch": job.batch,
        "masks": asdict(job.options),
    }  # fmt: skip


def _run(job: _Job) -> None:
    """Do what is left to do."""
    folder, ranks = job.folder, job.ranks
    stages = (
        ("extract", _extract), ("fit", _fit), ("encode", _encode),
        ("tables", _tables), ("exemplars", _exemplars),
    )  # fmt: skip
    for name, function in stages:
        if folder.done(name):
            continue
        with ranks.together(name), folder.timed(name):
            if ranks.first or name not in ("tables", "exemplars"):
                function(job)
        folder.finish(name, write=ranks.first)
    if ranks.first and folder.work.is_dir():
        shutil.rmtree(folder.work)
    ranks.gather(None)  # the first rank has written all before any goes on
    unreadable = folder.state["counts"].get("unreadable", 0)
    if job.strict and unreadable:
        raise RunError(f"{unreadable} images could not be read; images.parquet names them")


def _extract(job: _Job) -> None:
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
    job: _Job,
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


def _fit(job: _Job) -> None:
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


def _encode(job: _Job) -> None:
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


def _to_encode(job: _Job, mine: Sequence[int]) -> Iterator[tuple[int, int, Chunk, Writer]]:
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


def _guides(job: _Job, chunk: Chunk) -> list[np.ndarray | None]:
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


def _tables(job: _Job) -> None:
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


def _exemplars(job: _Job) -> None:
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


def _overlay(job: _Job, video: VideoDataset, bank: ConceptBank) -> None:
    """Write overlay.mp4: each frame with its concepts, whose colours are the bank's throughout."""

    def frames() -> Iterator[np.ndarray]:
        for index, some in enumerate(job.chunks):
            maps = load_file(job.folder.chunk("maps", index))["maps"].float().numpy()
            for at, image in enumerate(some):
                pixels = read_image(video.source(image)).pixels
                shown = upsample(np.clip(maps[at], 0, 1), pixels.shape[:2], job.network.grid)
                yield overlay(pixels, shown, colors=bank.colors)

    write_video(job.folder.path / "overlay.mp4", frames(), video.rate)
