"""The main job: photos in, their concepts out.

- :class:`Explainer`: a model made ready: layer, layout and preprocessing found by themselves.
- :class:`Explanation`: what one call found: concepts, heatmaps, scores, Grad-CAM, pictures.
- :class:`Comparison`: which concepts of two explanations are the same.
- :class:`Sweep`: the same photos in few and in many concepts, and how many there should be.
- :class:`Photo`: the record of one photo, which all of these are made of.
"""

from __future__ import annotations

from dff.explain.explainer import Explainer
from dff.explain.explanation import Explanation
from dff.explain.photo import Photo
from dff.explain.questions.comparison import Comparison
from dff.explain.saving import check_formats
from dff.explain.sweep import Sweep

__all__ = ["Comparison", "Explainer", "Explanation", "Photo", "Sweep", "check_formats"]
