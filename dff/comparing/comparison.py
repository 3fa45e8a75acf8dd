"""What came of a comparison: maps, one panel, files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from dff.comparing.drawing import draw_panel
from dff.comparing.measuring import mean_metrics
from dff.comparing.records import PhotoRows
from dff.errors import UsageError, closest
from dff.explain import check_formats
from dff.files import Content, csv_text, json_text
from dff.images.names import distinct_names
from dff.manifest import Manifest
from dff.rendering.attributions import Look
from dff.rendering.files import png
from dff.version import __version__

__all__ = ["FORMATS", "MethodComparison", "output_names"]

FORMATS = ("png", "json", "csv", "npz")
SHEET, LARGEST_SHEET = "compare.png", 12


@dataclass(frozen=True, eq=False)
class MethodComparison:
    """Several methods on one photo or several, by one model or several.

    Attributes:
        blocks: a photo by a model each, the models of one photo after each other.
        models: how many models there are.
    """

    blocks: tuple[PhotoRows, ...]
    models: int = 1

    def __repr__(self) -> str:
        methods = ", ".join(row.method for row in self.blocks[0].rows)
        return f"MethodComparison({len(self.blocks)} of photo and model, by {methods})"

    def maps(self, method: str, block: int = 0) -> np.ndarray:
        """Return the maps (classes, height, width) by a method (:class:`MethodRow`).

        Raises:
            UsageError: the method is not among those compared.
        """
        rows = {row.method: row.maps for row in self.blocks[block].rows}
        if method not in rows:
            hint = closest(method, rows) or f"; there are {', '.join(rows)}"
            raise UsageError(f"the comparison has no method {method!r}{hint}")
        return rows[method]

    @property
    def metrics(self) -> list[dict[str, dict[str, float]]]:
        """For each model, the mean over photos and classes of each method's metrics; empty if none
        were measured."""
        return [mean_metrics(self.blocks[i :: self.models]) for i in range(self.models)]

    def panel(self, look: Look | None = None) -> Image.Image:
        """Draw all in one panel: a row a method, a column a class, each row on one scale.

        Args:
            look: how maps are drawn; None draws those of pixels by themselves and those of a
                layer's cells over the photo. The concepts are always drawn in their own colours.
        """
        return draw_panel(self.blocks, look)

    def as_dict(self, *, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return scores, deltas and seconds as plain data."""
        return {
            "version": __version__,
            "settings": dict(settings or {}),
            "images": [block.as_dict() for block in self.blocks],
        }

    def save(
        self,
        folder: str | Path,
        *,
        look: Look | None = None,
        formats: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> list[Path]:
        """Write panels, scores and maps, each file whole or not at all; return the paths.

        Args:
            folder: made if it is missing; only what was written by this program is replaced.
            look: see :meth:`panel`.
            formats: "png": ``NAME_compare.png`` for each photo, and of two to twelve
                ``compare.png``; "json": ``compare.json``; "csv": ``compare.csv``, a row a method
                and class, with its metrics; "npz": ``NAME_maps.npz``, raw maps (classes, height,
                width) by ``METHOD``, of several models by ``MODEL.METHOD``. None is all of them.
            settings: plain data to keep with the scores.

        Raises:
            OutputError: the folder cannot be written to, or a file of another's is in the way.
        """
        chosen = check_formats(formats, known=FORMATS, unasked=FORMATS)
        photos = self._photos()
        names = distinct_names(group[0].photo.picture.name for group in photos)
        files: dict[str, Content] = {}
        for name, group in zip(names, photos, strict=True):
            if "png" in chosen:
                files[f"{name}_{SHEET}"] = png(partial(draw_panel, group, look))
            if "npz" in chosen:
                files[f"{name}_maps.npz"] = partial(_write_maps, group)
        if "png" in chosen and 1 < len(photos) <= LARGEST_SHEET:
            files[SHEET] = png(partial(draw_panel, self.blocks, look))
        report = self.as_dict(settings=settings)
        if "json" in chosen:
            files["compare.json"] = json_text(report)
        if "csv" in chosen:
            files["compare.csv"] = _table(report)
        return Manifest(folder).write(files)

    def _photos(self) -> list[list[PhotoRows]]:
        """Return the blocks of each photo: one for each model."""
        starts = range(0, len(self.blocks), self.models)
        return [list(self.blocks[i : i + self.models]) for i in starts]


def output_names(names: Sequence[str], formats: Sequence[str]) -> list[str]:
    """Return the names of all files that are written for photos of these names."""
    files = []
    if "png" in formats:
        files += [f"{name}_{SHEET}" for name in names]
        files += [SHEET] if 1 < len(names) <= LARGEST_SHEET else []
    files += [f"{name}_maps.npz" for name in names if "npz" in formats]
    return files + [f"compare.{kind}" for kind in ("json", "csv") if kind in formats]


def _write_maps(group: Sequence[PhotoRows], file: IO[bytes]) -> None:
    """Write the raw maps of a photo; the columns' classes by index beside them."""
    arrays: dict[str, Any] = {}
    for block, name in zip(group, distinct_names(b.model for b in group), strict=True):
        before = f"{name}." if len(group) > 1 else ""
        arrays[f"{before}classes"] = np.array([score.index for score in block.classes])
        arrays.update({f"{before}{row.method}": row.maps for row in block.rows})
    buffer = io.BytesIO()  # a zip goes back and forth in its file
    np.savez_compressed(buffer, **arrays)
    file.write(buffer.getvalue())


def _table(report: Mapping[str, Any]) -> str:
    measured = list(report["images"][0]["methods"][0].get("metrics", ()))
    columns = ["image", "model", "method", "class", "probability", "logit", "delta", "seconds"]
    rows = [
        [
            image["image"], image["model"], method["method"], score["name"],
            round(score["probability"], 6), round(score["logit"], 6),
            None if method["delta"] is None else method["delta"][i], method["seconds"],
            *(method["metrics"][name][i] for name in measured),
        ]
        for image in report["images"]
        for method in image["methods"]
        for i, score in enumerate(image["classes"])
    ]  # fmt: skip
    return csv_text([*columns, *measured], rows)
