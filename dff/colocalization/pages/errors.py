"""Right against wrong: which concepts are over-represented where the model errs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dff.concepts import titles
from dff.report import Facts

__all__ = ["error_tables", "rightness"]

CONFIDENT = 1.96  # standard errors of a 95% interval
MOST_PAIRS, LEAST_IMAGES = 30, 3  # of a confusion, for a concept to be named
UNKNOWN = (
    "No image has a label that is a class of the model, so that right and wrong cannot be told "
    "apart: put images into folders named as classes, or give a list with the columns path and "
    "label."
)


def rightness(
    labels: Sequence[str | None], predicted: Sequence[str | None], classes: Sequence[str]
) -> list[int]:
    """Return for each image 1 if its label is the predicted class, 0 if not, -1 if unknown.

    A label is a class's name or one of its comma-separated synonyms; case, underscores and
    hyphens do not matter. A label that is no class at all leaves the image unknown.
    """
    known: dict[str, set[str]] = {}
    for known_class in {*classes, *filter(None, predicted)}:
        for part in (known_class, *known_class.split(",")):
            known.setdefault(_key(part), set()).add(known_class)
    meant = {label: known.get(_key(label)) for label in {*labels} if label is not None}
    result = []
    for label, name in zip(labels, predicted, strict=True):
        right = None if label is None else meant[label]
        result.append(-1 if right is None or name is None else int(name in right))
    return result


def error_tables(
    right: Sequence[int],
    labels: Sequence[str | None],
    predicted: Sequence[str | None],
    present: np.ndarray,
    mean: np.ndarray,
    names: Sequence[str],
) -> list[Facts]:
    """Return the tables that answer why the model fails; one that says why not, if it cannot.

    Args:
        right: (n,) of :func:`rightness`.
        labels: (n,) of the dataset.
        predicted: (n,) class names.
        present: (n, k) bool, where concepts were found.
        mean: (n, k) the mean presence of each.
        names: of the concepts.
    """
    told = np.asarray(right)
    if not (told >= 0).any():
        return [Facts("Right against wrong", [], [], UNKNOWN)]
    tables = [_contrast(told, present, mean, names)]
    if (told == 0).any():
        tables.append(_confusions(told, labels, predicted, present, names))
    return tables


def _contrast(
    right: np.ndarray, present: np.ndarray, mean: np.ndarray, names: Sequence[str]
) -> Facts:
    """Compare how often each concept is in images that are right, and in those that are wrong.

    The interval of the difference is that of Agresti and Caffo, "Simple and Effective Confidence
    Intervals for Proportions and Differences of Proportions", 2000: one hit and one miss are added
    to each side.
    """
    good, bad = present[right == 1], present[right == 0]
    counts = len(bad), len(good)
    text = f"The model is right on {counts[1]} images and wrong on {counts[0]}."
    if not all(counts):
        return Facts("Right against wrong", [], [], text + " There is nothing to compare.")
    shares = [(rows.sum(0) + 1) / (len(rows) + 2) for rows in (bad, good)]
    error = np.sqrt(sum(p * (1 - p) / (len(rows) + 2)
                        for p, rows in zip(shares, (bad, good), strict=True)))  # fmt: skip
    low, high = (shares[0] - shares[1] + sign * CONFIDENT * error for sign in (-1, 1))
    raw = bad.mean(0) - good.mean(0)
    order = np.argsort(-raw, kind="stable")
    shown = titles(names)
    clear = "more often where it errs", "more often where it is right", "no clear difference"
    rows = [
        [shown[k], round(float(bad[:, k].mean()), 3), round(float(good[:, k].mean()), 3),
         round(float(raw[k]), 3), f"{low[k]:+.2f} to {high[k]:+.2f}",
         clear[0] if low[k] > 0 else clear[1] if high[k] < 0 else clear[2],
         *(round(float(mean[right == side][:, k].mean()), 4) for side in (0, 1))]
        for k in order.tolist()
    ]  # fmt: skip
    columns = [
        "concept",
        "in wrong",
        "in right",
        "difference",
        "95% interval",
        "reading",
        "mean presence in wrong",
        "in right ",
    ]
    return Facts("Right against wrong", columns, rows, text)


def _confusions(
    right: np.ndarray,
    labels: Sequence[str | None],
    predicted: Sequence[str | None],
    present: np.ndarray,
    names: Sequence[str],
) -> Facts:
    """Return the commonest confusions, and which concept is more often there than usual."""
    pairs = Counter((labels[i], predicted[i]) for i in np.flatnonzero(right == 0).tolist())
    shown = titles(names)
    average = present.mean(0)
    number = {name: i for i, name in enumerate({*labels, *predicted})}
    label_of, class_of = (np.array([number[n] for n in named]) for named in (labels, predicted))
    rows = []
    for (label, name), count in pairs.most_common(MOST_PAIRS):
        labelled = label_of == number[label]
        these = present[labelled & (class_of == number[name]) & (right == 0)]
        same = present[labelled & (right == 1)]
        more = these.mean(0) - (same.mean(0) if len(same) else average)
        k = int(more.argmax())
        usual = "where it is right" if len(same) else "all images"
        telling = f"{shown[k]}, {more[k]:+.0%} against {usual}" if more[k] > 0 else "none"
        rows.append([label, name, count, telling if count >= LEAST_IMAGES else None])
    columns = ["label", "predicted", "images", "more often there"]
    return Facts("Commonest confusions", columns, rows,
                 f"{len(pairs)} pairs of label and predicted class; of fewer than "
                 f"{LEAST_IMAGES} images no concept is named.")  # fmt: skip


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
