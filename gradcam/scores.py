"""From a model's output to the numbers that maps explain: one for each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dff.activations.layouts import main_tensor
from dff.activations.outputs import read_scores
from dff.activations.outputs.boxes import box_scores
from dff.errors import UsageError
from dff.labels import class_index

__all__ = ["Target", "Targets", "class_scores", "items_of", "resolve", "score"]

Target = int | str | Callable[[Any], Tensor]
"""A class by index or by name, or a callable from the output for one image to one number."""

Targets = Sequence[Target] | Tensor | np.ndarray | Target | None


def class_scores(model: nn.Module, output: Any, count: int) -> Tensor:
    """Return the scores (count, classes) of `count` images.

    Of a segmentation they are means over its positions, of a detector those of the best boxes.
    """
    if isinstance(output, Tensor) and output.dim() == 1:
        return output.reshape(count, -1)  # one score an image, or the scores of one image
    return read_scores(output, box_scores(model, output))


def items_of(output: Any, count: int) -> list[Any]:
    """Return the output for each of `count` images, as targets take them."""
    if isinstance(output, Tensor):
        return list(output if output.dim() > 1 or count > 1 else output.reshape(1, -1))
    if isinstance(output, (list, tuple)) and output and isinstance(output[0], Mapping):
        return list(output)
    logits = output.get("logits") if isinstance(output, Mapping) else None
    return list(main_tensor(output) if logits is None else logits)


def resolve(
    targets: Targets, scores: Callable[[], Tensor], count: int, names: Sequence[str] | None
) -> list[int | Callable[[Any], Tensor]]:
    """Return one target for each of `count` images, classes by their index.

    Args:
        targets: one for each image, or one for all; None is each image's most likely class.
        scores: the scores (count, classes) of the images, asked for where classes are given.
        count: how many images there are.
        names: of the classes, for targets by name.

    Raises:
        UsageError: more or fewer targets than images, or a class that the model does not have.
    """
    if targets is None:
        return [int(index) for index in scores().argmax(1)]
    if isinstance(targets, (Tensor, np.ndarray)):
        targets = targets.tolist()
    if callable(targets) or isinstance(targets, (int, str, np.integer)):
        targets = [targets] * count
    wanted = list(targets)
    if len(wanted) != count:
        raise UsageError(f"expected one target for each of {count} images, got {len(wanted)}")
    return [
        target if callable(target) else class_index(target, names, scores().shape[1])
        for target in wanted
    ]


def score(
    model: nn.Module, output: Any, targets: Sequence[int | Callable[[Any], Tensor]]
) -> Tensor:
    """Return the number (n,) that each of n images has for its target.

    Raises:
        UsageError: a target returns more than one number.
    """
    by_class = any(not callable(target) for target in targets)
    classes = class_scores(model, output, len(targets)) if by_class else None
    items = items_of(output, len(targets)) if any(map(callable, targets)) else [None] * len(targets)
    found = []
    for i, (item, target) in enumerate(zip(items, targets, strict=True)):
        if not callable(target):
            assert classes is not None
            found.append(classes[i, target])
            continue
        value = torch.as_tensor(target(item))
        if value.numel() != 1:
            raise UsageError(
                f"a target returns one number, but {type(target).__name__} returned "
                f"{tuple(value.shape)}; choose one of them, or add them up"
            )
        found.append(value.reshape(()))
    return torch.stack(found)
