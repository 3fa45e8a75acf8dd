"""A run as the plain data of its page, and the page as a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dff.colocalization.evaluate import Evaluation
from dff.colocalization.pages.errors import error_tables, rightness
from dff.colocalization.pages.gallery import best_crops, places, sampled, thumbnails
from dff.colocalization.pages.overview import class_tables, facts_of, lifts
from dff.colocalization.run.finished import Run
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.stages.job import Progress, silent
from dff.colocalization.stages.scores import image_groups
from dff.concepts import titles
from dff.errors import DFFError, UsageError
from dff.files import write_file
from dff.maps import Grid
from dff.report import ConceptSection, ImageTable, RunPage, run_page

__all__ = ["run_view", "write_report"]

THUMBNAILS = 600
LARGEST = 50_000_000
"""Bytes of a page, at most."""
MOST_STRENGTHS, MOST_IMAGES = 12_000_000, 100_000
"""Strengths of concepts in images, and images, in the table of one page."""
NEAR = 8


def write_report(
    run: Run,
    out: str | Path,
    *,
    evaluation: Evaluation | None = None,
    images: int = THUMBNAILS,
    progress: Progress = silent,
) -> Path:
    """Write the page of a run, recorded with it so that the same call may replace it.

    Args:
        run: a finished run.
        out: the HTML file to write.
        evaluation: what :func:`dff.colocalization.evaluate.evaluate` measured; None leaves it out.
        images: how many images are shown, at most; the others stand in the table alone.
        progress: called with (what is done, how much of it, of how much).

    Raises:
        UsageError: `images` is below 0.
        OutputError: something else lies there, the disk is full, ...
    """
    view = run_view(run, evaluation=evaluation, images=images, progress=progress)
    page, path = run_page(view), Path(out)
    inside = os.path.realpath(path.parent) == os.path.realpath(run.path)
    name = path.name if inside else os.path.abspath(path)
    if not os.access(run.path, os.W_OK):  # somebody else's run
        return write_file(path, page)
    run.folder.manifest.write({name: page})
    return path


def run_view(
    run: Run,
    *,
    evaluation: Evaluation | None = None,
    images: int = THUMBNAILS,
    progress: Progress = silent,
) -> RunPage:
    """Return what the page of a run shows (arguments as of :func:`write_report`)."""
    if images < 0:
        raise UsageError(f"the number of images is 0 or more, not {images}")
    bank, counts = run.bank, run.state["counts"]
    table = run.table("images")
    dataset, left_out = _dataset(run)
    shown, strength, present, mean = _strengths(run)
    table_of_images, said = _image_table(run, shown, strength)
    left_out += said
    readable = shown["id"].to_pylist()
    grid = Grid(**run.state["grid"]) if "grid" in run.state else None
    crops, best = best_crops(run, dataset, progress)
    all_right = rightness(
        shown["label"].to_pylist(), shown["predicted"].to_pylist(), _class_names(run)
    )
    wrong = [i for i, right in zip(readable, all_right, strict=True) if right == 0]
    room = LARGEST // 2 - strength.size - sum(map(len, map("".join, crops)))
    chosen = sampled(best, wrong, readable, images)
    pictures = thumbnails(run, dataset, chosen, budget=room, progress=progress)
    left_out += _unshown(len(pictures), len(readable))
    together, lift = lifts(run)
    return RunPage(
        title=f"Concepts of {_what(run)}",
        folder=str(run.path),
        about=[
            f"{len(bank)} concepts of {counts['images']} images: {bank.model}, layer {bank.layer}",
            f"the concepts leave {bank.rest:.0%} of the activations unexplained",
        ],
        concepts=_concepts(run, crops, places(run, grid, readable), together, lift),
        images=table_of_images,
        thumbnails=pictures,
        grid=_geometry(run, grid),
        lift=lift,
        classes=class_tables(run),
        errors=error_tables(
            all_right, shown["label"].to_pylist(), shown["predicted"].to_pylist(), present, mean,
            bank.names,
        ),
        settings=facts_of(run, table.filter(pc.equal(table["status"], "error")), evaluation),
        left_out=left_out,
    )  # fmt: skip


def _dataset(run: Run) -> tuple[Dataset | None, list[str]]:
    try:
        return run.dataset(), []
    except (DFFError, OSError) as error:
        return None, [f"The images cannot be shown: {error}"]


def _strengths(run: Run) -> tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]:
    """Return the images that could be read, and (n, k) how strong concepts are, whether they
    were found, and their mean presence."""
    groups = [*image_groups(run.folder, len(run.bank))]
    if not groups:
        images, nothing = run.table("images").slice(0, 0), np.zeros((0, len(run.bank)))
        return images, nothing, nothing > 0, nothing
    mean, present = (np.concatenate([group[i] for group in groups]) for i in (2, 3))
    strength = np.clip(np.concatenate([group[1] for group in groups]), 1 / 255, 1)
    return pa.concat_tables([group[0] for group in groups]), strength * present, present, mean


def _image_table(run: Run, images: pa.Table, strength: np.ndarray) -> tuple[ImageTable, list[str]]:
    """Return the table of images, evenly spread if they are too many, and what was left out."""
    most = min(MOST_IMAGES, MOST_STRENGTHS // len(run.bank))
    left_out = []
    if len(images) > most:
        left_out = [f"The table holds {most} of {len(images)} images, evenly spread; all are in "
                    "images.parquet and instances.parquet."]  # fmt: skip
        at = np.linspace(0, len(images) - 1, most).round().astype(int)
        images, strength = images.take(pa.array(at)), strength[at]
    labels, predicted = images["label"].to_pylist(), images["predicted"].to_pylist()
    probability = np.nan_to_num(np.array(images["probability"].to_pylist(), np.float64))
    table = ImageTable(
        images["id"].to_pylist(), images["path"].to_pylist(), labels, predicted, probability,
        rightness(labels, predicted, _class_names(run)), strength,
    )  # fmt: skip
    return table, left_out


def _class_names(run: Run) -> list[str]:
    scores = run.table("scores")
    return scores.filter(pc.equal(scores["concept"], 1))["class"].to_pylist()


def _unshown(shown: int, there: int) -> list[str]:
    if shown == there:
        return []
    return [f"{shown} of {there} images are shown as pictures; the others stand in the table."]


def _concepts(
    run: Run, crops: Sequence[Sequence[str]], where: Sequence[str], together: np.ndarray,
    lift: np.ndarray,
) -> list[ConceptSection]:  # fmt: skip
    bank, named = run.bank, titles(run.bank.names)
    sections = []
    for k, facts in enumerate(run.table("concepts").to_pylist()):
        near = [
            j for j in np.argsort(-lift[k], kind="stable").tolist() if j != k and together[k, j]
        ]
        said = facts["top_classes"]
        color = bank.colors[k]
        sections.append(
            ConceptSection(
                title=named[k],
                name=bank.names[k],
                color=(int(color[0]), int(color[1]), int(color[2])),
                share=round(facts["share"], 4),
                prevalence=round(facts["prevalence"], 4),
                images=facts["images"],
                classes=None if said is None else [c for c in said.split("; ") if c],
                crops=crops[k],
                place=where[k],
                near=[(j, int(together[k, j]), round(float(lift[k, j]), 2)) for j in near[:NEAR]],
            )
        )
    return sections


def _geometry(run: Run, grid: Grid | None) -> dict[str, object]:
    """Return where the cells lie; of a run that does not say, as if they tiled the images."""
    if grid is None:
        rows, cols = (int(side) for side in run.maps(0).shape[1:])
        grid = Grid.tiled(rows, cols, rows, cols)
    return {
        "rows": grid.rows, "cols": grid.cols, "height": grid.height, "width": grid.width,
        "stride": list(grid.stride), "offset": list(grid.offset),
    }  # fmt: skip


def _what(run: Run) -> str:
    """Return what the run was made of, for a title."""
    given = run.state["settings"]["dataset"]["given"]
    return Path(given).name if given else run.path.resolve().name
