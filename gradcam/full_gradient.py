"""FullGrad: what the input and every bias give to the score, at all layers together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dff.activations.layouts import main_tensor
from dff.errors import ModelError
from dff.maps import upsample
from gradcam.cam import BaseCAM, ResolvedTargets, stretched
from gradcam.recording import Layer, Recording
from gradcam.rules import first_component

__all__ = ["FullGrad"]

EIGEN = 8
"""How many times smaller maps are whose principal component is taken."""


class FullGrad(BaseCAM):
    """Input times gradient and bias times gradient, of all convolutions and BatchNorms.

    Srinivas & Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS
    2019, section 4: |gradient · input| and, of each layer with biases, |gradient · bias|, scaled to
    [0, 1] and upsampled, added up. The gradients are of the whole model: there is no target layer.

    Args:
        model, target_layers, reshape_transform, options: see :class:`~gradcam.cam.BaseCAM`;
            target_layers, reshape_transform and grid are not looked at.

    Raises:
        ModelError: the model has no Conv2d and no BatchNorm2d with a bias.
    """

    shares_pass = False

    def __init__(
        self,
        model: nn.Module,
        target_layers: object = None,
        reshape_transform: object = None,
        **options: Any,
    ) -> None:
        inner = model.module if isinstance(model, nn.DataParallel) else model
        names = [name for name, module in inner.named_modules() if _bias(module) is not None]
        if not names:
            raise ModelError(
                f"FullGrad adds up what biases give, and {type(inner).__name__} has no Conv2d "
                "and no BatchNorm2d with a bias: GradCAM, HiResCAM and LayerCAM need none"
            )
        super().__init__(inner, names, main_tensor, **options)

    def record(self, input_tensor: Tensor, *, whole: bool = True) -> Recording:
        return super().record(input_tensor, whole=whole)

    def maps_of(
        self, recording: Recording, layers: Sequence[Layer], targets: ResolvedTargets, smooth: bool
    ) -> np.ndarray:
        size = (int(recording.x.shape[-2]), int(recording.x.shape[-1]))
        with torch.no_grad():
            image, *biased = layers
            assert image.gradients is not None
            parts = [stretched((image.gradients * image.activations).abs(), 2)]
            for layer in biased:
                bias = _bias(self.model.get_submodule(layer.name))
                assert bias is not None
                assert layer.gradients is not None
                given = (bias[:, None, None] * layer.gradients).abs()
                # The sum over channels is upsampled, which is the sum of channels upsampled.
                parts.append(upsample(stretched(given, 2).sum(1, keepdim=True), size))
            maps = torch.cat([part.cpu() for part in parts], 1)
            return self._scaled(_principal(maps, size) if smooth else maps.sum(1)).numpy()


def _principal(maps: Tensor, size: tuple[int, int]) -> Tensor:
    small = (max(1, size[0] // EIGEN), max(1, size[1] // EIGEN))
    projected = first_component(upsample(stretched(maps, 2), small))
    return upsample(stretched(projected)[:, None], size)[:, 0]


def _bias(module: nn.Module) -> Tensor | None:
    """Return what a layer adds to each of its channels (channels,); None if nothing."""
    if type(module) is nn.Conv2d and module.bias is not None:
        return module.bias.detach()
    if type(module) is nn.BatchNorm2d and module.bias is not None:
        mean, variance = module.running_mean, module.running_var
        if mean is None or variance is None:
            return module.bias.detach()
        scale = module.weight.detach() / torch.sqrt(variance + module.eps)
        return module.bias.detach() - mean * scale
    return None
