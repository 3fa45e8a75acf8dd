"""Scores of heads that are no classifier's: of a region, of a box, of a regression.

Each is a ``score=`` for :class:`dff.Explainer` and :class:`dff.Tail`: a callable from a model's
output for n images to scores (n, classes). Its ``kind`` says what they are
(:data:`dff.activations.outputs.KINDS`). Texts are classes by
:class:`dff.models.ImageTextSimilarity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dff.activations.layouts import main_tensor
from dff.activations.outputs.boxes import QUERIED, class_count, has_empty
from dff.errors import ModelError, UsageError

__all__ = ["BoxScore", "RegressionScore", "SegmentationScore", "logits_of"]


class SegmentationScore:
    """Of a segmentation, each class's logit, averaged over a region.

    With the classes' own masks it is what Seg-Grad-CAM explains (Vinogradova et al. 2020).

    Args:
        region: (height, width) of all classes, or (classes, height, width) one each, of any size:
            the weights of pixels, such as a mask.

    Raises:
        UsageError: another shape, or an empty region.
    """

    kind = "logits"

    def __init__(self, region: Tensor) -> None:
        weights = torch.as_tensor(region).float()
        if weights.dim() not in (2, 3) or not bool((weights.flatten(-2).sum(-1) > 0).all()):
            raise UsageError(
                "a region is (height, width) or (classes, height, width) with something in it, "
                f"not {tuple(weights.shape)} with {int((weights != 0).sum())} pixels"
            )
        self.region = weights if weights.dim() == 3 else weights[None]

    @classmethod
    def of(cls, output: Any) -> SegmentationScore:
        """Return the score over the classes' own masks, as the output for one image has them.

        A class that is nowhere is averaged over the whole image.
        """
        logits = logits_of(output).detach()
        if logits.dim() != 4 or len(logits) != 1:
            raise UsageError(
                f"expected a segmentation (1, classes, height, width), got {tuple(logits.shape)}"
            )
        best = functional.one_hot(logits[0].argmax(0), logits.shape[1]).movedim(-1, 0).float()
        nowhere = best.sum((1, 2), keepdim=True) == 0
        return cls(torch.where(nowhere, 1.0, best))

    def __call__(self, output: Any) -> Tensor:
        logits = logits_of(output)
        region = functional.interpolate(self.region[None].to(logits), logits.shape[2:], mode="area")
        return (logits * region).sum((2, 3)) / region.sum((2, 3)).clamp_min(1e-12)


class BoxScore:
    """Of a detector, each class's score for one box: how surely and how exactly it is found.

    That is the highest product of a found box's probability and its overlap (intersection over
    union) with the one given; 0 where none overlaps enough.

    Args:
        box: (x0, y0, x1, y1) in pixels of the model's input.
        model: the detector: one of torchvision, or one whose queries have ``pred_boxes`` (DETR and
            its kin of Hugging Face).
        size: (height, width) of the input, for boxes that are shares of it, as queries' are.
        least: the overlap that is enough, in [0, 1].

    Raises:
        UsageError: no box, or no overlap.
        ModelError: the model's number of classes is not known.
    """

    kind = "boxes"

    def __init__(
        self,
        box: Sequence[float],
        model: nn.Module,
        *,
        size: tuple[int, int] | None = None,
        least: float = 0.5,
    ) -> None:
        self.box = torch.as_tensor(box, dtype=torch.float32)
        if self.box.shape != (4,) or not bool((self.box[2:] > self.box[:2]).all()):
            raise UsageError(f"a box is (x0, y0, x1, y1) with x0 < x1 and y0 < y1, not {box}")
        if not 0 <= least <= 1:
            raise UsageError(f"least is an overlap in [0, 1], not {least}")
        self.model, self.size, self.least = model, size, least

    def __call__(self, output: Any) -> Tensor:
        if isinstance(output, Mapping):
            return self._of_queries(output)
        count = class_count(self.model)
        if count is None:
            raise ModelError(f"a {type(self.model).__name__} does not say how many classes it has")
        rows = []
        for found in output:
            sure = found["scores"] * self._overlap(found["boxes"])
            none = sure.new_zeros(count)
            rows.append(none.scatter_reduce(0, found["labels"], sure, "amax"))
        return torch.stack(rows)

    def _of_queries(self, output: Any) -> Tensor:
        if self.size is None:
            raise UsageError("the boxes of queries are shares of the input: give size=(h, w)")
        name = next(name for name, _ in QUERIED if name in output)
        logits = output[name].float()
        sure = logits.softmax(-1)[..., :-1] if has_empty(self.model, logits) else logits.sigmoid()
        middle, sides = output["pred_boxes"].split(2, -1)
        corners = torch.cat([middle - sides / 2, middle + sides / 2], -1)
        height, width = self.size
        overlap = self._overlap(corners * corners.new_tensor([width, height, width, height]))
        return (sure * overlap[..., None]).amax(1)

    def _overlap(self, boxes: Tensor) -> Tensor:
        """Return the overlap of boxes (..., 4) with the one given, 0 where it is not enough."""
        box = self.box.to(boxes)
        sides = torch.minimum(boxes[..., 2:], box[2:]) - torch.maximum(boxes[..., :2], box[:2])
        shared = sides.clamp_min(0).prod(-1)
        total = (boxes[..., 2:] - boxes[..., :2]).prod(-1) + (box[2:] - box[:2]).prod() - shared
        overlap = shared / total.clamp_min(1e-12)
        return torch.where(overlap >= self.least, overlap, 0.0)


class RegressionScore:
    """Of a regression, its numbers as they are, (n, numbers)."""

    kind = "values"

    def __call__(self, output: Any) -> Tensor:
        values = logits_of(output)
        return values.reshape(len(values), -1)


def logits_of(output: Any) -> Tensor:
    """Return what an output calls its logits, else its main tensor, of any number of axes."""
    if isinstance(output, Tensor) and output.is_floating_point():
        return output
    is_mapping = isinstance(output, Mapping)
    named = output.get("logits") if is_mapping else getattr(output, "logits", None)
    found = named if isinstance(named, Tensor) else main_tensor(output)
    return found.dequantize() if found.is_quantized else found
