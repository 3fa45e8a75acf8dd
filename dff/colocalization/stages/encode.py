"""Every image in the concepts: maps, instances and masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save as to_safetensors

from dff.colocalization.instances import COLUMNS, annotation, instances
from dff.colocalization.run.folder import chunk_name
from dff.colocalization.stages.chunks import Behind, Chunk, chunk_facts, load_chunk
from dff.colocalization.stages.extract import run_chunks
from dff.colocalization.stages.job import PLACING, Counter, Job
from dff.concepts import ConceptBank
from dff.errors import DFFError, RunError
from dff.images import read_image
from dff.maps import fitted, within
from dff.maps.masks import GUIDE_SIDE
from dff.maps.runs import Runs

__all__ = ["PARTS", "encode_chunk", "encode_stage"]

PARTS = ("images", "instances", "coco", "maps")  # what a chunk leaves


def encode_stage(job: Job) -> None:
    """Maps, instances and masks of each chunk, from its rows or from a second pass."""
    bank = job.bank()
    due = PARTS if not job.folder.done("tables") else ("maps",)
    own = [
        i
        for i in job.ranks.share(range(len(job.chunks)))
        if any(chunk_name(part, i) not in job.folder.manifest for part in due)
    ]

    def encode(index: int, chunk: Chunk) -> None:
        files = encode_chunk(job, chunk, bank)
        writer.submit(job.folder.write, {chunk_name(part, index): files[part] for part in PARTS})

    # Three chunks are under way: one in the model, one being encoded, one being written.
    with Behind("writer") as writer, Behind("encoder") as encoder:
        tally = Counter(job, PLACING, own, job.chunks)
        for index, chunk in _to_encode(job, own):
            encoder.submit(encode, index, chunk)
            tally.add(index)


def _to_encode(job: Job, own: Sequence[int]) -> Iterator[tuple[int, Chunk]]:
    """Yield chunks with all their rows: those of the first pass where they are kept, else anew."""
    kept = [i for i in own if job.plan.exact and chunk_name("rows", i) in job.folder.manifest]
    for index in kept:
        yield index, load_chunk(job.folder.file(chunk_name("rows", index)))
    left = {i: job.chunks[i] for i in own if i not in set(kept)}
    yield from run_chunks(job, left, predict=True, whole=True)


def encode_chunk(job: Job, chunk: Chunk, bank: ConceptBank) -> dict[str, bytes]:
    """Return the files of a chunk: "maps" (safetensors), "parquet" (instances), "coco", "images".

    Maps are (n, k, h, w) float16 in units of full presence, zero for unreadable images. At the
    level of objects, "coco" holds the unions of concepts after the concepts.
    """
    rows, cols = job.network.cells
    count = len(bank)
    maps = np.zeros((len(chunk.ids), len(bank.nodes(job.level)), rows, cols), np.float16)
    if chunk.rows is not None:
        flat = chunk.rows.to(job.network.device).float().flatten(0, 1)
        shaped = bank.encode(flat).view(len(chunk.rows), rows, cols, count).permute(0, 3, 1, 2)
        present = bank.presence(shaped, level=job.level, most=60000)
        maps[chunk.readable] = present.half().cpu().numpy()
    table, lines = _tables(job, chunk, maps, count)
    return {
        "instances": _parquet_bytes(table),
        "coco": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "images": json.dumps(chunk_facts(chunk)).encode(),
        "maps": to_safetensors(
            {
                "maps": torch.from_numpy(np.ascontiguousarray(maps[:, :count])),
                "ids": torch.tensor(chunk.ids),
            },
            {"unit": "full presence"},
        ),
    }


def _tables(
    job: Job, chunk: Chunk, maps: np.ndarray, count: int
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Return the instances of the first `count` nodes, the concepts, and COCO's of all nodes."""

    def place(i: int) -> tuple[dict[str, np.ndarray], list[tuple[int, Runs]]]:
        size = (chunk.heights[i], chunk.widths[i])
        guide = _guide(job, chunk.ids[i]) if job.masks.refine else None
        shown = maps[i].astype(np.float32)
        return instances(
            chunk.ids[i], shown, job.network.grid, size, job.masks,
            fine=job.network.fine, guide=guide,
        )  # fmt: skip

    if not chunk.readable:
        return {name: np.zeros(0, _dtype(name)) for name in COLUMNS}, []
    with ThreadPoolExecutor(job.workers) as pool:
        placed = list(pool.map(place, chunk.readable))
    lines = [
        annotation(chunk.ids[i], node, maps.shape[1], float(part["strength"][node]), runs)
        for i, (part, masks) in zip(chunk.readable, placed, strict=True)
        for node, runs in masks
    ]
    return {
        name: np.concatenate([part[name][:count] for part, _ in placed]) for name in COLUMNS
    }, lines


def _guide(job: Job, image: int) -> np.ndarray | None:
    """Return a small version of a photo, None where it cannot be read (any more)."""
    try:
        pixels = read_image(job.dataset.source(image), least=GUIDE_SIDE).pixels
    except RunError:
        raise  # no image can be read any more
    except (DFFError, OSError):
        return None
    return fitted(pixels, within(pixels.shape[:2], GUIDE_SIDE, least=2))


def _dtype(name: str) -> str:
    return {"image_id": "int64", "concept": "int32"}.get(
        name, "int32" if name in ("x0", "y0", "x1", "y1") else "float32"
    )


def _parquet_bytes(columns: dict[str, np.ndarray]) -> bytes:
    """Return a table as parquet; boxes are null where no mask was found."""
    arrays = {}
    absent = columns["x0"] < 0
    for name in COLUMNS:
        mask = absent if name in ("x0", "y0", "x1", "y1") else None
        arrays[name] = pa.array(columns[name].astype(_dtype(name)), mask=mask)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink)
    return bytes(sink.getvalue())
