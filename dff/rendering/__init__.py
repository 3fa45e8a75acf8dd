"""Drawing: arrays in, arrays or Pillow images out, with OpenCV and Pillow (curves: matplotlib).

- :func:`colors`: the palette, distinguishable also to colour-blind readers.
- :func:`overlay`: concepts over a photo; :func:`heatmap_overlay`: one heatmap over a photo.
- :func:`number_concepts`: the number of each concept where it is seen best;
  :func:`crop_around`: the part of the photo where it peaks.
- :class:`LegendEntry`, :func:`legend`: swatch or crop, name, share and classes of each concept;
  :class:`BarColumn`, :class:`Legend`: signed bars beside them, and headings.
- :func:`film`: the frames of a clip in rows.
- :func:`panel`: pictures side by side with titles and a legend.
- :func:`contact_sheet`: a row of crops for each concept.
- :func:`concept_tree`: which concept splits into which.
- :func:`curves`: lines over a common x (matplotlib, imported when used).
"""

from __future__ import annotations

from dff.rendering.bars import BarColumn
from dff.rendering.entries import LegendEntry, Line
from dff.rendering.legends import Legend, legend
from dff.rendering.marks import crop_around, number_concepts
from dff.rendering.overlays import heatmap_overlay, overlay
from dff.rendering.palette import colors, paled
from dff.rendering.panels import film, fit, panel
from dff.rendering.plots import curves
from dff.rendering.sheets import contact_sheet
from dff.rendering.trees import TreeNode, concept_tree

__all__ = [
    "BarColumn",
    "Legend",
    "LegendEntry",
    "Line",
    "TreeNode",
    "colors",
    "concept_tree",
    "contact_sheet",
    "crop_around",
    "curves",
    "film",
    "fit",
    "heatmap_overlay",
    "legend",
    "number_concepts",
    "overlay",
    "paled",
    "panel",
]
