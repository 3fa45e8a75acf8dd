"""The two passes over images, chunk by chunk: rows for the fit, then maps and what follows.

A chunk leaves one file of rows (first pass) and a shard of maps with its tables (second pass, or
from the rows where they are all there). The shard of maps is written last: it is the sign that
the chunk is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dff.colocalization.instances import COLUMNS, annotation, instances
from dff.colocalization.network import Network
from dff.colocalization.plan import Plan
from dff.colocalization.reading import Sample
from dff.colocalization.stamps import Row
from dff.concepts import ConceptBank
from dff.maps import presence
from dff.maps.masks import MaskOptions, threshold_levels

__all__ = ["Chunk", "Writer", "chunk_bytes", "encode_chunk", "extract", "load_chunk"]

NOT_FINITE = "the activations hold NaN or infinite values for this image"


@dataclass(eq=False)
class Chunk:
    """What is known of some consecutive images.

    Attributes:
        ids: (n,) their numbers.
        widths, heights: (n,) in pixels, 0 where unreadable.
        errors: (n,) what is wrong, None for a good image.
        predicted: (n,) class index, -1 where there is none.
        probability: (n,) of that class.
        stamps: (n,) what each was when it was read, None where nothing can tell.
        rows: (good images, cells drawn, channels).
    """

    ids: list[int]
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    probability: list[float] = field(default_factory=list)
    stamps: list[Row | None] = field(default_factory=list)
    rows: Tensor | None = None

    @property
    def good(self) -> list[int]:
        """Positions of the images without an error."""
        return [i for i, error in enumerate(self.errors) if error is None]


class Writer:
    """Writes in the background, one file behind the work; errors come out at the next call."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="dff-writer")
        self.pending: Future[Any] | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self.pool.shutdown(wait=True)

    def submit(self, function: Any, *arguments: Any) -> None:
        """Write once the file before is whole."""
        self.wait()
        self.pending = self.pool.submit(function, *arguments)

    def wait(self) -> None:
        """Return when nothing is being written.

        Raises:
            OutputError: what the last write ran into.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()


def extract(
    network: Network,
    samples: Iterator[Sample],
    ids: Sequence[int],
    plan: Plan,
    *,
    batch: int,
    predict: bool,
    whole: bool = False,
) -> Chunk:
    """Run the images of one chunk through the model.

    Args:
        network: the model.
        samples: where the images come from, in the order of `ids`.
        ids: their numbers.
        plan: which cells are kept.
        batch: images run together.
        predict: go on to the classes.
        whole: keep all cells, whatever the plan draws.
    """
    chunk = Chunk([int(i) for i in ids])
    rows: list[Tensor] = []
    for start in range(0, len(chunk.ids), batch):
        some = chunk.ids[start : start + batch]
        rows += _run_batch(network, samples, some, plan, chunk, predict, whole)
    chunk.rows = torch.cat(rows) if rows else None
    return chunk


def _run_batch(
    network: Network,
    samples: Iterator[Sample],
    ids: Sequence[int],
    plan: Plan,
    chunk: Chunk,
    predict: bool,
    whole: bool,
) -> list[Tensor]:
    read = [next(samples) for _ in ids]
    good = [i for i, sample in enumerate(read) if sample.pixels is not None]
    errors = [sample.error for sample in read]
    classes, chances = [-1] * len(ids), [0.0] * len(ids)
    kept: list[Tensor] = []
    if good:
        passed = network(
            np.stack([s.pixels for s in read if s.pixels is not None]), predict=predict
        )
        finite = passed.rows.sum((1, 2), dtype=torch.float32).isfinite().tolist()
        if passed.logits is not None:
            best = passed.logits.softmax(-1).max(-1)
            for i, index, chance in zip(
                good, best.indices.tolist(), best.values.tolist(), strict=True
            ):
                classes[i], chances[i] = index, chance
        for at, i in enumerate(good):
            if not finite[at]:
                errors[i] = NOT_FINITE
        sound = [at for at in range(len(good)) if finite[at]]
        kept = _drawn(passed.rows, sound, [ids[i] for i in good], plan, whole)
    chunk.widths += [sample.width for sample in read]
    chunk.heights += [sample.height for sample in read]
    chunk.errors += errors
    chunk.predicted += classes
    chunk.probability += chances
    chunk.stamps += [None if sample.stamp is None else sample.stamp.row for sample in read]
    return kept


def _drawn(rows: Tensor, sound: list[int], ids: list[int], plan: Plan, whole: bool) -> list[Tensor]:
    """Return the rows that are kept of a batch, on the CPU."""
    if not sound:
        return []
    if whole or plan.exact:
        return [(rows if len(sound) == len(rows) else rows[sound]).cpu()]
    cells = torch.from_numpy(np.stack([plan.cells_of(ids[at]) for at in sound]))
    at = torch.tensor(sound)[:, None].to(rows.device)
    return [rows[at, cells.to(rows.device)].cpu()]


def chunk_bytes(chunk: Chunk) -> bytes:
    """Return a chunk with its rows as a safetensors file."""
    tensors = {} if chunk.rows is None else {"rows": chunk.rows.contiguous()}
    return to_safetensors(tensors, {"facts": json.dumps(_facts(chunk))})


def load_chunk(path: Path, *, rows: bool = True) -> Chunk:
    """Read a chunk, with its rows if wanted."""
    with safe_open(path, "pt") as file:
        chunk = Chunk(**json.loads(file.metadata()["facts"]))
        if rows and "rows" in file.keys():  # noqa: SIM118
            chunk.rows = file.get_tensor("rows")
    return chunk


def encode_chunk(
    chunk: Chunk,
    bank: ConceptBank,
    network: Network,
    options: MaskOptions,
    guides: Sequence[np.ndarray | None] | None = None,
) -> dict[str, bytes]:
    """Return the files of a chunk: "maps" (safetensors), "parquet" (instances), "coco", "images".

    Maps are (n, k, h, w) float16 in units of full presence, zero for unreadable images.
    """
    rows, cols = network.cells
    count = len(bank)
    maps = np.zeros((len(chunk.ids), count, rows, cols), np.float16)
    if chunk.rows is not None:
        flat = chunk.rows.to(network.device).float().flatten(0, 1)
        coefficients = bank.encode(flat)
        shaped = coefficients.view(len(chunk.rows), rows, cols, count).permute(0, 3, 1, 2)
        maps[chunk.good] = presence(shaped, bank.scale, most=60000).half().cpu().numpy()
    table, lines = _tables(chunk, maps, network, options, guides)
    return {
        "instances": _parquet_bytes(table),
        "coco": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "images": json.dumps(_facts(chunk)).encode(),
        "maps": to_safetensors(
            {"maps": torch.from_numpy(maps), "ids": torch.tensor(chunk.ids)},
            {"unit": "full presence"},
        ),
    }


def _tables(
    chunk: Chunk,
    maps: np.ndarray,
    network: Network,
    options: MaskOptions,
    guides: Sequence[np.ndarray | None] | None,
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    good, count = chunk.good, maps.shape[1]
    shown = maps[good].astype(np.float32)
    if not good:
        return {name: np.zeros(0, _kind(name)) for name in COLUMNS}, []
    levels = threshold_levels(shown.reshape(-1, *shown.shape[2:]), network.grid, options)
    parts, lines = [], []
    for at, i in enumerate(good):
        size = (chunk.heights[i], chunk.widths[i])
        part, masks = instances(
            chunk.ids[i], shown[at], network.grid, size,
            levels[at * count : (at + 1) * count], options,
            guide=None if guides is None else guides[i],
        )  # fmt: skip
        parts.append(part)
        lines += [
            annotation(chunk.ids[i], k, count, float(part["strength"][k]), runs)
            for k, runs in masks
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}, lines


def _kind(name: str) -> str:
    return {"image_id": "int64", "concept": "int32"}.get(
        name, "int32" if name in ("x0", "y0", "x1", "y1") else "float32"
    )


def _facts(chunk: Chunk) -> dict[str, Any]:
    return {
        "ids": chunk.ids, "widths": chunk.widths, "heights": chunk.heights,
        "errors": chunk.errors, "predicted": chunk.predicted, "probability": chunk.probability,
        "stamps": chunk.stamps,
    }  # fmt: skip


def _parquet_bytes(columns: dict[str, np.ndarray]) -> bytes:
    """Return a table as parquet; boxes are null where no mask was found."""
    arrays = {}
    absent = columns["x0"] < 0
    for name in COLUMNS:
        mask = absent if name in ("x0", "y0", "x1", "y1") else None
        arrays[name] = pa.array(columns[name].astype(_kind(name)), mask=mask)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink)
    return bytes(sink.getvalue())
