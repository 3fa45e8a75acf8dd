"""The tables of a run, put together from the chunks.

All are streamed: no more than some chunks are in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dff.colocalization.run.folder import INPUTS, RunFolder, chunk_name
from dff.colocalization.sources.dataset import Dataset
from dff.labels import class_name

__all__ = [
    "image_facts",
    "printable",
    "write_images",
    "write_inputs",
    "write_instances",
    "write_table",
]

GROUP = 1 << 16  # rows of one row group

IMAGES = pa.schema(
    [
        ("id", pa.int64()), ("path", pa.string()), ("width", pa.int32()), ("height", pa.int32()),
        ("label", pa.string()), ("predicted", pa.string()), ("predicted_index", pa.int32()),
        ("probability", pa.float32()), ("status", pa.string()), ("error", pa.string()),
    ]
)  # fmt: skip

INPUT_COLUMNS = pa.schema(
    [
        ("id", pa.int64()), ("size", pa.int64()), ("modified", pa.int64()),
        ("changed", pa.int64()), ("digest", pa.string()),
    ]
)  # fmt: skip


def printable(path: str) -> str:
    """Return a path as valid Unicode: bytes that are not UTF-8 are written out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def image_facts(folder: RunFolder, chunks: int) -> Iterator[dict[str, Any]]:
    """Yield what is known of the images of each chunk."""
    for index in range(chunks):
        yield json.loads(folder.file(chunk_name("images", index)).read_text())


def write_images(
    folder: RunFolder, dataset: Dataset, chunks: int, class_names: Sequence[str] | None
) -> dict[str, int]:
    """Write images.parquet; return the counts of images and of unreadable ones."""
    counts = {"images": 0, "unreadable": 0}

    def tables() -> Iterator[pa.Table]:
        for facts in image_facts(folder, chunks):
            counts["images"] += len(facts["ids"])
            counts["unreadable"] += sum(error is not None for error in facts["errors"])
            yield _images_table(facts, dataset, class_names)

    write_table(folder, "images.parquet", IMAGES, tables())
    return counts


def _images_table(
    facts: dict[str, Any], dataset: Dataset, class_names: Sequence[str] | None
) -> pa.Table:
    ids, errors = facts["ids"], facts["errors"]
    known = [
        i if i >= 0 and e is None else None for i, e in zip(facts["predicted"], errors, strict=True)
    ]
    columns = {
        "id": ids,
        "path": [printable(dataset.paths[i]) for i in ids],
        "width": [w or None for w in facts["widths"]],
        "height": [h or None for h in facts["heights"]],
        "label": [dataset.labels[i] and printable(str(dataset.labels[i])) for i in ids],
        "predicted": [None if i is None else class_name(i, class_names) for i in known],
        "predicted_index": known,
        "probability": [
            None if e is not None else p for p, e in zip(facts["probability"], errors, strict=True)
        ],
        "status": ["ok" if error is None else "error" for error in errors],
        "error": [error and printable(error) for error in errors],
    }
    return pa.table(columns, schema=IMAGES)


def write_instances(folder: RunFolder, chunks: int) -> int:
    """Write instances.parquet; return how many concepts were found in images."""
    count = 0
    schema = pq.read_schema(folder.file(chunk_name("instances", 0)))

    def tables() -> Iterator[pa.Table]:
        nonlocal count
        for index in range(chunks):
            table = pq.read_table(folder.file(chunk_name("instances", index)))
            count += len(table) - table["x0"].null_count
            yield table

    write_table(folder, "instances.parquet", schema, tables())
    return count


def write_table(
    folder: RunFolder, name: str, schema: pa.Schema, tables: Iterator[pa.Table]
) -> None:
    """Write one parquet file of many small tables, in row groups of a useful size."""

    def write(file: IO[bytes]) -> None:
        with pq.ParquetWriter(file, schema) as writer:
            waiting: list[pa.Table] = []
            for table in tables:
                waiting.append(table)
                if sum(map(len, waiting)) >= GROUP:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP)
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP)

    folder.write({name: write})


def write_inputs(folder: RunFolder, chunks: int) -> None:
    """Write what each photo was when it was read, so that a later change shows."""

    def tables() -> Iterator[pa.Table]:
        for facts in image_facts(folder, chunks):
            rows = [(None,) * 4 if row is None else row for row in facts["stamps"]]
            columns = list(zip(*rows, strict=True)) or [()] * 4
            yield pa.table([facts["ids"], *map(list, columns)], schema=INPUT_COLUMNS)

    write_table(folder, INPUTS, INPUT_COLUMNS, tables())
