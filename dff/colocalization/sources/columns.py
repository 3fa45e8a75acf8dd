"""Parquet files with a column of images, as Hugging Face's datasets are stored.

A row group is read where one of its images is asked for, and kept while its neighbours are.
"""

from __future__ import annotations

import glob
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.remote import is_address, opened, store_of, versions
from dff.errors import ImageError, UsageError
from dff.images import IMAGES, Source

__all__ = ["IMAGE_COLUMNS", "LABEL_COLUMNS", "ParquetDataset", "open_parquet", "parquet_files"]

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "picture", "photo", "bytes")
LABEL_COLUMNS = ("label", "labels", "class", "category", "cls", "fine_label")
KEPT = 3  # row groups in memory: threads read a little ahead of each other


@dataclass(frozen=True)
class _Group:
    """A row group: its file, its number there, and the number of its first row in the dataset."""

    file: str
    number: int
    first: int


def parquet_files(path: str) -> list[str]:
    """Return the parquet files that a path, pattern or address names; none if it names others."""
    if path.endswith(".parquet"):
        if not is_address(path):
            files = [path] if os.path.isfile(path) else sorted(glob.glob(path))
        elif "*" in path:
            system, inner = store_of(path)
            files = [system.unstrip_protocol(name) for name in sorted(system.glob(inner))]
        else:
            files = [path]
        if not files:
            raise UsageError(f"there is no parquet file {path!r}")
        return files
    if not os.path.isdir(path):
        return []
    inside = [entry for entry in sorted(os.scandir(path), key=lambda e: e.name)]
    files = [entry.path for entry in inside if entry.name.endswith(".parquet")]
    others = any(
        entry.is_dir() or os.path.splitext(entry.name)[1].lower() in IMAGES for entry in inside
    )
    return [] if others else files  # a table beside photos is about them


def open_parquet(files: Sequence[str]) -> ParquetDataset:
    """Open parquet files of one schema, in order.

    Raises:
        UsageError: one cannot be read as parquet, or has no column of images.
    """
    paths: list[str] = []
    labels: list[str | None] = []
    groups: list[_Group] = []
    column = ""
    for file in files:
        try:
            with opened(file) as handle:
                reader = pq.ParquetFile(handle)
                column = _image_column(reader.schema_arrow, file)
                for number in range(reader.num_row_groups):
                    groups.append(_Group(file, number, len(paths)))
                    rows = reader.metadata.row_group(number).num_rows
                    paths += [f"{os.path.basename(file)}/{i}" for i in _numbers(reader, number)]
                    labels += _labels(reader, number, rows)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"cannot read {file!r} as a parquet file: {reason}") from None
    return ParquetDataset(files, paths, labels, groups, column)


def _numbers(reader: Any, group: int) -> range:
    rows = [reader.metadata.row_group(i).num_rows for i in range(group + 1)]
    return range(sum(rows[:-1]), sum(rows))


def _image_column(schema: Any, file: str) -> str:
    """Return the column whose cells are bytes, or structs that hold them; a common name first."""
    fitting = [
        field.name
        for field in schema
        if _is_binary(field.type)
        or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    if not fitting:
        raise UsageError(
            f"{file!r} has no column of images (bytes, or a struct with `bytes`); it has "
            + ", ".join(schema.names)
        )
    return next((name for name in IMAGE_COLUMNS if name in fitting), fitting[0])


def _is_binary(kind: Any) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _labels(reader: Any, group: int, rows: int) -> list[str | None]:
    """Return the labels of a row group; numbers by the names that the datasets library keeps."""
    schema = reader.schema_arrow
    name = next((label for label in LABEL_COLUMNS if label in schema.names), None)
    if name is None:
        return [None] * rows
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(name, {})
    names = feature.get("names") if isinstance(feature, dict) else None
    values = reader.read_row_group(group, columns=[name]).column(0).to_pylist()
    return [_named(value, names) for value in values]


def _named(value: Any, names: Sequence[str] | None) -> str | None:
    if value is None or isinstance(value, (list, dict)):
        return None
    known = names and isinstance(value, int) and 0 <= value < len(names)
    return str(names[value]) if names and known else str(value)


class ParquetDataset(Dataset):
    """Images in the rows of parquet files; names are ``FILE.parquet/ROW``."""

    def __init__(
        self, files: Sequence[str], paths: Sequence[str], labels: Sequence[str | None],
        groups: Sequence[_Group], column: str,
    ) -> None:  # fmt: skip
        root = os.path.dirname(files[0] if is_address(files[0]) else os.path.abspath(files[0]))
        super().__init__("parquet", root, paths, labels)
        self.groups, self.column = groups, column
        self._read: OrderedDict[_Group, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def facts(self) -> list[str]:
        return versions(list(dict.fromkeys(group.file for group in self.groups)))

    def file(self, index: int) -> str | None:
        file = self._group(index).file
        return None if is_address(file) else file

    def source(self, index: int) -> Source:
        group = self._group(index)
        cell = self._cells(group)[index - group.first]
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if data is None:
            raise ImageError(f"cannot read {self.paths[index]}: the row holds no bytes")
        return bytes(data)

    def _group(self, index: int) -> _Group:
        low, high = 0, len(self.groups)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.groups[middle].first <= index else (low, middle)
        return self.groups[low]

    def _cells(self, group: _Group) -> list[Any]:
        with self._lock:
            if group not in self._read:
                self._read[group] = self._loaded(group)
            self._read.move_to_end(group)
            while len(self._read) > KEPT:
                self._read.popitem(last=False)
            return self._read[group]

    def _loaded(self, group: _Group) -> list[Any]:
        try:
            with opened(group.file) as handle:
                table = pq.ParquetFile(handle).read_row_group(group.number, columns=[self.column])
        except (pa.ArrowInvalid, OSError) as error:
            raise ImageError(f"cannot read {group.file}: {' '.join(str(error).split())}") from None
        return list(table.column(0).to_pylist())
