"""Maps on trial: images, a map and a class for each, and the model that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError
from dff.metrics.curves import SOFTMAX, Forward, probability

__all__ = ["Maps", "Targets", "Trial", "as_masks", "checked_maps"]

Maps = np.ndarray | Tensor
Targets = Sequence[int] | Tensor


class Trial:
    """What every metric of maps is given.

    Args:
        forward: the model, from images (m, channels, height, width) to logits (m, classes). It is
            called without gradients, and as it is: hand it over in evaluation mode.
        inputs: (n, channels, height, width), normalised: 0 is grey.
        maps: (n, height, width) of any range, numpy or torch.
        targets: (n,) the class that each map explains.
        probabilities: of logits; ``lambda logits: logits`` measures in logits.
        batch: most images that the model is asked about at a time.

    Raises:
        UsageError: not a map and a class for each image; maps of NaN or infinite values.
    """

    def __init__(
        self,
        forward: Forward,
        inputs: Tensor,
        maps: Maps,
        targets: Targets,
        *,
        probabilities: Forward = SOFTMAX,
        batch: int = 32,
    ) -> None:
        if inputs.dim() != 4:
            raise UsageError(
                f"expected images (n, channels, height, width), got {tuple(inputs.shape)}"
            )
        self.forward, self.inputs = forward, inputs.detach()
        self.maps = checked_maps(maps, inputs)
        self.targets = [int(target) for target in targets]
        if len(self.targets) != len(inputs):
            raise UsageError(
                f"expected a class for each of {len(inputs)} images, got {len(self.targets)}"
            )
        self.probabilities, self.batch = probabilities, batch

    @cached_property
    def before(self) -> np.ndarray:
        """(n,) float64: the probability of each image's class."""
        return self.confidence(self.inputs, self.targets)

    @cached_property
    def masked(self) -> np.ndarray:
        """(n,) float64: the same of each image times its map (:func:`as_masks`)."""
        return self.confidence(self.masked_images, self.targets)

    @property
    def masks(self) -> np.ndarray:
        """(n, height, width): the maps as masks."""
        return as_masks(self.maps)

    @property
    def masked_images(self) -> Tensor:
        """(n, channels, height, width): each image times its map, grey where that is 0."""
        return self.inputs * torch.from_numpy(self.masks)[:, None].to(self.inputs)

    @torch.no_grad()
    def confidence(self, images: Tensor, targets: Sequence[int]) -> np.ndarray:
        """Return the probability (m,) float64 of a class for each of m images.

        Raises:
            UsageError: the model has no such class.
        """
        found = []
        for first in range(0, len(images), self.batch):
            logits = self.forward(images[first : first + self.batch])
            wanted = targets[first : first + self.batch]
            found += [
                probability(one[None], target, self.probabilities)
                for one, target in zip(logits, wanted, strict=True)
            ]
        return np.concatenate(found)


def checked_maps(maps: Maps, inputs: Tensor) -> np.ndarray:
    """Return maps as numpy float32 (n, height, width), as large as the inputs.

    Raises:
        UsageError: not one for each image and of its size, or not finite.
    """
    array = maps.detach().float().cpu().numpy() if isinstance(maps, Tensor) else np.asarray(maps)
    size = tuple(inputs.shape[2:])
    if array.shape != (len(inputs), *size):
        raise UsageError(
            f"expected a map {size} for each of {len(inputs)} images, got {array.shape}"
        )
    array = array.astype(np.float32)
    for index, one in enumerate(array):
        if not np.isfinite(one).all():
            raise UsageError(f"map {index} holds NaN or infinite values: it cannot be measured")
    return array


def as_masks(maps: np.ndarray) -> np.ndarray:
    """Return maps (n, height, width) as masks in [0, 1]: the positive part over its maximum.

    What speaks against a class is masked out as what says nothing. A map without a positive value
    becomes 0 everywhere, a constant positive one 1.
    """
    positive = np.maximum(maps, 0)
    most = positive.max((1, 2), keepdims=True)
    return np.divide(positive, most, out=np.zeros_like(positive), where=most > 0)
