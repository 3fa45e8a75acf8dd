"""What is done with a finished run: show a concept's images, and name concepts."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dff.colocalization.run.coco import renamed_coco
from dff.colocalization.run.finished import Run
from dff.colocalization.stages.exemplars import (
    best_instances,
    crops,
    entry,
    masks_for,
    write_exemplars,
)
from dff.errors import RunError, UsageError
from dff.files import Content, write_file
from dff.labels import class_index
from dff.rendering import contact_sheet
from dff.rendering.files import png

__all__ = ["find", "rename"]

ACROSS = 10  # crops in one row of a sheet


def find(
    run: Run,
    concept: int | str,
    out: str | Path,
    *,
    top: int = 20,
    target: int | str | None = None,
) -> list[dict[str, Any]]:
    """Write a contact sheet of the images that show a concept best; return them, best first.

    Which they are goes by the concept's strength (its presence at the peak, which counts up to
    twice full presence) and how much of it there is; their order by strength alone. With a
    `target`, both go by what the concept adds to the logit of that class in the image: its worth
    (``scores.parquet``) times its mean presence, which is exact where the layer is followed by
    pooling and a linear head.

    Args:
        run: a finished run.
        concept: its index, from 0, or its name.
        out: the PNG to write.
        top: how many images.
        target: a class by index or name, or None.

    Raises:
        UsageError: no such concept or class, or `top` below 1; nothing is scored.
        RunError: the concept is in no image, or the images are gone.
    """
    if top < 1:
        raise UsageError(f"top is 1 or more, not {top}")
    k = run.concept(concept)
    worth = None if target is None else _worth(run, k, target)
    best = best_instances(run.folder, [k], top, by_mean=worth is not None)[k]
    if worth is None:
        best = [*sorted(best[:top], key=lambda instance: -instance.strength), *best[top:]]
    masks = masks_for(run.folder, {k: best})
    shown = crops(run.dataset(), best, run.bank.colors[k], k, masks, top)
    if not shown:
        raise RunError(
            f"no image with {run.bank.names[k]!r} can be shown: none has it, or they "
            "are gone from where they were"
        )
    facts = run.table("concepts").to_pylist()[k]
    first = entry(run.bank, k, facts)
    rows = []
    for start in range(0, len(shown), ACROSS):
        rows.append((first, [marked for _, marked in shown[start : start + ACROSS]]))
        first = type(first)(color=(255, 255, 255), title="")
    _write_sheet(run, Path(out), png(contact_sheet(rows, tile=144)))
    paths = run.table("images", columns=["path"])["path"]
    return [
        {
            "image": instance.image,
            "path": paths[instance.image].as_py(),
            "strength": instance.strength,
            "box": list(instance.box),
            **({} if worth is None else {"contribution": worth * instance.mean}),
        }
        for instance in best[:top]
    ]


def _worth(run: Run, concept: int, target: int | str) -> float:
    """Return what a concept at full presence adds to the logit of a class."""
    scores = run.table("scores")
    rows = scores.filter(pc.equal(scores["concept"], concept + 1))
    if not len(rows):
        raise UsageError("nothing is scored in this run, so that concepts add to no class")
    if "worth" not in rows.schema.names:
        raise RunError(
            "the run was made by an older version, which did not keep what concepts add to "
            "classes: start its `dff colocalize` command again with --force"
        )
    return float(rows["worth"][class_index(target, rows["class"].to_pylist(), len(rows))].as_py())


def _write_sheet(run: Run, out: Path, sheet: Content) -> None:
    """Write a sheet, recorded with the run, so that the same call may replace it."""
    inside = os.path.realpath(out.parent) == os.path.realpath(run.path)
    name = out.name if inside else os.path.abspath(out)
    if os.access(run.path, os.W_OK):
        run.folder.manifest.write({name: sheet})
    else:  # somebody else's run
        write_file(out, sheet)


def rename(run: Run, concept: int | str, name: str) -> Run:
    """Give a concept a name, which then appears everywhere; return the run as it is now.

    Args:
        run: a finished run.
        concept: its index, from 0, or the name that it has.
        name: on one line.

    Raises:
        UsageError: no such concept, or a name that is empty, a number, or taken.
        RunError: another process is at work in the run, or a file of it is damaged.
    """
    bank = run.bank.renamed({run.concept(concept): name})
    folder = run.folder
    with folder.locked():
        table = run.table("concepts")
        position = table.schema.get_field_index("name")
        table = table.set_column(position, table.schema.field("name"), [list(bank.names)])
        folder.write(
            {
                "bank.safetensors": bank.to_bytes(),
                "concepts.parquet": lambda file: pq.write_table(table, file),
                "coco.json": partial(renamed_coco, folder.file("coco.json"), bank),
            }
        )
        with contextlib.suppress(RunError):  # a dataset that is gone: the sheet stays as it is
            write_exemplars(folder, run.dataset(), bank)
    return Run(run.path)
