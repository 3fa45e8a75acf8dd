"""All metrics of maps by one table: :func:`score_maps`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from dff.errors import UsageError, closest
from dff.metrics.confidence import (
    Explain,
    average_drop,
    coherency,
    complexity,
    drop,
    harmonic_mean,
    increase,
)
from dff.metrics.curves import SOFTMAX, Forward, pixel_curve
from dff.metrics.road import Road, road
from dff.metrics.trial import Maps, Targets, Trial

__all__ = ["METRICS", "Metric", "deletion", "insertion", "score_maps"]


def deletion(trial: Trial) -> np.ndarray:
    """Return the area (n,) under each map's deletion curve, in [0, 1]; less is better."""
    return _areas(trial, "deletion")


def insertion(trial: Trial) -> np.ndarray:
    """Return the area (n,) under each map's insertion curve, in [0, 1]; more is better."""
    return _areas(trial, "insertion")


class _Findings:
    """What several metrics share of one trial, each found once."""

    def __init__(self, trial: Trial, explain: Explain | None, seed: int) -> None:
        self.trial, self.explain, self.seed = trial, explain, seed

    @cached_property
    def road(self) -> Road:
        return road(self.trial, seed=self.seed)

    @cached_property
    def coherency(self) -> np.ndarray:
        assert self.explain is not None
        return coherency(self.trial, self.explain)

    @property
    def adcc(self) -> np.ndarray:
        kept = 1 - average_drop(self.trial)
        return harmonic_mean(self.coherency, 1 - complexity(self.trial), kept)

    @property
    def arcc(self) -> np.ndarray:
        removed = (2 * self.road.combined).clip(0, 1)
        return harmonic_mean(self.coherency, 1 - complexity(self.trial), removed)


@dataclass(frozen=True)
class Metric:
    """A metric of maps.

    Attributes:
        values: (n,) of what is known of a trial.
        more_is_better: or less is.
        explains_again: it needs the method that made the maps, not only the maps.
    """

    values: Callable[[_Findings], np.ndarray]
    more_is_better: bool
    explains_again: bool = False


METRICS: dict[str, Metric] = {
    "deletion": Metric(lambda found: deletion(found.trial), False),
    "insertion": Metric(lambda found: insertion(found.trial), True),
    "road": Metric(lambda found: found.road.combined, True),
    "road-most-relevant": Metric(lambda found: found.road.most.mean(0), False),
    "road-least-relevant": Metric(lambda found: found.road.least.mean(0), True),
    "drop": Metric(lambda found: drop(found.trial), False),
    "average-drop": Metric(lambda found: average_drop(found.trial), False),
    "increase": Metric(lambda found: increase(found.trial), True),
    "complexity": Metric(lambda found: complexity(found.trial), False),
    "coherency": Metric(lambda found: found.coherency, True, True),
    "adcc": Metric(lambda found: found.adcc, True, True),
    "arcc": Metric(lambda found: found.arcc, True, True),
}
"""Every metric by its name. "adcc" is Poppi et al.'s mean of three, "arcc" pytorch-grad-cam's."""


def score_maps(
    forward: Forward,
    inputs: Tensor,
    maps: Maps,
    targets: Targets,
    *,
    metrics: Sequence[str] | None = None,
    probabilities: Forward = SOFTMAX,
    explain: Explain | None = None,
    batch: int = 32,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Measure how well maps say what a model goes by.

    Args:
        forward: the model, as in :class:`Trial`, and so are `inputs`, `maps`, `targets`,
            `probabilities` and `batch`.
        inputs: (n, channels, height, width).
        maps: (n, height, width) of any range. Deletion, insertion and ROAD go by the order of
            their values alone; the others take them as masks
            (:func:`dff.metrics.trial.as_masks`).
        targets: (n,) class indices.
        metrics: keys of :data:`METRICS`; None is all that can be had.
        probabilities: of logits.
        explain: the method that made the maps, for "coherency", "adcc" and "arcc".
        batch: images at a time.
        seed: of ROAD's noise.

    Returns:
        For each metric (n,), one number an image: means over photos are the caller's.

    Raises:
        UsageError: no such metric, or one that needs `explain`; what :class:`Trial` refuses.
    """
    names = _checked(metrics, explain)
    found = _Findings(
        Trial(forward, inputs, maps, targets, probabilities=probabilities, batch=batch),
        explain,
        seed,
    )
    return {name: METRICS[name].values(found) for name in names}


def _areas(trial: Trial, mode: str) -> np.ndarray:
    return np.array(
        [
            pixel_curve(
                trial.forward, image, heat, target, mode=mode, batch=trial.batch,
                probabilities=trial.probabilities,
            ).auc
            for image, heat, target in zip(trial.inputs, trial.maps, trial.targets, strict=True)
        ]
    )  # fmt: skip


def _checked(metrics: Sequence[str] | None, explain: Explain | None) -> list[str]:
    """Return the names of the metrics asked for."""
    if metrics is None:
        return [n for n, metric in METRICS.items() if explain or not metric.explains_again]
    for name in metrics:
        if name not in METRICS:
            hint = closest(name, METRICS) or "; choose from " + ", ".join(METRICS)
            raise UsageError(f"there is no metric {name!r}{hint}")
        if METRICS[name].explains_again and explain is None:
            raise UsageError(
                f"{name!r} explains the masked images again: pass explain=, the method that made "
                "the maps"
            )
    return list(metrics)
