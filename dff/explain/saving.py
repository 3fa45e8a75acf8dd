"""Write an explanation to a folder: pictures, a JSON of all scores, arrays, the bank."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image
from safetensors.torch import save as to_safetensors

from dff.errors import UsageError
from dff.files import Content
from dff.images.names import distinct_names
from dff.manifest import Manifest

if TYPE_CHECKING:
    from dff.explain.explanation import Explanation

__all__ = [
    "FORMATS",
    "as_dict",
    "check_formats",
    "file_names",
    "json_text",
    "output_names",
    "png",
    "save",
]

FORMATS = ("png", "json", "arrays")


def check_formats(formats: Sequence[str] | None) -> tuple[str, ...]:
    """Return the formats to write; None means all.

    Raises:
        UsageError: there is no such format.
    """
    for name in formats or ():
        if name not in FORMATS:
            raise UsageError(f"there is no format {name!r}; choose from {', '.join(FORMATS)}")
    return tuple(formats) if formats else FORMATS


def save(
    explanation: Explanation,
    folder: str | Path,
    *,
    top_k: int = 3,
    target: int | str | None = None,
    formats: Sequence[str] | None = None,
) -> list[Path]:
    """Write an explanation to `folder`, each file whole or not at all; return the paths.

    Args:
        explanation: what to write.
        folder: made if it is missing. What :meth:`save` itself wrote there is replaced, and
            nothing else (:class:`dff.manifest.Manifest`).
        top_k: classes a concept in legends and JSON.
        target: class of Grad-CAM in the panels; None is each photo's likeliest.
        formats: "png": for each photo NAME ``NAME_concepts.png`` and ``NAME_panel.png``; "json":
            ``explanation.json`` (:func:`as_dict`); "arrays": ``arrays.safetensors``
            (coefficients of each photo, components, logits) and ``bank.safetensors``. None is
            all of them.

    Raises:
        OutputError: the folder cannot be made or written to, the disk is full, or a file of
            another's is in the way: nothing is written then.
        UsageError: no such format or class.
    """
    wanted = check_formats(formats)
    explanation.target(target)  # before anything is written
    names, manifest = file_names(explanation), Manifest(folder)
    manifest.check(output_names(names, wanted))
    files: dict[str, Content] = {}
    if "png" in wanted:
        for index, name in enumerate(names):
            draw = partial(explanation.overlay, index, top_k=top_k)
            files[f"{name}_concepts.png"] = png(draw)
            draw = partial(explanation.panel, index, top_k=top_k, target=target)
            files[f"{name}_panel.png"] = png(draw)
    if "json" in wanted:
        files["explanation.json"] = json_text(as_dict(explanation, top_k=top_k))
    if "arrays" in wanted:
        files["arrays.safetensors"] = to_safetensors(_arrays(explanation))
        files["bank.safetensors"] = explanation.bank.to_bytes()
    return manifest.write(files)


def output_names(names: Sequence[str], formats: Sequence[str]) -> list[str]:
    """Return the names of all files that :func:`save` writes for photos of these names."""
    files = []
    if "png" in formats:
        files += [f"{name}_{what}.png" for name in names for what in ("concepts", "panel")]
    if "json" in formats:
        files.append("explanation.json")
    if "arrays" in formats:
        files += ["arrays.safetensors", "bank.safetensors"]
    return files


def as_dict(explanation: Explanation, *, top_k: int = 3) -> dict[str, Any]:
    """Return all scores as plain data, for JSON.

    Concepts are numbered from 1. Shares, probabilities, mean presences and coverages lie in
    [0, 1]; `coverage` is the part of the photo's cells at half presence or more; a peak is
    (x, y) in the photo's pixels; `unscored` says why the concepts have no classes, where so.
    """
    bank = explanation.bank
    return {
        "version": version("deep-feature-factorization"),
        "model": bank.model,
        "layer": bank.layer,
        "rest_share": round(bank.rest, 6),
        "unscored": explanation.unscored,
        "concepts": [
            {
                "concept": k + 1,
                "name": bank.names[k],
                "color": "#" + "".join(f"{int(v):02x}" for v in bank.colors[k]),
                "share": round(float(bank.shares[k]), 6),
                "top_classes": [asdict(c) for c in explanation.top_classes(k, top_k=top_k)],
            }
            for k in range(len(bank))
        ],
        "images": [_image(explanation, i, name) for i, name in enumerate(file_names(explanation))],
    }


def _image(explanation: Explanation, index: int, name: str) -> dict[str, Any]:
    picture, maps = explanation.pictures[index], explanation.maps(index)
    grid = explanation.grids[index]
    concepts = []
    for k, one in enumerate(maps):
        row, col = divmod(int(one.argmax()), one.shape[1])
        peak = (
            (grid.offset[1] + col * grid.stride[1]) * picture.width / grid.width,
            (grid.offset[0] + row * grid.stride[0]) * picture.height / grid.height,
        )
        concepts.append(
            {
                "concept": k + 1,
                "presence": round(float(one.mean()), 6),
                "coverage": round(float((one >= 0.5).mean()), 6),
                "peak": [round(v, 1) for v in peak] if one.any() else None,
            }
        )
    return {
        "image": picture.name,
        "files": [f"{name}_concepts.png", f"{name}_panel.png"],
        "width": picture.width,
        "height": picture.height,
        "predictions": [asdict(c) for c in explanation.predictions(index)],
        "concepts": concepts,
    }


def file_names(explanation: Explanation) -> list[str]:
    """Return a file name for each photo (:func:`dff.images.names.distinct_names`)."""
    return distinct_names(picture.name for picture in explanation.pictures)


def _arrays(explanation: Explanation) -> dict[str, Any]:
    arrays = {
        "components": explanation.bank.components,
        "scale": explanation.bank.scale,
        "logits": explanation.logits,
        "concept_logits": explanation.concept_logits,
    }
    for index, coefficients in enumerate(explanation.coefficients):
        arrays[f"coefficients.{index}"] = coefficients
    return {key: tensor.detach().cpu().contiguous() for key, tensor in arrays.items()}


def json_text(value: Any) -> str:
    """Return a value as JSON, as it is written to files and printed.

    Half characters (lone surrogates, of file names that are not UTF-8) stand as escapes.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def png(draw: Callable[[], Image.Image]) -> Callable[[IO[bytes]], None]:
    """Return what writes a picture as a PNG file, and draws it only then."""

    def write(file: IO[bytes]) -> None:
        draw().save(file, "PNG", compress_level=4)

    return write
