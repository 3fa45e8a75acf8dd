"""Finer-CAM: what tells a class from those that resemble it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dff.errors import UsageError
from gradcam.cam import BaseCAM, ResolvedTargets
from gradcam.methods import GradCAM
from gradcam.recording import Layer, Recording
from gradcam.scores import Targets, class_scores
from gradcam.utils.model_targets import FinerWeightedTarget

__all__ = ["FinerCAM"]


class FinerCAM(BaseCAM):
    """A method's maps of how much more a class scores than others (Zhang et al., CVPR 2025).

    Targets that are callables are explained as they are.

    Args:
        args, options: see :class:`~gradcam.cam.BaseCAM`.
        base_method: the method whose rule is used; one with gradients.

    Raises:
        UsageError: a base method without gradients.
    """

    def __init__(self, *args: Any, base_method: type[BaseCAM] = GradCAM, **options: Any) -> None:
        if not base_method.uses_gradients:
            raise UsageError(
                f"FinerCAM takes a method with gradients, such as GradCAM: {base_method.__name__} "
                "does not ask which class it explains"
            )
        super().__init__(*args, **options)
        self.base = base_method(*args, **options)
        self.uses_curvature = base_method.uses_curvature  # type: ignore[misc]
        self._asked: tuple[float, Sequence[int]] = (1, (1, 2, 3))

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Targets = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] = (1, 2, 3),
        target_idx: int | str | None = None,
    ) -> np.ndarray:
        """Return the maps of a batch: see :meth:`BaseCAM.__call__`.

        Args:
            input_tensor, targets, aug_smooth, eigen_smooth: as for all methods.
            alpha: how much of the other classes' scores is taken off.
            comparison_categories: which others: 1 is the class whose score is nearest to the
                target's, 2 the next one.
            target_idx: the class of all images, where there are no `targets`.
        """
        self._asked = alpha, comparison_categories
        wanted = target_idx if targets is None else targets
        return super().__call__(input_tensor, wanted, aug_smooth, eigen_smooth)

    def record(self, input_tensor: Tensor, *, whole: bool = False) -> Recording:
        return self.base.record(input_tensor, whole=whole)

    def resolved(self, recording: Recording, targets: Targets) -> ResolvedTargets:
        """Put the difference to the nearest classes in the place of each class."""
        alpha, ranks = self._asked
        wanted = super().resolved(recording, targets)
        scores = class_scores(self.model, recording.output, len(recording.x)).detach()
        known = scores.shape[1]
        if not all(0 < rank < known for rank in ranks):
            raise UsageError(
                f"comparison_categories are from 1 to {known - 1}: the model has {known} classes"
            )
        finer: list[Any] = []
        for row, target in zip(scores, wanted, strict=True):
            if callable(target):
                finer.append(target)
                continue
            nearest = (row - row[target]).abs().argsort(stable=True).tolist()
            nearest.remove(target)
            finer.append(FinerWeightedTarget(target, [nearest[r - 1] for r in ranks], alpha))
        return finer

    def weighted(self, layer: Layer) -> Tensor:
        return self.base.weighted(layer)

    def flattened(self, weighted: Tensor, eigen_smooth: bool) -> Tensor:
        return self.base.flattened(weighted, eigen_smooth)
