"""Captum's call: raw Grad-CAM of any layer, without asking where its cells lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dff.activations import record
from dff.activations.borrowing import plainly
from dff.activations.layouts import tensors_of
from dff.activations.reach import no_gradients
from dff.errors import ModelError, UsageError

__all__ = ["LayerGradCam"]

ClassTarget = int | Sequence[int] | Sequence[Sequence[int]] | Tensor | None
"""Of each image the class, or the place in an output of more axes; one for all or one each."""


class LayerGradCam:
    """Channels weighted by their mean gradient, as ``captum.attr.LayerGradCam`` gives them.

    Selvaraju et al., ICCV 2017, equations 1 and 2, without the ReLU unless asked for. Gradients are
    recorded from the layer on only. The model runs in evaluation mode and is given back in its own.

    Args:
        forward_func: the model, or any callable that runs the layer once.
        layer: a module.
        device_ids: Captum's argument; the model runs on its own device.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        device_ids: Sequence[int] | None = None,
    ) -> None:
        if isinstance(forward_func, nn.DataParallel):
            forward_func = forward_func.module
        self.forward_func = forward_func
        self.layer = layer

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: ClassTarget = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the attributions of the layer's output, or of its input.

        Args:
            inputs: what the model takes, each (n, ...).
            target: a class for all images, or one each; tuples for outputs of more axes; None for
                outputs of one number an image.
            additional_forward_args: what the model takes after the inputs; a tuple, or one thing.
            attribute_to_layer_input: look at what the layer takes in, in place of its output.
            relu_attributions: keep what speaks for the target only.
            attr_dim_summation: add the channels up: (n, 1, *grid) in place of (n, channels, *grid).

        Returns:
            Of each tensor (n, channels, *grid) of the layer, its attributions without a graph; a
            tuple where the layer has several.

        Raises:
            UsageError: a target that does not fit the output.
            ModelError: no gradient reaches the layer.
            LayerError: the layer is not the model's, or does not run once.
        """
        extra = additional_forward_args
        arguments = (
            *(inputs if isinstance(inputs, tuple) else (inputs,)),
            *(extra if isinstance(extra, tuple) else () if extra is None else (extra,)),
        )
        kept, gradients = plainly(lambda: self._pass(arguments, target, attribute_to_layer_input))
        found = []
        for activations, gradient in zip(kept, gradients, strict=True):
            weights = gradient.flatten(2).mean(2) if gradient.dim() > 2 else gradient
            scaled = weights.reshape(*weights.shape, *[1] * (gradient.dim() - 2)) * activations
            total = scaled.sum(1, keepdim=True) if attr_dim_summation else scaled
            found.append(total.relu() if relu_attributions else total)
        return found[0] if len(found) == 1 else tuple(found)

    def _pass(
        self, arguments: tuple[Any, ...], target: ClassTarget, at_input: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the layer's tensors, and the gradients of the targets' scores to them."""
        func = self.forward_func
        model = func if isinstance(func, nn.Module) else self.layer
        if reason := no_gradients(model):
            raise ModelError(reason)
        output, (kept,) = record(
            model, [self.layer], arguments, taken_in=at_input, run=lambda: func(*arguments)
        )
        score = _chosen(output, target).sum()
        tensors = tensors_of(kept)
        if not score.requires_grad:
            raise ModelError("the score does not depend on the layer: no gradient reaches it")
        found = torch.autograd.grad(score, tensors, allow_unused=True)
        gradients = [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, found, strict=True)
        ]
        return [tensor.detach() for tensor in tensors], gradients

    @staticmethod
    def interpolate(
        layer_attribution: Tensor,
        interpolate_dims: int | tuple[int, ...],
        interpolate_mode: str = "nearest",
    ) -> Tensor:
        """Return attributions (n, channels, *grid) at another size, as Captum's call does."""
        return functional.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)


def _chosen(output: Tensor, target: ClassTarget) -> Tensor:
    """Return the target's number of each image (n,)."""
    count = len(output)
    if target is None:
        if output.numel() != count:
            raise UsageError(
                f"the output is {tuple(output.shape)}: a target says which of its numbers is meant"
            )
        return output.reshape(count)
    wanted = target.tolist() if isinstance(target, Tensor) else target
    one_for_all = isinstance(wanted, (int, tuple))
    places = [wanted] * count if one_for_all else list(wanted)  # type: ignore[arg-type]
    if len(places) == 1 and not one_for_all:
        places = places * count
    if len(places) != count:
        raise UsageError(f"expected one target for each of {count} images, got {len(places)}")
    try:
        picked = [
            output[(i, *(place if isinstance(place, (tuple, list)) else (place,)))]
            for i, place in enumerate(places)
        ]
    except IndexError as error:
        raise UsageError(
            f"a target is outside the output, of shape {tuple(output.shape)}: {error}"
        ) from error
    if picked[0].dim():
        raise UsageError(
            f"the output is {tuple(output.shape)}: a target has a number for each axis but the "
            f"first, {output.dim() - 1}"
        )
    return torch.stack(picked)
