"""Concepts through the rest of the model: what they say about the classes.

- :class:`Tail`: the rest of a model after a layer, from maps to scores.
- :class:`ConceptModule`: the same from coefficients to logits, as an ``nn.Module``.
- :func:`split_logits`: contributions: one number a concept, and the rest, summing to the logit.
- :func:`ablation`, :func:`blur_ablation`, :func:`sobol`, :func:`gradient_times_coefficient`:
  the other evidence.
- :mod:`dff.scoring.faithfulness`: is what the concepts say true of the model?
"""

from __future__ import annotations

from dff.scoring.contributions import Contributions, Forward, split_logits
from dff.scoring.importance import ablation, blur_ablation, gradient_times_coefficient, sobol
from dff.scoring.module import ConceptModule, rebuild
from dff.scoring.tail import Tail, run_scored

__all__ = [
    "ConceptModule",
    "Contributions",
    "Forward",
    "Tail",
    "ablation",
    "blur_ablation",
    "gradient_times_coefficient",
    "rebuild",
    "run_scored",
    "sobol",
    "split_logits",
]
