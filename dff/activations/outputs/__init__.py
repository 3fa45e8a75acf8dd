"""What a model's output means, and how scores are read from it.

- :mod:`~dff.activations.outputs.meaning`: the kind of an output, decided once a model.
- :mod:`~dff.activations.outputs.boxes`: the scores of a detector.
- :mod:`~dff.activations.outputs.heads`: scores of a region, of a box, of a regression.
"""

from __future__ import annotations

from dff.activations.outputs.boxes import Score
from dff.activations.outputs.heads import BoxScore, RegressionScore, SegmentationScore
from dff.activations.outputs.meaning import (
    ASKED,
    KINDS,
    Meaning,
    check_output,
    read_scores,
    recognise,
)

__all__ = [
    "ASKED",
    "KINDS",
    "BoxScore",
    "Meaning",
    "RegressionScore",
    "Score",
    "SegmentationScore",
    "check_output",
    "read_scores",
    "recognise",
]
