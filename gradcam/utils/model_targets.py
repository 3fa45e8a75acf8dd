"""What a map explains: callables from a model's output for one image to one number.

The output for one image is (classes,) of a classifier, (classes, height, width) of a segmentation,
a dict of boxes, labels and scores of torchvision's detectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "BinaryClassifierOutputTarget",
    "ClassifierOutputReST",
    "ClassifierOutputSoftmaxTarget",
    "ClassifierOutputTarget",
    "FasterRCNNBoxScoreTarget",
    "FinerWeightedTarget",
    "RawScoresOutputTarget",
    "SemanticSegmentationTarget",
    "SoftmaxOutputTarget",
]


class ClassifierOutputTarget:
    """The logit of a class."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output[..., self.category]


class ClassifierOutputSoftmaxTarget:
    """The probability of a class, by softmax."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output.softmax(-1)[..., self.category]


class ClassifierOutputReST:
    """The logit and the log-probability of a class, added (Cai 2025, "ReST")."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        return (model_output + model_output.log_softmax(-1))[..., self.category]


class BinaryClassifierOutputTarget:
    """The one logit of a model that says yes or no: as it is for class 1, its negative for 0."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output if self.category == 1 else -model_output


class SoftmaxOutputTarget:
    """All probabilities, by softmax: for metrics; a map explains one number."""

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output.softmax(-1)


class RawScoresOutputTarget:
    """The output as it is: for metrics; a map explains one number."""

    def __call__(self, model_output: Tensor) -> Tensor:
        return model_output


class SemanticSegmentationTarget:
    """The scores of a class, added over the pixels of a mask.

    Args:
        category: index of the class.
        mask: (height, width) as the model's output, 1 for the pixels that count.
    """

    def __init__(self, category: int, mask: np.ndarray | Tensor) -> None:
        self.category = category
        self.mask = torch.as_tensor(mask)

    def __call__(self, model_output: Tensor) -> Tensor:
        return (model_output[self.category] * self.mask.to(model_output)).sum()


class FasterRCNNBoxScoreTarget:
    """How surely and how exactly a detector finds boxes again.

    Of each box the best match is found; where it has the label and their intersection over union
    exceeds the threshold, its score and this overlap are added.

    Args:
        labels: one for each box.
        bounding_boxes: (boxes, 4) as the model gives them.
        iou_threshold: in [0, 1].
    """

    def __init__(
        self,
        labels: Sequence[int],
        bounding_boxes: np.ndarray | Tensor | Sequence[Sequence[float]],
        iou_threshold: float = 0.5,
    ) -> None:
        self.labels = labels
        self.bounding_boxes = torch.as_tensor(np.asarray(bounding_boxes), dtype=torch.float32)
        self.iou_threshold = iou_threshold

    def __call__(self, model_outputs: Mapping[str, Tensor]) -> Tensor:
        from torchvision.ops import box_iou  # slow to import, and for detectors only

        boxes, scores = model_outputs["boxes"], model_outputs["scores"]
        total = scores.new_zeros(1)
        if len(boxes) == 0:
            return total
        best, match = box_iou(self.bounding_boxes.to(boxes), boxes).max(1)
        for overlap, i, label in zip(best, match, self.labels, strict=True):
            if overlap > self.iou_threshold and int(model_outputs["labels"][i]) == int(label):
                total = total + overlap + scores[i]
        return total


class FinerWeightedTarget:
    """How much more a class scores than others, each by its probability (Zhang et al., 2025).

    Args:
        main_category: the class.
        comparison_categories: the classes that it is told apart from.
        alpha: how much of their scores is taken off.
    """

    def __init__(
        self, main_category: int, comparison_categories: Sequence[int], alpha: float
    ) -> None:
        self.main_category = main_category
        self.comparison_categories = comparison_categories
        self.alpha = alpha

    def __call__(self, model_output: Tensor) -> Tensor:
        others = list(self.comparison_categories)
        weights = model_output.softmax(-1)[..., others]
        main = model_output[..., self.main_category, None]
        differences = main - self.alpha * model_output[..., others]
        return (weights * differences).sum(-1) / (weights.sum(-1) + 1e-9)
