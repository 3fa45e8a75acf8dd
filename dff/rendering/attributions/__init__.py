"""Pictures of attributions: signed numbers of each pixel, over the photo or in its place.

- :class:`Look`: which sign, how, and in which colours; :data:`STYLES`, :data:`SIGNS`.
- :func:`scale_of`: one scale for several maps.
- :func:`draw_attribution`: one picture; :func:`as_photo`: what a normalised input shows.
- :func:`attribution_panel`: several side by side, with titles and colour bars.
"""

from __future__ import annotations

from dff.rendering.attributions.drawing import as_photo, draw_attribution
from dff.rendering.attributions.looks import SIGNS, STYLES, Look, scale_of
from dff.rendering.attributions.panels import attribution_panel, color_bar

__all__ = [
    "SIGNS",
    "STYLES",
    "Look",
    "as_photo",
    "attribution_panel",
    "color_bar",
    "draw_attribution",
    "scale_of",
]
