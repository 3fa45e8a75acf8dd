"""What methods say of one photo by one model: a row a method, a column a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from dff.explain import Explanation
from dff.explain.photo import Photo
from dff.explain.shared import ClassScore

__all__ = ["MethodRow", "PhotoRows"]


@dataclass(frozen=True, eq=False)
class MethodRow:
    """What one method says of a photo's classes.

    Attributes:
        method: its name.
        maps: (classes, height, width) float32 on the model's input. Signed of attributions and
            concepts, whose map is what all concepts together add; 0 and more of the CAM family.
        seconds: it took, for all classes.
        settings: of an attribution, all; empty of others.
        delta: (classes,) what the map's sum misses of the score less the baseline's, or of concepts
            what they and the rest miss of it; None where a method promises no sum.
        parts: (classes, concepts, rows, cols) of concepts: what each adds at each cell.
        metrics: (classes,) of each metric (:data:`dff.metrics.METRICS`), where asked for.
        captions: (classes,) what each map is of, where that is not the class; else empty.
    """

    method: str
    maps: np.ndarray
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    delta: tuple[float, ...] | None = None
    parts: Tensor | None = None
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    captions: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all but the maps as plain data."""
        plain = {
            key: list(value.shape) if isinstance(value, Tensor) else value
            for key, value in self.settings.items()
        }
        told: dict[str, Any] = {
            "method": self.method,
            "seconds": round(self.seconds, 3),
            "settings": plain,
            "delta": None if self.delta is None else [round(v, 6) for v in self.delta],
        }
        if self.captions:
            told["captions"] = list(self.captions)
        if self.metrics:
            told["metrics"] = {
                name: [round(value, 6) for value in values] for name, values in self.metrics.items()
            }
        return told


@dataclass(frozen=True, eq=False)
class PhotoRows:
    """One photo as one model sees it, by several methods.

    Attributes:
        model: its name.
        explanation: of the photo alone, in concepts of its own.
        classes: the columns, with their probabilities and logits.
        rows: the methods.
    """

    model: str
    explanation: Explanation
    classes: tuple[ClassScore, ...]
    rows: tuple[MethodRow, ...]

    @property
    def photo(self) -> Photo:
        """The record of the photo."""
        return self.explanation.photos[0]

    def as_dict(self) -> dict[str, Any]:
        """Return all but the maps as plain data."""
        return {
            "image": self.photo.picture.name,
            "model": self.model,
            "layer": self.photo.bank.layer,
            "classes": [asdict(score) for score in self.classes],
            "methods": [row.as_dict() for row in self.rows],
        }
