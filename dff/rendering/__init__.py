"""Drawing: arrays in, arrays or Pillow images out, with OpenCV and Pillow (curves: matplotlib).

- :func:`colors`: the palette, distinguishable also to colour-blind readers.
- :func:`overlay`: concepts over a photo; :func:`heatmap_overlay`: one heatmap over a photo.
- :func:`number_concepts`: the number of each concept where it is seen best.
- :class:`LegendEntry`, :func:`legend`: swatch, name, share and classes of each concept.
- :func:`film`: the frames of a clip in rows.
- :func:`panel`: pictures side by side with titles and a legend.
- :func:`contact_sheet`: a row of crops for each concept.
- :func:`concept_tree`: which concept splits into which.
- :func:`curves`: lines over a common x (matplotlib, imported when used).
"""

from __future__ import annotations

from dff.rendering.legends import LegendEntry, legend
from dff.rendering.marks import number_concepts
from dff.rendering.overlays import heatmap_overlay, overlay
from dff.rendering.palette import colors
from dff.rendering.panels import film, panel
from dff.rendering.plots import curves
from dff.rendering.sheets import contact_sheet
from dff.rendering.trees import TreeNode, concept_tree

__all__ = [
    "LegendEntry",
    "TreeNode",
    "colors",
    "concept_tree",
    "contact_sheet",
    "curves",
    "film",
    "heatmap_overlay",
    "legend",
    "number_concepts",
    "overlay",
    "panel",
]
