"""Concepts through the rest of the model: what they say about the classes.

- :class:`Tail`: the rest of a model after a layer, from maps to scores.
- :class:`ConceptModule`: the same from coefficients to logits, as an ``nn.Module``.
- :func:`contributions`: one number a concept, and the rest, summing to the logit.
"""

from __future__ import annotations

from dff.scoring.contributions import Contributions, contributions
from dff.scoring.module import ConceptModule, rebuild
from dff.scoring.tail import Tail, run_scored

__all__ = [
    "ConceptModule",
    "Contributions",
    "Tail",
    "contributions",
    "rebuild",
    "run_scored",
]
