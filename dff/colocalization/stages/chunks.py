"""What is known of some consecutive images, on its way from one pass to the next.

A chunk leaves one file of rows (first pass) and a shard of maps with its parts of the tables
(second pass, or from the rows where they are all there).
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dff.colocalization.sources.stamps import Row

__all__ = ["Behind", "Chunk", "chunk_bytes", "chunk_facts", "load_chunk"]


@dataclass(eq=False)
class Chunk:
    """What is known of some consecutive images.

    Attributes:
        ids: (n,) their numbers.
        widths, heights: (n,) in pixels, 0 where unreadable.
        errors: (n,) what is wrong, None for a readable image.
        predicted: (n,) class index, -1 where there is none.
        probability: (n,) of the likeliest class, None without a head. Where a single class is
            less likely than not, it is no prediction.
        stamps: (n,) what each was when it was read, None where nothing can tell.
        rows: (readable images, cells drawn, channels).
    """

    ids: list[int]
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    probability: list[float | None] = field(default_factory=list)
    stamps: list[Row | None] = field(default_factory=list)
    rows: Tensor | None = None

    @property
    def readable(self) -> list[int]:
        """Positions of the images without an error."""
        return [i for i, error in enumerate(self.errors) if error is None]


class Behind:
    """Works in a thread of its own, one task behind; errors come out at the next call."""

    def __init__(self, name: str) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=f"dff-{name}")
        self.pending: Future[Any] | None = None

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, raised: object, *_: object) -> None:
        try:
            if raised is None:
                self.wait()
        finally:
            self.pool.shutdown(wait=True)

    def submit(self, function: Any, *arguments: Any) -> None:
        """Begin a task once the one before is done."""
        self.wait()
        self.pending = self.pool.submit(function, *arguments)

    def wait(self) -> None:
        """Return when the last task is done.

        Raises:
            DFFError: what the last task ran into.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()


def chunk_bytes(chunk: Chunk) -> bytes:
    """Return a chunk with its rows as a safetensors file."""
    tensors = {} if chunk.rows is None else {"rows": chunk.rows.contiguous()}
    return to_safetensors(tensors, {"facts": json.dumps(chunk_facts(chunk))})


def load_chunk(path: Path, *, rows: bool = True) -> Chunk:
    """Read a chunk, with its rows if wanted."""
    with safe_open(path, "pt") as file:
        chunk = Chunk(**json.loads(file.metadata()["facts"]))
        if rows and "rows" in file.keys():  # noqa: SIM118
            chunk.rows = file.get_tensor("rows")
    return chunk


def chunk_facts(chunk: Chunk) -> dict[str, Any]:
    return {
        "ids": chunk.ids, "widths": chunk.widths, "heights": chunk.heights,
        "errors": chunk.errors, "predicted": chunk.predicted, "probability": chunk.probability,
        "stamps": chunk.stamps,
    }  # fmt: skip
