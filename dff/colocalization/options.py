"""How a run is made: the options of co-localization, in groups."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dff.colocalization.stages.network import PRECISIONS
from dff.colocalization.stages.plan import parse_memory
from dff.concepts import check_level
from dff.errors import UsageError
from dff.maps.masks import MaskOptions

__all__ = ["MaskOptions", "RunOptions"]

MOST_WORKERS = 16


@dataclass(frozen=True)
class RunOptions:
    """What is fitted, and how images go through the model.

    Attributes:
        level: "object": masks and boxes of the concepts and, in coco.json, of their unions, which
            are objects where concepts are parts (:func:`dff.concepts.unions.unions`); "part": of
            the concepts alone.
        memory: what the activations of the fit may take, over all processes: bytes, or a text such
            as "4G". If those of all images fit, the fit is exact and one forward pass is made;
            else a uniform sample is fitted, and a second pass encodes every image.
        seed: of the sample.
        precision: "float32", "bfloat16", or "auto": bfloat16 on GPUs, and on processors that have
            it where a trial shows that it is faster and says the same
            (:mod:`dff.colocalization.precision`).
        batch: images run together.
        workers: threads that read images; None is one for each processor, at most 16.
        strict: an image that cannot be read ends the run.

    Raises:
        UsageError: a value that cannot be right.
    """

    level: str = "object"
    memory: int | str = "4G"
    seed: int = 0
    precision: str = "auto"
    batch: int = 32
    workers: int | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        check_level(self.level)
        parse_memory(self.memory)
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.batch < 1 or (self.workers is not None and self.workers < 1):
            raise UsageError("batch and workers are 1 or more")

    @property
    def room(self) -> int:
        """`memory` in bytes."""
        return parse_memory(self.memory)

    @property
    def threads(self) -> int:
        """How many threads read images."""
        return self.workers or min(os.cpu_count() or 1, MOST_WORKERS)
