"""How good an explanation is: numbers in, numbers out.

- :func:`score_maps`: maps of images by a table of metrics (:data:`METRICS`).
- :mod:`~dff.metrics.trial`: what each of these is given, and how maps become masks.
- :mod:`~dff.metrics.curves`: deletion and insertion.
- :mod:`~dff.metrics.road`: ROAD; :mod:`~dff.metrics.removal`: what takes pixels away.
- :mod:`~dff.metrics.confidence`: drop and increase of confidence, the parts of ADCC and ARCC.
- :mod:`~dff.metrics.parts`: agreement with parts that are known.
"""

from __future__ import annotations

from dff.metrics.confidence import (
    average_drop,
    coherency,
    complexity,
    drop,
    harmonic_mean,
    increase,
)
from dff.metrics.curves import Curve, Forward, pixel_curve
from dff.metrics.parts import PartAgreement, box_iou, corloc, part_agreement
from dff.metrics.removal import imputed
from dff.metrics.road import Road, road
from dff.metrics.table import METRICS, Metric, deletion, insertion, score_maps
from dff.metrics.trial import Trial

__all__ = [
    "METRICS",
    "Curve",
    "Forward",
    "Metric",
    "PartAgreement",
    "Road",
    "Trial",
    "average_drop",
    "box_iou",
    "coherency",
    "complexity",
    "corloc",
    "deletion",
    "drop",
    "harmonic_mean",
    "imputed",
    "increase",
    "insertion",
    "part_agreement",
    "pixel_curve",
    "road",
    "score_maps",
]
