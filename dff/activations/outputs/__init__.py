"""What a model's output means, and how scores are read from it.

- :mod:`~dff.activations.outputs.meaning`: the kind of an output, decided once a model.
- :mod:`~dff.activations.outputs.boxes`: the scores of a detector.
"""

from __future__ import annotations

from dff.activations.outputs.boxes import Score
from dff.activations.outputs.meaning import (
    ASKED,
    KINDS,
    Meaning,
    check_output,
    read_scores,
    recognise,
)

__all__ = ["ASKED", "KINDS", "Meaning", "Score", "check_output", "read_scores", "recognise"]
