"""Write an explanation to a folder: pictures, all scores as JSON and CSV, arrays, the bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image
from safetensors.torch import save as to_safetensors

from dff.errors import UsageError
from dff.explain.drawing import Drawing, file_name
from dff.explain.pages import photo_view
from dff.explain.photo import Photo, Target, clips_of
from dff.explain.questions.check import Answer
from dff.explain.questions.evidence import Evidence
from dff.explain.questions.labels import photo_labels
from dff.explain.sheet import draw_sheet
from dff.files import Content, csv_text, json_text
from dff.images.names import distinct_names
from dff.manifest import Manifest
from dff.rendering.files import png
from dff.report import photo_page
from dff.version import __version__

__all__ = [
    "FORMATS",
    "Settings",
    "as_dict",
    "check_formats",
    "file_names",
    "output_names",
    "save",
]

Settings = Mapping[str, Any] | None
"""The settings of a run that differ from the defaults, as plain data; None in Python."""

SHEET = "sheet.png"
PAGE = "explanation.html"
FORMATS = ("png", "html", "json", "csv", "arrays")
UNASKED = tuple(name for name in FORMATS if name != "html")
"""What is written where nothing is asked for: a page takes about a second a photo."""


def check_formats(
    formats: Sequence[str] | None,
    *,
    known: Sequence[str] = FORMATS,
    unasked: Sequence[str] = UNASKED,
) -> tuple[str, ...]:
    """Return the formats to write, of those that are `known`; None means those `unasked`.

    Raises:
        UsageError: there is no such format.
    """
    for name in formats or ():
        if name not in known:
            raise UsageError(f"there is no format {name!r}; choose from {', '.join(known)}")
    return tuple(formats or unasked)


def save(
    photos: Sequence[Photo],
    folder: str | Path,
    *,
    top_k: int = 3,
    target: Target | None = None,
    formats: Sequence[str] | None = None,
    smooth: bool = False,
    outline: bool = False,
    evidence: Sequence[Sequence[Answer]] = (),
    settings: Settings = None,
) -> list[Path]:
    """Write photos and their concepts to `folder`, each file whole or not at all; return the paths.

    Args:
        photos: what to write: the photos of one explanation.
        folder: made if it is missing. What :meth:`save` itself wrote there is replaced, and
            nothing else (:class:`dff.manifest.Manifest`).
        top_k: classes a concept in legends and JSON.
        target: class of bars and Grad-CAM; None is each photo's likeliest.
        formats: "png": for each photo or clip NAME ``NAME_concepts.png`` and
            ``NAME_panel.png``, and of several ``sheet.png`` (:func:`dff.explain.sheet.draw_sheet`);
            "json": ``explanation.json`` (:func:`as_dict`); "csv": ``concepts.csv``, a row a concept
            and image; "html": ``explanation.html``, a page to explore
            (:func:`dff.explain.pages.photo_view`); "arrays": ``arrays.safetensors``
            (coefficients of each photo, components, logits if the model has a head) and
            ``bank.safetensors``. None is all but the page.
        smooth: draw the maps as they are, not fitted to the photo's edges.
        outline: draw lines around the concepts.
        evidence: for each photo or clip what else was asked about it: evidence, to be drawn as
            bars, and checks, which stand in the page.
        settings: plain data to keep with the scores (:func:`as_dict`).

    Raises:
        OutputError: the folder cannot be made or written to, the disk is full, or a file of
            another's is in the way: nothing is written then.
        UsageError: no such format or class.
        ModelError: a target, of a model without a head.
    """
    chosen = check_formats(formats)
    if target is not None or not photos[0].shared.headless:
        photos[0].target(target)  # before anything is written
    names, manifest = file_names(photos), Manifest(folder)
    manifest.check(output_names(names, chosen))
    files: dict[str, Content] = {}
    if "png" in chosen:
        clips = clips_of(photos)
        for clip, name, asked in zip(clips, names, evidence or [()] * len(clips), strict=True):
            drawing = Drawing(
                clip, target=target, top_k=top_k, smooth=smooth, outline=outline,
                evidence=[one for one in asked if isinstance(one, Evidence)],
            )  # fmt: skip
            files[f"{name}_concepts.png"] = png(drawing.overlay)
            files[f"{name}_panel.png"] = png(partial(_last, drawing))
        if len(clips) > 1:
            files[SHEET] = png(partial(draw_sheet, clips, top_k=top_k, smooth=smooth))
    if "html" in chosen:
        files[PAGE] = partial(_page, photos, target, top_k, evidence)
    told = "json" in chosen or "csv" in chosen
    report = as_dict(photos, top_k=top_k, settings=settings) if told else {}
    if "json" in chosen:
        files["explanation.json"] = json_text(report)
    if "csv" in chosen:
        files["concepts.csv"] = _table(report, top_k)
    if "arrays" in chosen:
        files["arrays.safetensors"] = to_safetensors(_arrays(photos))
        files["bank.safetensors"] = photos[0].bank.to_bytes()
    return manifest.write(files)


def _page(
    photos: Sequence[Photo],
    target: Target | None,
    top_k: int,
    answers: Sequence[Sequence[Answer]],
    file: IO[bytes],
) -> None:
    """Write the page to explore."""
    page = photo_view(photos, target=target, top_k=top_k, answers=answers)
    file.write(photo_page(page).encode())


def _last(drawing: Drawing) -> Image.Image:
    """Draw the panel, the second of two pictures, and free what both share."""
    panel = drawing.panel()
    drawing.forget()
    return panel


def output_names(names: Sequence[str], formats: Sequence[str]) -> list[str]:
    """Return the names of all files that :func:`save` writes for photos of these names."""
    files = []
    if "png" in formats:
        files += [f"{name}_{picture}.png" for name in names for picture in ("concepts", "panel")]
        files += [SHEET] if len(names) > 1 else []
    if "html" in formats:
        files.append(PAGE)
    if "json" in formats:
        files.append("explanation.json")
    if "csv" in formats:
        files.append("concepts.csv")
    if "arrays" in formats:
        files += ["arrays.safetensors", "bank.safetensors"]
    return files


def as_dict(
    photos: Sequence[Photo], *, top_k: int = 3, settings: Settings = None
) -> dict[str, Any]:
    """Return all scores as plain data, for JSON.

    Concepts are numbered from 1; each frame of a clip is an image. Shares, probabilities, mean
    presences and coverages lie in [0, 1]; `coverage` is the part of the photo's cells at half
    presence or more; `labels` are the classes that a concept speaks for in the image, and how
    sure that is (:mod:`dff.scoring.labels`); a peak is (x, y) in the photo's pixels. `unscored`
    says why the concepts have no classes, where so: their lists of classes are empty, and without
    a head the photos' predictions, too. `output` is what the model's output was taken for, and by
    which evidence (:class:`dff.activations.outputs.Meaning`). `settings` are those of the run that
    differ from the defaults, as the command line knows them; none in Python.
    """
    shared = photos[0].shared
    bank = shared.bank
    return {
        "version": __version__,
        "model": bank.model,
        "layer": bank.layer,
        "fine": photos[0].fine,
        "settings": dict(settings or {}),
        "rest_share": round(bank.rest, 6),
        "output": shared.meaning.as_dict(),
        "unscored": shared.unscored,
        "concepts": [
            {
                "concept": k + 1,
                "name": bank.names[k],
                "color": "#" + "".join(f"{int(v):02x}" for v in bank.colors[k]),
                "share": round(float(bank.shares[k]), 6),
                "top_classes": [asdict(c) for c in shared.top_classes(k, top_k=top_k)],
            }
            for k in range(len(bank))
        ],
        "images": [
            _image(photo, name, top_k)
            for clip, name in zip(clips_of(photos), file_names(photos), strict=True)
            for photo in clip
        ],
    }


def _image(photo: Photo, name: str, top_k: int) -> dict[str, Any]:
    picture, grid = photo.picture, photo.grid
    concepts = []
    for k, (presence, labels) in enumerate(
        zip(photo.maps(), photo_labels(photo, top_k=top_k), strict=True)
    ):
        row, col = divmod(int(presence.argmax()), presence.shape[1])
        peak = (
            (grid.offset[1] + col * grid.stride[1]) * picture.width / grid.width,
            (grid.offset[0] + row * grid.stride[0]) * picture.height / grid.height,
        )
        concepts.append(
            {
                "concept": k + 1,
                "labels": [asdict(label) for label in labels],
                "share": round(float(photo.shares[k]), 6),
                "presence": round(float(presence.mean()), 6),
                "coverage": round(float((presence >= 0.5).mean()), 6),
                "peak": [round(v, 1) for v in peak] if presence.any() else None,
            }
        )
    return {
        "image": picture.name,
        "files": [f"{name}_concepts.png", f"{name}_panel.png"],
        "width": picture.width,
        "height": picture.height,
        "predictions": [asdict(c) for c in photo.predictions(top_k=5)],
        "concepts": concepts,
    }


def _table(report: Mapping[str, Any], top_k: int) -> str:
    """Return what :func:`as_dict` says of the concepts in each image as CSV, a row for each.

    Columns are named as there; label_1 to label_K are the labels, confidence_1 how sure the first
    is; there are none where the concepts have no scores.
    """
    most = 0 if report["unscored"] else top_k
    rows = [
        {
            "image": image["image"],
            "concept": concept["concept"],
            "name": concept["name"],
            **{key: here[key] for key in ("share", "presence", "coverage")},
            **dict(zip(("peak_x", "peak_y"), here["peak"] or (None, None), strict=True)),
            **_labels(here["labels"], most),
        }
        for image in report["images"]
        for concept, here in zip(report["concepts"], image["concepts"], strict=True)
    ]
    return csv_text([*rows[0]], [[*row.values()] for row in rows])


def _labels(labels: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """Return `count` labels as columns, those that there are not empty."""
    columns: dict[str, Any] = {}
    for i in range(count):
        label = labels[i] if i < len(labels) else None
        columns[f"label_{i + 1}"] = label and label["name"]
        columns[f"confidence_{i + 1}"] = label and round(label["confidence"], 6)
    return columns


def file_names(photos: Sequence[Photo]) -> list[str]:
    """Return a file name for each photo or clip (:func:`dff.images.names.distinct_names`)."""
    return distinct_names(file_name(clip) for clip in clips_of(photos))


def _arrays(photos: Sequence[Photo]) -> dict[str, Any]:
    shared = photos[0].shared
    arrays = {
        "components": shared.bank.components,
        "scale": shared.bank.scale,
    }
    if not shared.headless:
        arrays["logits"] = torch.stack([photo.logits for photo in photos])
        arrays["concept_logits"] = shared.logits
    for i, photo in enumerate(photos):
        arrays[f"coefficients.{i}"] = photo.coefficients
    return {key: tensor.detach().cpu().contiguous() for key, tensor in arrays.items()}
