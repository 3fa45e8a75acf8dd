"""How good an explanation is: numbers in, numbers out.

- :mod:`~dff.metrics.parts`: agreement with parts that are known.
- :mod:`~dff.metrics.curves`: deletion and insertion of a map's pixels.
- :mod:`~dff.metrics.removal`: what takes a region's content away from a picture.
"""

from __future__ import annotations

from dff.metrics.curves import Curve, pixel_curve
from dff.metrics.parts import PartAgreement, box_iou, corloc, part_agreement

__all__ = [
    "Curve",
    "PartAgreement",
    "box_iou",
    "corloc",
    "part_agreement",
    "pixel_curve",
]
