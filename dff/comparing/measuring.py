"""How good the methods' maps are: metrics of each, and their means over photos and classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dff.comparing.asking import PhotoMethods
from dff.comparing.records import MethodRow, PhotoRows
from dff.errors import UsageError, closest
from dff.metrics import METRICS, score_maps

__all__ = ["check_metrics", "mean_metrics", "measured"]


def check_metrics(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics asked for; None is none.

    Raises:
        UsageError: there is no such metric.
    """
    for name in names or ():
        if name not in METRICS:
            hint = closest(name, METRICS) or f"; there are {', '.join(METRICS)}"
            raise UsageError(f"a comparison has no metric {name!r}{hint}")
    return tuple(names or ())


def measured(
    ask: PhotoMethods, row: MethodRow, metrics: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """Measure a method's map of each class by the whole model: (classes,) of each metric.

    Metrics that explain again ask the method about the photo masked by its own map.
    """
    photo, count = ask.photo, len(ask.classes)
    ask.told(f"{photo.picture.name}: {row.method}, metrics")
    found = score_maps(
        photo.tail.whole,
        photo.image[None].float().expand(count, -1, -1, -1),
        row.maps,
        ask.classes,
        metrics=metrics,
        probabilities=photo.shared.meaning.probabilities,
        explain=lambda images, classes: ask.again(row.method, images, classes),
        batch=ask.batch,
    )
    return {name: tuple(map(float, values)) for name, values in found.items()}


def mean_metrics(blocks: Sequence[PhotoRows]) -> dict[str, dict[str, float]]:
    """Return for each method the mean over photos (by one model) and classes of each metric."""
    return {
        row.method: {
            name: float(
                np.mean([value for block in blocks for value in block.rows[i].metrics[name]])
            )
            for name in row.metrics
        }
        for i, row in enumerate(blocks[0].rows)
    }
