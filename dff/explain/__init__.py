"""The main job: photos in, their concepts out.

- :class:`Explainer`: a model made ready: layer, layout and preprocessing found by themselves.
- :class:`Explanation`: what one call found: concepts, heatmaps, scores, Grad-CAM, pictures.
- :class:`Sweep`: the same photos in few and in many concepts, and how many there should be.
- :class:`DeepFeatureFactorization`: the drop-in call of pytorch-grad-cam's tutorial.
"""

from __future__ import annotations

from dff.explain.dropin import DeepFeatureFactorization
from dff.explain.explainer import Explainer
from dff.explain.explanation import Explanation
from dff.explain.saving import check_formats
from dff.explain.sweeps import Sweep

__all__ = ["DeepFeatureFactorization", "Explainer", "Explanation", "Sweep", "check_formats"]
