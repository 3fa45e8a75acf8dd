"""What the stages of a run share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dff.colocalization.ranks import Ranks
from dff.colocalization.run.folder import RunFolder
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.stages.network import Network
from dff.colocalization.stages.plan import Plan
from dff.concepts import ConceptBank, Concepts
from dff.maps.masks import MaskOptions

__all__ = [
    "CHOOSING", "CUTTING", "FITTING", "OVER_IMAGES", "PLACING", "READING", "SAMPLING", "SHOWING",
    "WRITING", "Counter", "Job", "Progress", "silent",
]  # fmt: skip

READING, SAMPLING = "reading and running the model", "first pass: a sample"
CHOOSING, FITTING = "choosing the number of concepts", "factorizing"
PLACING, WRITING = "placing concepts", "writing tables"
CUTTING, SHOWING = "cutting out examples", "drawing images"
OVER_IMAGES = (READING, SAMPLING, PLACING)
"""The stages whose progress counts images: those of this rank."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, how much is done, of how much); 0 in all where nobody knows."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(eq=False)
class Job:
    """What the stages share."""

    folder: RunFolder
    dataset: Dataset
    network: Network
    plan: Plan
    concepts: Concepts
    masks: MaskOptions
    level: str
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


class Counter:
    """Reports how many images of this rank's chunks have been through a stage.

    Args:
        job: whose progress it is.
        stage: one of :data:`OVER_IMAGES`.
        own: the numbers of the chunks that are to do.
        chunks: all chunks.
    """

    def __init__(
        self, job: Job, stage: str, own: Sequence[int], chunks: Sequence[Sequence[int]]
    ) -> None:
        self.job, self.stage, self.chunks = job, stage, chunks
        self.done, self.total = 0, sum(len(chunks[i]) for i in own)
        if own:
            job.progress(stage, 0, self.total)

    def add(self, index: int) -> None:
        """Count a chunk.

        Raises:
            RunError: torchrun has ended.
        """
        self.job.ranks.check_agent()
        self.done += len(self.chunks[index])
        self.job.progress(self.stage, self.done, self.total)
