"""Every image in the concepts: maps, instances and masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save as to_safetensors

from dff.colocalization.instances import COLUMNS, annotation, instances
from dff.colocalization.run.folder import chunk_name
from dff.colocalization.stages.chunks import Chunk, Writer, chunk_facts, load_chunk
from dff.colocalization.stages.extract import run_chunks
from dff.colocalization.stages.job import PLACING, Job
from dff.colocalization.stages.network import Network
from dff.concepts import ConceptBank
from dff.errors import DFFError
from dff.images import read_image
from dff.maps import fitted, presence, within
from dff.maps.masks import GUIDE_SIDE, MaskOptions, threshold_levels

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
    with Writer() as writer:
        for count, (index, chunk) in enumerate(_to_encode(job, own), 1):
            guides = _guides(job, chunk) if job.masks.refine else None
            files = encode_chunk(chunk, bank, job.network, job.masks, guides)
            parts = {chunk_name(part, index): files[part] for part in PARTS}
            writer.submit(job.folder.write, parts)
            job.progress(PLACING, count, len(own))


def _to_encode(job: Job, own: Sequence[int]) -> Iterator[tuple[int, Chunk]]:
    """Yield chunks with all their rows: those of the first pass where they are kept, else anew."""
    kept = [i for i in own if job.plan.exact and chunk_name("rows", i) in job.folder.manifest]
    for index in kept:
        yield index, load_chunk(job.folder.file(chunk_name("rows", index)))
    left = {i: job.chunks[i] for i in own if i not in set(kept)}
    yield from run_chunks(job, left, predict=True, whole=True)


def _guides(job: Job, chunk: Chunk) -> list[np.ndarray | None]:
    """Return small versions of a chunk's photos, None where one cannot be read (any more)."""
    from concurrent.futures import ThreadPoolExecutor

    def read(index: int) -> np.ndarray | None:
        try:
            pixels = read_image(job.dataset.source(index)).pixels
        except (DFFError, OSError):
            return None
        if max(pixels.shape[:2]) <= 2 * GUIDE_SIDE:
            return pixels
        return fitted(pixels, within(pixels.shape[:2], 2 * GUIDE_SIDE, least=2))

    with ThreadPoolExecutor(job.workers) as pool:
        return list(pool.map(read, chunk.ids))


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
        maps[chunk.readable] = presence(shaped, bank.scale, most=60000).half().cpu().numpy()
    table, lines = _tables(chunk, maps, network, options, guides)
    return {
        "instances": _parquet_bytes(table),
        "coco": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "images": json.dumps(chunk_facts(chunk)).encode(),
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
    readable, count = chunk.readable, maps.shape[1]
    shown = maps[readable].astype(np.float32)
    if not readable:
        return {name: np.zeros(0, _dtype(name)) for name in COLUMNS}, []
    levels = threshold_levels(shown.reshape(-1, *shown.shape[2:]), network.grid, options)
    parts, lines = [], []
    for position, i in enumerate(readable):
        size = (chunk.heights[i], chunk.widths[i])
        part, masks = instances(
            chunk.ids[i], shown[position], network.grid, size,
            levels[position * count : (position + 1) * count], options,
            fine=network.fine, guide=None if guides is None else guides[i],
        )  # fmt: skip
        parts.append(part)
        lines += [
            annotation(chunk.ids[i], k, count, float(part["strength"][k]), runs)
            for k, runs in masks
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}, lines


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
