"""Concepts through the rest of the model: what they say about the classes.

- :class:`ConceptModule`: the rest of a model from coefficients to logits, as an ``nn.Module``.
- :class:`ConceptEncoder`: the model up to the layer, from images to coefficients.
- :func:`split_logits`: contributions: one number a concept, and the rest, summing to the logit.
- :func:`ablation`, :func:`blur_ablation`, :func:`sobol`, :func:`gradient_times_coefficient`:
  the other evidence.
- :func:`label_probes`, :func:`confidences`: the classes that concepts speak for in one photo.
- :mod:`dff.scoring.faithfulness`: is what the concepts say true of the model?
"""

from __future__ import annotations

from dff.scoring.contributions import Contributions, split_logits
from dff.scoring.encoder import ConceptEncoder, encoded
from dff.scoring.importance import ablation, blur_ablation, gradient_times_coefficient, sobol
from dff.scoring.labels import confidences, label_probes
from dff.scoring.module import ConceptModule, rebuild

__all__ = [
    "ConceptEncoder",
    "ConceptModule",
    "Contributions",
    "ablation",
    "blur_ablation",
    "confidences",
    "encoded",
    "gradient_times_coefficient",
    "label_probes",
    "rebuild",
    "sobol",
    "split_logits",
]
