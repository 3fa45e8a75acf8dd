"""A run that is on disk, opened to be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open

from dff.colocalization.run.folder import TABLES, RunFolder, chunk_name, read_state
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.opening import reopen
from dff.concepts import ConceptBank, concept_index, titles
from dff.errors import RunError, UsageError, shortened
from dff.report import bank_table

__all__ = ["Run"]


class _Texts(Sequence[str]):
    """A column of texts as a sequence, without an object for each of a million."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: Any) -> Any:
        found = self.column[index]
        return found.to_pylist() if isinstance(index, slice) else found.as_py()


class Run:
    """A finished co-localization run.

    Args:
        path: its folder.

    Attributes:
        path: its folder.
        state: what run.json says: settings, counts, timings.

    Raises:
        RunError: it is no run, of another version, or not finished.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = RunFolder(path)
        self.path = self.folder.path
        self.state = self.folder.state = read_state(self.folder)
        missing = [name for name, state in self.state["stages"].items() if state != "done"]
        if missing:
            raise RunError(
                f"the run {str(path)!r} is not finished ({missing[0]} is to do): start the same "
                "`dff colocalize` command again, it goes on where it stopped"
            )

    def __repr__(self) -> str:
        counts = self.state["counts"]
        return (
            f"Run({shortened(self.path)!r}: {len(self.bank)} concepts, {counts['images']} images)"
        )

    def _repr_html_(self) -> str:
        facts = self.table("concepts").to_pylist()
        shown = titles(self.bank.names)
        rows = [(name, row["color"], row["share"]) for name, row in zip(shown, facts, strict=True)]
        return bank_table(repr(self), rows)

    def _repr_png_(self) -> bytes:
        return self.folder.file("concepts.png").read_bytes()

    @cached_property
    def bank(self) -> ConceptBank:
        """The concepts."""
        return ConceptBank.load(self.folder.file("bank.safetensors"))

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table: images, instances, scores, concepts, labels or cooccurrence.

        It is as it lies on disk, where concepts count from 1; of a large one, some columns do.

        Raises:
            UsageError: there is no such table.
            RunError: its file is gone or damaged.
        """
        if name not in TABLES:
            raise UsageError(f"the run has no table {name!r}; it has {', '.join(sorted(TABLES))}")
        return pq.read_table(self.folder.file(f"{name}.parquet"), columns=columns)

    @cached_property
    def selection(self) -> dict[str, Any] | None:
        """How the number of concepts was chosen, as ``selection.json`` says; None if it was given.

        ``chosen``, ``reason``, and for each of ``counts`` the share ``explained``, the
        ``stability``, and the ``parents`` of its concepts (from 1) in the number before.
        """
        if "selection.json" not in self.folder.manifest:
            return None
        found: dict[str, Any] = json.loads(self.folder.file("selection.json").read_text())
        return found

    def maps(self, image: int) -> torch.Tensor:
        """Return the maps (k, h, w) float16 of an image, in units of full presence."""
        index, position = divmod(image, self.state["settings"]["chunk"])
        with safe_open(self.folder.file(chunk_name("maps", index)), "pt") as file:
            return file.get_slice("maps")[position]

    def dataset(self) -> Dataset:
        """Return the images that the run was made of.

        Raises:
            RunError: they were given as a Python object.
        """
        about = self.state["settings"]["dataset"]
        paths = _Texts(self.table("images", columns=["path"])["path"])
        return reopen(about["kind"], about["root"], about["given"], paths)

    def concept(self, concept: int | str) -> int:
        """Return the index of a concept (:func:`dff.concepts.concept_index`).

        Raises:
            UsageError: there is no such concept.
        """
        return concept_index(self.bank.names, concept)

    def summary(self) -> dict[str, Any]:
        """Return what was found, as plain data for JSON: concepts count from 1."""
        return {
            "run": str(self.path),
            "model": self.bank.model,
            "layer": self.bank.layer,
            "output": self.state["settings"]["model"].get("output"),
            **self.state["counts"],
            "exact": self.state["exact"],
            "precision": self.state.get("precision"),
            "selection": self.selection,
            "rest_share": round(self.bank.rest, 6),
            "concepts": [
                {**row, "share": round(row["share"], 6), "prevalence": round(row["prevalence"], 6)}
                for row in self.table("concepts").to_pylist()
            ],
            "timings": self.state["timings"],
            "images_per_second": self.state.get("rates", {}),
        }
