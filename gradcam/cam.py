"""Grad-CAM (Selvaraju et al., ICCV 2017, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from dff.activations import LayoutLike, intercept, resolve_layer
from dff.activations.borrowing import plainly
from dff.activations.layouts import main_tensor
from dff.activations.reach import no_gradients
from dff.errors import ModelError, UsageError
from dff.labels import class_index
from dff.maps import rescale, upsample

__all__ = ["GradCAM", "Target", "grad_cam"]

Target = int | str | Callable[[Tensor], Tensor]


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weigh the channels by their mean gradient, add them up, keep what speaks for the class.

    Args:
        activations: (batch, channels, rows, cols) of the target layer.
        gradients: the same shape, of the class score.

    Returns:
        (batch, rows, cols), non-negative, not normalised.
    """
    weights = gradients.mean((2, 3))
    return (weights[:, :, None, None] * activations).sum(1).relu()  # exact under autocast, too


class GradCAM:
    """Grad-CAM maps of a model.

    ``GradCAM(model, target_layers)(input_tensor, targets)`` equals pytorch-grad-cam's map. The
    forward pass records nothing before the target layer, so the cost beyond it is that of the
    layers after. Nothing stays registered on the model between calls; using it as a context
    manager is possible and makes no difference.

    Args:
        model: a classifier; run in evaluation mode and given back in its own.
        target_layers: layers by module or dotted name; their maps are averaged.
        reshape_transform: how to read the layers' output as maps (batch, channels, rows, cols):
            None recognises it; or a callable, or a :class:`dff.activations.layouts.Layout`.
        class_names: names of the logits, for targets given by name.

    Raises:
        LayerError: a layer is not the model's.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module | str] | nn.Module | str,
        reshape_transform: LayoutLike = None,
        *,
        class_names: Sequence[str] | None = None,
    ) -> None:
        # A Sequential is a layer although one can iterate over it.
        single = isinstance(target_layers, (nn.Module, str))
        layers = [target_layers] if single else list(target_layers)  # type: ignore[arg-type]
        if not layers:
            raise UsageError("target_layers is empty; name at least one layer")
        self.model = model
        self.target_layers = [resolve_layer(model, layer)[0] for layer in layers]  # type: ignore[arg-type]
        self.reshape_transform = reshape_transform
        self.class_names = class_names

    def __call__(
        self, input_tensor: Tensor, targets: Sequence[Target] | Target | None = None
    ) -> np.ndarray:
        """Return the maps of a batch.

        Args:
            input_tensor: (batch, 3, height, width), normalised as the model expects.
            targets: one for each image: a class index, a class name, or a callable from the
                output of one image to a scalar; a single one serves the whole batch; None is
                each image's most likely class.

        Returns:
            float32 (batch, height, width), each map in [0, 1] by its own range.

        Raises:
            UsageError: targets that do not fit the batch or the model's classes.
            LayerError: a layer that does not run or has no grid.
        """
        maps, gradients = plainly(lambda: self._pass(input_tensor, targets))
        size = (int(input_tensor.shape[-2]), int(input_tensor.shape[-1]))
        total = torch.zeros(len(input_tensor), *size)
        for activations, gradient in zip(maps, gradients, strict=True):
            if gradient is not None:
                low = grad_cam(activations.detach(), gradient).float().cpu()
                total += upsample(rescale(low), size)
        return rescale(total / len(maps)).numpy()

    def _pass(
        self, input_tensor: Tensor, targets: Sequence[Target] | Target | None
    ) -> tuple[list[Tensor], tuple[Tensor | None, ...]]:
        """Return the activations of each layer, and the gradients of the score to them."""
        if reason := no_gradients(self.model):
            raise ModelError(reason)
        maps: list[Tensor] = []
        output = intercept(
            self.model,
            self.target_layers,
            maps.append,
            input_tensor,
            grad=True,
            layout=self.reshape_transform,
        )
        score = self._score(main_tensor(output), targets)
        if not score.requires_grad:
            raise ModelError(
                "the score does not depend on the target layer: no gradient reaches it"
            )
        return maps, torch.autograd.grad(score, maps, allow_unused=True)

    def _score(self, logits: Tensor, targets: Sequence[Target] | Target | None) -> Tensor:
        """Return the sum over the batch of each image's target score."""
        count = len(logits)
        if targets is None:
            wanted: Sequence[Target] = logits.argmax(-1).tolist()
        elif callable(targets) or isinstance(targets, (int, str, np.integer)):
            wanted = [targets] * count
        else:
            wanted = list(targets)
        if len(wanted) != count:
            raise UsageError(f"expected one target for each of {count} images, got {len(wanted)}")
        scores = [self._one(logits[i], target) for i, target in enumerate(wanted)]
        return torch.stack(scores).sum()

    def _one(self, output: Tensor, target: Target) -> Tensor:
        if callable(target):
            return target(output)
        return output[class_index(target, self.class_names, output.shape[-1])]

    def __enter__(self) -> GradCAM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None
