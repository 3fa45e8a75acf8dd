"""All tables of a run, from the chunks' parts."""

from __future__ import annotations

from dff.colocalization.run import tables
from dff.colocalization.run.coco import write_coco
from dff.colocalization.stages.job import WRITING, Job
from dff.colocalization.stages.scores import write_scores

__all__ = ["tables_stage"]


def tables_stage(job: Job) -> None:
    """All tables, from the chunks' parts."""
    folder, chunks, network = job.folder, len(job.chunks), job.network
    bank = job.bank()
    job.progress(WRITING, 0, 4)
    tables.write_inputs(folder, chunks)
    counts = tables.write_images(folder, job.dataset, chunks, network.class_names)
    job.progress(WRITING, 1, 4)
    counts["instances"] = tables.write_instances(folder, chunks)
    job.progress(WRITING, 2, 4)
    write_coco(folder, job.dataset, chunks, bank)
    job.progress(WRITING, 3, 4)
    logits = network.concept_logits(bank)
    write_scores(folder, bank, logits, network.class_names, network.meaning)
    folder.state["counts"].update(counts)
    job.progress(WRITING, 4, 4)
