"""The stages of a run, in order: each goes on where it stopped.

:data:`STAGES` is the one table of them: what does the work, which files it leaves, and whether all
ranks take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dff.colocalization.run.folder import INPUTS, TABLES
from dff.colocalization.stages.encode import encode_stage
from dff.colocalization.stages.exemplars import exemplars_stage
from dff.colocalization.stages.extract import extract_stage
from dff.colocalization.stages.fit import fit_stage
from dff.colocalization.stages.job import Job
from dff.colocalization.stages.tables import tables_stage

__all__ = ["STAGES", "Job", "Stage"]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as run.json has it.
        work: does what is left of it.
        files: patterns of the names of the files that it leaves.
        shared: whether every rank does its share; else the first does it alone.
    """

    name: str
    work: Callable[[Job], None]
    files: tuple[str, ...]
    shared: bool = True

    def leaves(self, name: str) -> bool:
        """Return whether a file of the run is one of the stage's."""
        return any(fnmatchcase(name, pattern) for pattern in self.files)


STAGES = (
    Stage("extract", extract_stage, ("work/rows/*",)),
    Stage("fit", fit_stage, ("bank.safetensors", "selection.json", "selection.png")),
    Stage("encode", encode_stage, ("maps/*", "work/parts/*")),
    Stage(
        "tables",
        tables_stage,
        ("coco.json", INPUTS, *(f"{table}.parquet" for table in TABLES)),
        shared=False,
    ),
    Stage(
        "exemplars",
        exemplars_stage,
        ("exemplars/*", "concepts.png", "overlay.mp4"),
        shared=False,
    ),
)
