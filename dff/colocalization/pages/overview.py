"""The tables of a run's page: classes and labels, settings, failures, evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dff.colocalization.evaluate import Evaluation
from dff.colocalization.run.finished import Run
from dff.concepts import titles
from dff.report import ClassTable, Facts

__all__ = ["class_tables", "facts_of", "lifts"]

ROWS = 40  # of a table of classes
TABLES = (
    ("What concepts add to predicted classes", "scores", "class", "mean_contribution"),
    ("Predicted classes", "scores", "class", "prevalence"),
    ("Labels of the dataset", "labels", "label", "prevalence"),
)
ABOUT = {
    "mean_contribution": ("logit", "Mean contribution to the logit in the images of the class"),
    "prevalence": ("share", "Share of the images that show each concept"),
}
MOST_FAILURES = 500


def class_tables(run: Run) -> list[ClassTable]:
    """Return what concepts add to predicted classes, and how often they are in images of these
    and of the dataset's labels."""
    tables = []
    for title, name, column, value in TABLES:
        table = run.table(name)
        table = table.filter(pc.greater(table["images"], 0))
        if len(table):
            tables.append(_class_table(title, table, column, value, len(run.bank)))
    return tables


def _class_table(title: str, table: pa.Table, column: str, value: str, k: int) -> ClassTable:
    names = table[column].to_pylist()
    rows = len(table) // k
    values = np.nan_to_num(table[value].to_numpy()).reshape(k, rows).T
    images = table["images"].to_numpy()[:rows]
    order = np.argsort(-images, kind="stable")[:ROWS]
    return ClassTable(
        title, [names[i] for i in order], images[order].tolist(), values[order], *ABOUT[value],
        left_out=rows - len(order),
    )  # fmt: skip


def lifts(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return (k, k) in how many images two concepts are together, and how that is to chance."""
    table, k = run.table("cooccurrence"), len(run.bank)
    return (
        table["images"].to_numpy().reshape(k, k),
        table["lift"].to_numpy().reshape(k, k).astype(np.float64),
    )


def facts_of(run: Run, failures: pa.Table, evaluation: Evaluation | None) -> list[Facts]:
    """Return how the run was made, which images failed, and how well it locates classes."""
    facts = [_evaluated(run, evaluation)] if evaluation else []
    if len(failures):
        shown = failures.slice(0, MOST_FAILURES)
        rest = len(failures) - len(shown)
        text = f"{len(failures)} images could not be read."
        text += f" {rest} more are in images.parquet." if rest else ""
        rows = zip(shown["path"].to_pylist(), shown["error"].to_pylist(), strict=True)
        facts.append(Facts("Failures", ["image", "error"], [list(row) for row in rows], text))
    state = run.state
    made = [["version", state["version"]], *map(list, _flat(state["settings"]))]
    took = [[stage, f"{seconds:.1f} s"] for stage, seconds in state["timings"].items()]
    return [
        *facts,
        Facts("Settings", ["setting", "value"], made),
        Facts("Time", ["stage", "took"], took),
    ]


def _evaluated(run: Run, evaluation: Evaluation) -> Facts:
    named = titles(run.bank.names)

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    rows = [
        [one.name, one.images, " + ".join(named[k] for k in one.members), shown(one.corloc),
         shown(one.mask_iou), shown(one.pooled_iou)]
        for one in evaluation.classes
    ]  # fmt: skip
    return Facts(
        "Evaluation",
        ["class", "images", "concept", "CorLoc", "mask IoU", "pooled IoU"],
        rows,
        f"{evaluation.images} annotated images; mean CorLoc {shown(evaluation.corloc)}, "
        f"mask IoU {shown(evaluation.mask_iou)}.",
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[Sequence[str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", str(value)
