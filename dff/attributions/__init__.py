"""What in the input speaks for a score: Captum's methods behind one call.

- :func:`attribute`: any module, inputs, a place in the output, and a method by name.
- :class:`Attribution`: signed values of each pixel, and what their sum misses.
- :data:`METHODS`: the table of methods, their settings and needs; :func:`why_not` says what keeps a
  model from having one.
- :func:`captum_attr`: raises unless Captum is installed.
- :class:`TargetLayer`: of methods that explain by a layer.
"""

from __future__ import annotations

from dff.attributions.call import Attribution, TargetLayer, attribute, why_not
from dff.attributions.captum_calls import captum_attr
from dff.attributions.methods import METHODS, attribution_method

__all__ = [
    "METHODS",
    "Attribution",
    "TargetLayer",
    "attribute",
    "attribution_method",
    "captum_attr",
    "why_not",
]
