"""The whole run: extract, fit, encode, tables, exemplars; each stage goes on where it stopped."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from dff.colocalization.ranks import start
from dff.colocalization.run.finished import Run
from dff.colocalization.run.folder import RunFolder
from dff.colocalization.sources.opening import open_dataset
from dff.colocalization.stages import STAGES, Job
from dff.colocalization.stages.job import Progress, silent
from dff.colocalization.stages.network import Network
from dff.colocalization.stages.plan import parse_memory, plan
from dff.colocalization.stages.repair import check_apart, forget_changed, repair
from dff.errors import RunError, UsageError
from dff.explain import Explainer
from dff.maps.masks import MaskOptions
from dff.models import LoadedModel

__all__ = ["colocalize"]

ATTEMPTS = 3  # at images that change while they are read


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
        precision: "auto", "float32" or "bfloat16" (:class:`.Network`).
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
    check_apart(dataset, folder.path)
    images = open_dataset(dataset, skip=folder.path)
    check_apart(images, folder.path)
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
    job = Job(
        folder, images, network,
        plan(len(images), cells, network.channels, memory=room, seed=seed),
        concepts, options, batch, workers or min(os.cpu_count() or 1, 16), strict, ranks,
        progress or silent,
    )  # fmt: skip
    settings = _settings(job, room, seed)
    with ExitStack() as stack:
        with ranks.together("opening the run"):
            if ranks.first:
                stack.enter_context(folder.locked())
                folder.claim(settings, [stage.name for stage in STAGES], force=force)
                repair(job)
        folder.join(ranks.gather(folder.state)[0], ranks.rank)
        _run(job)
    return Run(out)


def _settings(job: Job, memory: int, seed: int) -> dict[str, Any]:
    """Return everything that the results depend on."""
    prep = job.network.preprocessing
    return {
        "dataset": {
            "kind": job.dataset.kind, "given": job.dataset.given or job.dataset.root,
            "root": job.dataset.root, "images": len(job.dataset),
            "fingerprint": job.dataset.fingerprint(),
        },
        "model": {
            "name": job.network.name, "layer": job.network.layer, "weights": job.network.digest(),
            "size": prep.size, "mean": list(prep.mean), "std": list(prep.std),
        },
        "concepts": job.concepts,
        "memory": memory,
        "seed": seed,
        "chunk": job.plan.chunk,
        "precision": job.network.precision,
        "batch": job.batch,
        "masks": asdict(job.options),
    }  # fmt: skip


def _run(job: Job) -> None:
    """Do what is left to do, until nothing has changed that was read for it."""
    folder, ranks = job.folder, job.ranks
    for _ in range(ATTEMPTS):
        _do_stages(job)
        with ranks.together("checking the photos"):
            again = ranks.first and forget_changed(job)
        again, folder.state = ranks.gather((again, folder.state))[0]
        folder.manifest.load()
        if not again:
            break
    else:
        raise RunError(
            f"photos kept changing while they were read, {ATTEMPTS} times over: start the same "
            "command again when they are as they shall be"
        )
    if ranks.first:
        folder.close()
    ranks.gather(None)  # the first rank has written all before any goes on
    unreadable = folder.state["counts"].get("unreadable", 0)
    if job.strict and unreadable:
        raise RunError(f"{unreadable} images could not be read; images.parquet names them")


def _do_stages(job: Job) -> None:
    folder, ranks = job.folder, job.ranks
    for stage in STAGES:
        if folder.done(stage.name):
            continue
        with ranks.together(stage.name), folder.timed(stage.name):
            folder.manifest.load()  # what the other ranks have written since
            if ranks.first or stage.shared:
                stage.work(job)
        folder.finish(stage.name, write=ranks.first)
