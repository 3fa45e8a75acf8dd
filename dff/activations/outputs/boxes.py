"""Detectors: of each class, the score of its best box.

Two outputs are known: torchvision's, for each image a dict of boxes, labels and scores; and that
of DETR and its kin, logits (n, queries, classes) beside the box, or the mask, of each query. What
is read is in [0, 1], and has a gradient to what the box was scored by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dff.errors import ModelError

__all__ = ["QUERIED", "Score", "box_scores", "class_count", "has_empty"]

Score = Callable[[Any], Tensor]
"""From a model's output for n images to scores (n, classes), for models that are no classifiers."""

DETECTED = ("boxes", "labels", "scores")
QUERIED = (("logits", "pred_boxes"), ("class_queries_logits", "masks_queries_logits"))
"""Names of the scores of queries, beside what the queries found."""


def box_scores(model: nn.Module, output: Any) -> Score | None:
    """Return what reads a detector's output; None if it is another model's.

    Raises:
        ModelError: a detector that does not say how many classes it has.
    """
    if isinstance(output, (list, tuple)) and output and all(map(_is_detected, output)):
        if count := class_count(model):
            return partial(best_boxes, classes=count)
        raise ModelError(
            f"a {type(model).__name__} returns boxes, and nothing says of how many classes: give "
            "a score= from its output to scores (images, classes)"
        )
    if isinstance(output, Mapping):
        for name, beside in QUERIED:
            if name in output and beside in output and output[name].dim() == 3:
                return partial(best_queries, name=name, empty=has_empty(model, output[name]))
    return None


def best_boxes(output: Any, *, classes: int) -> Tensor:
    """Return the highest score (n, classes) of each class over the boxes; 0 where it has none."""
    rows = []
    for found in output:
        none = found["scores"].new_zeros(classes)
        rows.append(none.scatter_reduce(0, found["labels"], found["scores"], "amax"))
    return torch.stack(rows)


def best_queries(output: Any, *, name: str, empty: bool) -> Tensor:
    """Return the highest probability (n, classes) of each class over the queries.

    With a last class for queries that found nothing (`empty`), it is the softmax, without that
    class (Carion et al. 2020, section 3.1); else the sigmoid, as where a focal loss trained it.
    """
    logits = output[name].float()
    probabilities = logits.softmax(-1)[..., :-1] if empty else logits.sigmoid()
    return probabilities.amax(1)


def _is_detected(found: Any) -> bool:
    return isinstance(found, Mapping) and all(name in found for name in DETECTED)


def has_empty(model: nn.Module, logits: Tensor) -> bool:
    """Whether the last logit is of queries that found nothing: there is one more than classes."""
    count = getattr(getattr(model, "config", None), "num_labels", None)
    return count is None or int(count) != logits.shape[-1]


def class_count(model: nn.Module) -> int | None:
    """Return the number of a torchvision detector's classes, the background's counted in."""
    for name, module in model.named_modules():
        if name.endswith("cls_score") and isinstance(module, nn.Linear):
            return module.out_features
        count = getattr(module, "num_columns", None) or getattr(module, "num_classes", None)
        if isinstance(count, int):
            return count
    return None
