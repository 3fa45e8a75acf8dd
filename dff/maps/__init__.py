"""The one home of presence, upsampling, edges, thresholds, masks and boxes.

A map is an array whose last two axes are rows and columns; a heatmap is one in [0, 1].

- :class:`Grid`, :func:`upsample`: where the cells of a map lie in the model's input, and grid
  cells to pixels, exactly where the cells look.
- :func:`full_presence`, :func:`presence`: coefficients to heatmaps that compare across images;
  :func:`rescale`: a map to
  its own full range, for display.
- :func:`minimum_error`, :func:`otsu`, :func:`binarize`: thresholds.
- :func:`refine`: a map fitted to the edges of its picture; :func:`sharpened`: to be drawn.
- :func:`masks_of`, :class:`MaskOptions`, :func:`box_of`: masks and boxes at a photo's own pixels,
  the same for one photo and for datasets; :mod:`dff.maps.runs` holds them without drawing them,
  :mod:`dff.maps.rle` as COCO writes them.
- :func:`fitted`, :func:`within`: pictures and drawn maps at another size.
"""

from __future__ import annotations

from dff.maps.edges import refine, sharpened
from dff.maps.grid import Grid, upsample
from dff.maps.masks import MaskOptions, box_of, masks_of
from dff.maps.presence import full_presence, presence, rescale
from dff.maps.sizes import fitted, within
from dff.maps.thresholds import binarize, minimum_error, otsu

__all__ = [
    "Grid", "MaskOptions", "binarize", "box_of", "fitted", "full_presence", "masks_of",
    "minimum_error", "otsu", "presence", "refine", "rescale", "sharpened", "upsample", "within",
]  # fmt: skip
