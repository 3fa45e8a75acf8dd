"""torchvision's detectors: what they do to images themselves, and which boxes they return."""

from __future__ import annotations

from copy import copy
from typing import Any

from torch import nn

from dff.images import Preprocessing

__all__ = ["detector_preprocessing", "with_all_boxes"]


def detector_preprocessing(module: nn.Module) -> Preprocessing | None:
    """Return the preprocessing of a detector of torchvision; None of another model.

    It normalises and resizes images itself (``GeneralizedRCNNTransform``): it is handed levels in
    [0, 1], at the size that it would resize to.
    """
    transform: Any = getattr(module, "transform", None)
    if not hasattr(transform, "min_size") or not hasattr(transform, "image_mean"):
        return None
    fixed = getattr(transform, "fixed_size", None)
    size = min(fixed) if fixed else transform.min_size[-1]
    return Preprocessing(size=int(size), mean=0.0, std=1.0, fixed=bool(fixed))


def with_all_boxes(module: nn.Module) -> nn.Module:
    """Return a detector of torchvision that returns boxes however small their scores.

    Where a class has no box above the detector's threshold (0.05 for a Faster R-CNN), there would
    be no score, and no gradient. What is returned is another view of the same parts, without the
    threshold: the detector given is not touched, nor is any other model.
    """
    if detector_preprocessing(module) is None:
        return module
    heads: Any = getattr(module, "roi_heads", None)
    if hasattr(heads, "score_thresh"):
        view = copy(module)
        view._modules = {**module._modules, "roi_heads": _without_threshold(heads)}
        return view
    return _without_threshold(module) if hasattr(module, "score_thresh") else module


def _without_threshold(module: Any) -> nn.Module:
    view: Any = copy(module)
    view.score_thresh = 0.0
    return view
