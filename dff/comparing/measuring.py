"""How good the methods' maps are: metrics of each, and their means over photos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dff.comparing.records import PhotoRows
from dff.errors import UsageError, closest
from dff.explain.photo import Photo
from dff.metrics import METRICS, score_maps

__all__ = ["MEASURED", "check_metrics", "mean_metrics", "measured"]

MEASURED = tuple(name for name, metric in METRICS.items() if not metric.explains_again)
"""The metrics that ask for nothing but the map."""


def check_metrics(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics asked for; None is none.

    Raises:
        UsageError: there is no such metric, or it is not for maps alone.
    """
    for name in names or ():
        if name not in MEASURED:
            hint = closest(name, MEASURED) or f"; there are {', '.join(MEASURED)}"
            raise UsageError(f"a comparison has no metric {name!r}{hint}")
    return tuple(names or ())


def measured(
    photo: Photo, one: np.ndarray, target: int, metrics: Sequence[str], batch: int
) -> dict[str, float]:
    """Measure a map (height, width) of a photo's class by the whole model."""
    found = score_maps(
        photo.tail.whole, photo.image[None].float(), one[None], [target], metrics=metrics,
        probabilities=photo.shared.meaning.probabilities, batch=batch,
    )  # fmt: skip
    return {name: float(values[0]) for name, values in found.items()}


def mean_metrics(blocks: Sequence[PhotoRows]) -> dict[str, dict[str, float]]:
    """Return for each method the mean over photos (by one model) of each metric."""
    return {
        row.method: {
            name: float(np.mean([block.rows[i].metrics[name] for block in blocks]))
            for name in row.metrics
        }
        for i, row in enumerate(blocks[0].rows)
    }
