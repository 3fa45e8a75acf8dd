"""How good an explanation is: agreement with parts that are known."""

from __future__ import annotations

from dff.metrics.parts import PartAgreement, box_iou, corloc, part_agreement

__all__ = ["PartAgreement", "box_iou", "corloc", "part_agreement"]
