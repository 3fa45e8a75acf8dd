"""The methods that take their maps from one pass, each by its rule of :mod:`gradcam.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.errors import UsageError, closest
from gradcam import rules
from gradcam.cam import BaseCAM, ResolvedTargets
from gradcam.recording import Layer, Recording
from gradcam.rules import (
    KERNELS,
    first_component,
    first_kernel_component,
    strongest_positive,
)
from gradcam.scores import Targets, class_scores
from gradcam.utils.model_targets import FinerWeightedTarget

__all__ = [
    "FEM",
    "KPCA_CAM",
    "EigenCAM",
    "EigenGradCAM",
    "FinerCAM",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "RandomCAM",
    "SegEigenCAM",
    "ShapleyCAM",
    "XGradCAM",
]


class GradCAM(BaseCAM):
    """Channels weighted by their mean gradient (Selvaraju et al., ICCV 2017, section 3)."""

    def weighted(self, layer: Layer) -> Tensor:
        return rules.mean_gradient(layer.activations, _gradients(layer))


class HiResCAM(BaseCAM):
    """Gradient times activation, cell by cell (Draelos & Carin 2020)."""

    def weighted(self, layer: Layer) -> Tensor:
        return rules.elementwise(layer.activations, _gradients(layer))


class GradCAMElementWise(BaseCAM):
    """Gradient times activation, cell by cell, where positive."""

    def weighted(self, layer: Layer) -> Tensor:
        return rules.elementwise_positive(layer.activations, _gradients(layer))


class GradCAMPlusPlus(BaseCAM):
    """Positive gradients by higher derivatives (Chattopadhay et al., WACV 2018, equation 19)."""

    def weighted(self, layer: Layer) -> Tensor:
        return rules.plus_plus(layer.activations, _gradients(layer))


class XGradCAM(BaseCAM):
    """Gradients weighted by the normalised activations (Fu et al., BMVC 2020, section 3)."""

    def weighted(self, layer: Layer) -> Tensor:
        return rules.normalised(layer.activations, _gradients(layer))


class LayerCAM(BaseCAM):
    """Positive gradients as weights of each location (Jiang et al., TIP 2021, section III)."""

    def weighted(self, layer: Layer) -> Tensor:
        return rules.positive_locations(layer.activations, _gradients(layer))


class ShapleyCAM(BaseCAM):
    """Weights of a second-order expansion of the score (Cai 2025).

    Models whose operations have no second derivative cannot have it: a ModelError says so.
    """

    uses_curvature = True
    shares_pass = False

    def record(self, input_tensor: Tensor, *, whole: bool = False) -> Recording:
        from torch.nn.attention import SDPBackend, sdpa_kernel  # slow to import

        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            return super().record(input_tensor, whole=whole)

    def weighted(self, layer: Layer) -> Tensor:
        return rules.second_order(layer.activations, _gradients(layer), layer.curvature)


class EigenCAM(BaseCAM):
    """The activations' first principal component (Muhammad & Yeasin, IJCNN 2020): of no class."""

    uses_gradients = uses_targets = False

    def weighted(self, layer: Layer) -> Tensor:
        return layer.activations

    def flattened(self, weighted: Tensor, eigen_smooth: bool) -> Tensor:
        return first_component(weighted)


class EigenGradCAM(BaseCAM):
    """The first principal component of gradient times activation."""

    def weighted(self, layer: Layer) -> Tensor:
        return rules.elementwise(layer.activations, _gradients(layer))

    def flattened(self, weighted: Tensor, eigen_smooth: bool) -> Tensor:
        return first_component(weighted)


class SegEigenCAM(BaseCAM):
    """The first principal component of |gradient| times activation, its strongest cell positive.

    Of pytorch-grad-cam, for segmentations ("Seg-Eigen-CAM", 2025).
    """

    def weighted(self, layer: Layer) -> Tensor:
        return _gradients(layer).abs() * layer.activations

    def flattened(self, weighted: Tensor, eigen_smooth: bool) -> Tensor:
        return strongest_positive(first_component(weighted))


class KPCA_CAM(BaseCAM):  # noqa: N801 - pytorch-grad-cam's name
    """The activations' first component by kernel PCA (Karmani et al. 2024): of no class.

    Args:
        kernel: one of :data:`gradcam.rules.KERNELS`.
        gamma: the kernel's scale; None is 1 / channels.
        args, options: see :class:`~gradcam.cam.BaseCAM`.

    Raises:
        UsageError: an unknown kernel.
    """

    uses_gradients = uses_targets = False

    def __init__(
        self, *args: Any, kernel: str = "sigmoid", gamma: float | None = None, **options: Any
    ) -> None:
        if kernel not in KERNELS:
            hint = closest(kernel, KERNELS) or f"; there are {', '.join(KERNELS)}"
            raise UsageError(f"there is no kernel {kernel!r}{hint}")
        super().__init__(*args, **options)
        self.kernel, self.gamma = kernel, gamma

    def weighted(self, layer: Layer) -> Tensor:
        return layer.activations

    def flattened(self, weighted: Tensor, eigen_smooth: bool) -> Tensor:
        return first_kernel_component(weighted, self.kernel, self.gamma)


class FEM(BaseCAM):
    """Where channels are unusually strong (Fuad et al., IPTA 2020): of no class.

    Args:
        k: how many standard deviations above its mean a channel is strong.
        args, options: see :class:`~gradcam.cam.BaseCAM`.
    """

    uses_gradients = uses_targets = False

    def __init__(self, *args: Any, k: float = 2, **options: Any) -> None:
        super().__init__(*args, **options)
        self.k = k

    def weighted(self, layer: Layer) -> Tensor:
        return rules.strong_features(layer.activations, self.k)

    def flattened(self, weighted: Tensor, eigen_smooth: bool) -> Tensor:
        return weighted.sum(1)


class RandomCAM(BaseCAM):
    """Random weights in [-1, 1): what every method has to be better than.

    Args:
        seed: of the weights; the same in every call.
        args, options: see :class:`~gradcam.cam.BaseCAM`.
    """

    uses_gradients = uses_targets = False

    def __init__(self, *args: Any, seed: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seed = seed
        self._random = np.random.RandomState(seed)

    def maps_of(
        self, recording: Recording, layers: Sequence[Layer], targets: ResolvedTargets, smooth: bool
    ) -> np.ndarray:
        self._random.seed(self.seed)
        return super().maps_of(recording, layers, targets, smooth)

    def weighted(self, layer: Layer) -> Tensor:
        A = layer.activations
        weights = self._random.uniform(-1, 1, A.shape[:2])
        return torch.as_tensor(weights).to(A).reshape(*A.shape[:2], *[1] * (A.dim() - 2)) * A


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


def _gradients(layer: Layer) -> Tensor:
    assert layer.gradients is not None
    return layer.gradients
