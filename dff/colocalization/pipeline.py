"""The whole run: extract, fit, encode, tables, exemplars; each stage goes on where it stopped."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from dff.colocalization.agreement import check_agreement
from dff.colocalization.forecast import Forecast, check_room, forecast
from dff.colocalization.options import MaskOptions, RunOptions
from dff.colocalization.precision import Evidence, choose
from dff.colocalization.ranks import start
from dff.colocalization.run.finished import Run
from dff.colocalization.run.folder import RunFolder, read_state
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.opening import open_dataset
from dff.colocalization.stages import STAGES, Job
from dff.colocalization.stages.job import Progress, silent
from dff.colocalization.stages.network import Network
from dff.colocalization.stages.plan import Plan, plan
from dff.colocalization.stages.repair import check_apart, forget_changed, repair
from dff.concepts import Concepts, most_concepts
from dff.errors import RunError, UsageError
from dff.explain import Explainer
from dff.models import LoadedModel

__all__ = ["colocalize", "dry_run"]

ATTEMPTS = 3  # at images that change while they are read


def colocalize(
    dataset: Any,
    out: str | Path,
    *,
    model: str | LoadedModel | nn.Module | Explainer = "resnet50",
    concepts: Concepts = 10,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    masks: MaskOptions = MaskOptions(),  # noqa: B008 - frozen
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
        model: a name for :func:`dff.load_model`, what that returns, a module, or an Explainer
            (which takes a layer and a device).
        concepts: k, how many to find; or "auto" (2 to 12), or a range, to choose from by how well
            concepts are found again in other cells (:func:`dff.concepts.choose_components`, on the
            sample of cells that the fit starts from). ``selection.json`` and ``selection.png`` in
            the run say how.
        options: what is fitted, and how images go through the model.
        masks: how maps become masks.
        force: start over where the folder holds a run of other settings. Only files that the run
            recorded as its own are removed.
        progress: called with (what is done, how much of it, of how much): images where it is
            one of :data:`~dff.colocalization.stages.job.OVER_IMAGES`, else steps; of 0 where
            nobody knows how many.

    Returns:
        The finished run.

    Raises:
        UsageError: arguments that cannot be right, or a dataset without images.
        RunError: the folder is in use, holds something else, or a process was lost.
        ImageError, ModelError, FactorizationError, OutputError: what stages run into.
    """
    ranks = start()
    with ranks.together("opening the dataset and the model"):
        job = _job(dataset, out, model, concepts, options, masks, progress or silent)
        settings = _settings(job, options)
    check_agreement(ranks, job.dataset, settings)
    folder = job.folder
    with ranks.together("choosing the precision"):
        evidence = _precision(job, options, settings) if ranks.first else None
    evidence = ranks.gather(evidence)[0]
    assert evidence is not None
    job.network.precision = settings["precision"] = evidence.precision
    with ExitStack() as stack:
        with ranks.together("opening the run"):
            if ranks.first:
                stack.enter_context(folder.locked())
                folder.claim(settings, [stage.name for stage in STAGES], force=force)
                if folder.state.get("precision") != evidence.as_dict():
                    folder.state["precision"] = evidence.as_dict()
                    folder.save()
                repair(job)
        folder.join(ranks.gather(folder.state)[0], ranks.rank, of=ranks.size)
        _run(job)
    return Run(out)


def dry_run(
    dataset: Any,
    out: str | Path,
    *,
    model: str | LoadedModel | nn.Module | Explainer = "resnet50",
    concepts: Concepts = 10,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    masks: MaskOptions = MaskOptions(),  # noqa: B008 - frozen
) -> Forecast:
    """Say what :func:`colocalize` would take with the same arguments; nothing is written to `out`.

    A trial on 50 of the images takes its time, and needs a temporary folder.

    Raises:
        UsageError, ImageError, ModelError, FactorizationError: as :func:`colocalize`; or started
            as one of several processes.
    """
    if start().size > 1:
        raise UsageError(
            "a dry run is of one process: start it without torchrun; several take as many times "
            "less of its time"
        )
    job = _job(dataset, out, model, concepts, options, masks, silent)
    job.network.precision = _precision(job, options, _settings(job, options)).precision
    chosen = replace(options, precision=job.network.precision)

    def tried(images: Dataset, folder: Path) -> Run:
        return colocalize(
            images, folder, model=job.network.explainer, concepts=concepts, options=chosen,
            masks=masks,
        )  # fmt: skip

    return forecast(job, tried)


def _job(
    dataset: Any, out: str | Path, model: Any, concepts: Concepts, options: RunOptions,
    masks: MaskOptions, progress: Progress,
) -> Job:  # fmt: skip
    """Open the dataset and the model, and decide what is fitted; nothing is written."""
    most = most_concepts(concepts)
    folder, ranks = RunFolder(out), start()
    check_apart(dataset, folder.path)
    images = open_dataset(dataset, skip=folder.path)
    check_apart(images, folder.path)
    explainer = model if isinstance(model, Explainer) else Explainer(model)
    if explainer.preprocessing.frames is not None:
        raise UsageError(
            f"{explainer.name} takes clips, and a dataset is of photos: explain clips one by one "
            "(`dff analyze clip.mp4`), or take a model of photos for the frames of videos"
        )
    network = Network(explainer, precision=options.precision)
    return Job(
        folder, images, network, _plan(len(images), network, most, options), concepts, masks,
        options.level, options.batch, options.threads, options.strict, ranks, progress,
    )  # fmt: skip


def _plan(images: int, network: Network, concepts: int, options: RunOptions) -> Plan:
    if concepts > network.channels:
        raise UsageError(
            f"{concepts} concepts were asked for, but layer {network.layer!r} has "
            f"{network.channels} channels: at most so many"
        )
    cells = network.cells[0] * network.cells[1]
    return plan(images, cells, network.channels, memory=options.room, seed=options.seed)


def _settings(job: Job, options: RunOptions) -> dict[str, Any]:
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
            "fine": job.network.fine, "output": job.network.meaning.as_dict(),
            "size": prep.size, "mean": list(prep.mean), "std": list(prep.std),
        },
        "concepts": _as_given(job.concepts),
        "memory": options.room,
        "seed": options.seed,
        "chunk": job.plan.chunk,
        "precision": job.network.precision,
        "batch": job.batch,
        "masks": asdict(job.masks),
        "level": job.level,
    }  # fmt: skip


def _precision(job: Job, options: RunOptions, settings: dict[str, Any]) -> Evidence:
    """Return which precision to run in: that of the run that is gone on with, else by a trial."""
    try:
        before = read_state(job.folder)
        same = {**before["settings"], "precision": None} == {**settings, "precision": None}
        if same and before["precision"]["asked"] == options.precision:
            return Evidence(**before["precision"])
    except (RunError, KeyError, TypeError):
        pass  # no run, or none that says so: claiming the folder tells what is wrong
    return choose(job, options.precision, memory=options.room)


def _as_given(concepts: Concepts) -> Any:
    if isinstance(concepts, range):
        low, high = min(concepts), max(concepts)
        return f"{low}:{high}" if concepts == range(low, high + 1) else list(concepts)
    return concepts


def _run(job: Job) -> None:
    """Do what is left to do, until nothing has changed that was read for it."""
    folder, ranks = job.folder, job.ranks
    for attempt in range(ATTEMPTS + 1):
        with ranks.together("checking the photos"):
            changed = forget_changed(job)
        folder.state = ranks.gather(folder.state)[0]
        if not changed and all(map(folder.done, folder.state["stages"])):
            break
        if attempt == ATTEMPTS:
            raise RunError(
                f"photos kept changing while they were read, {ATTEMPTS} times over: start the same "
                "command again when they are as they shall be"
            )
        with ranks.together("looking for room"):
            if ranks.first:
                check_room(job)
        _do_stages(job)
    if ranks.first:
        folder.close()
    ranks.gather(None)  # the first rank has written all before any goes on
    unreadable = folder.state["counts"].get("unreadable", 0)
    if job.strict and unreadable:
        raise RunError(f"{unreadable} images could not be read; images.parquet names them")


def _rates(job: Job) -> dict[str, float]:
    """Return the images a second of each stage whose work grows with them, all ranks together."""
    timings = job.folder.state["timings"]
    images = {"extract": len(job.plan.chosen), "encode": job.plan.images, "tables": job.plan.images}
    return {
        stage: round(count / timings[stage], 1)
        for stage, count in images.items()
        if timings.get(stage)
    }


def _do_stages(job: Job) -> None:
    folder, ranks = job.folder, job.ranks
    for stage in STAGES:
        if folder.done(stage.name):
            continue
        wall, cpu = time.monotonic(), time.process_time()
        with folder.timed(stage.name), ranks.together(stage.name):
            folder.manifest.load()  # what the other ranks have written since
            if ranks.first or stage.shared:
                stage.work(job)
            spent = round(time.monotonic() - wall, 2), round(time.process_time() - cpu, 2)
        work = folder.state.setdefault("work", {})
        work[stage.name] = [list(pair) for pair in ranks.gather(spent)]
        folder.state["rates"] = _rates(job)
        folder.finish(stage.name, write=ranks.first)
