"""The one home of presence, upsampling, edges, thresholds, masks and boxes.

A map is an array whose last two axes are rows and columns; a heatmap is one in [0, 1].

- :class:`Grid`, :func:`upsample`: where the cells of a map lie in the model's input, and grid
  cells to pixels, exactly where the cells look.
- :func:`presence`: coefficients to heatmaps that compare across images; :func:`rescale`: a map to
  its own full range, for display.
- :func:`otsu`, :func:`binarize`, :func:`near_peak`: thresholds.
- :func:`refine`: a map fitted to the edges of its picture.
- :func:`concept_masks`, :func:`box_of`: masks and boxes; :mod:`dff.maps.masks` those of datasets,
  at the photos' own pixels without drawing them (:mod:`dff.maps.runs`), :mod:`dff.maps.rle` as
  COCO writes them.
- :func:`fitted`, :func:`within`: pictures and drawn maps at another size.
"""

from __future__ import annotations

from dff.maps.edges import refine
from dff.maps.grid import Grid, upsample
from dff.maps.masks import box_of, concept_masks
from dff.maps.presence import presence, rescale
from dff.maps.sizes import fitted, within
from dff.maps.thresholds import binarize, near_peak, otsu

__all__ = [
    "Grid", "binarize", "box_of", "concept_masks", "fitted", "near_peak", "otsu", "presence",
    "refine", "rescale", "upsample", "within",
]  # fmt: skip
