"""Guided backpropagation: the gradient of a score to the image, without what speaks against it.

Springenberg et al., "Striving for Simplicity", ICLR workshop 2015, section 3.4: at every ReLU the
gradient passes where both the input and the gradient are positive.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dff.activations.borrowing import borrowed, plainly
from dff.activations.failures import model_errors
from dff.activations.reach import no_gradients
from dff.errors import ModelError, UsageError
from gradcam.scores import class_scores, resolve, score

__all__ = ["GuidedBackpropReLUModel"]

RELU = (
    functional.relu, functional.relu_, torch.relu, torch.relu_, torch.Tensor.relu,
    torch.Tensor.relu_,
)  # fmt: skip


class GuidedBackpropReLUModel:
    """Guided backpropagation of a model whose nonlinearities are ReLUs.

    Args:
        model: run in evaluation mode and given back in its own; nothing of it is exchanged.
        device: pytorch-grad-cam's argument; the model runs on its own device.
    """

    def __init__(self, model: nn.Module, device: object = None) -> None:
        self.model = model.module if isinstance(model, nn.DataParallel) else model

    def __call__(self, input_img: Tensor, target_category: int | None = None) -> np.ndarray:
        """Return the guided gradient of a class, float32 (height, width, channels), signed.

        Args:
            input_img: (1, channels, height, width).
            target_category: index of the class; None is the most likely one.

        Raises:
            UsageError: more than one image, or a class that the model does not have.
            ModelError: the model failed, or no gradient passes.
        """
        if len(input_img) != 1:
            raise UsageError(f"guided backpropagation takes one image, not {len(input_img)}")
        if reason := no_gradients(self.model):
            raise ModelError(reason)
        return plainly(lambda: self._gradient(input_img, target_category))

    def _gradient(self, input_img: Tensor, target: int | None) -> np.ndarray:
        weight = next(self.model.parameters(), None)
        x = input_img if weight is None else input_img.to(weight.device)
        leaf = x.detach().clone().requires_grad_()

        def run() -> Any:
            with _GuidedReLUs():
                return self.model(leaf)

        with model_errors(self.model, x):
            output = borrowed(self.model, run, grad=True)
        wanted = resolve(target, lambda: class_scores(self.model, output, 1).detach(), 1, None)
        (gradient,) = torch.autograd.grad(score(self.model, output, wanted).sum(), leaf)
        return gradient[0].permute(1, 2, 0).float().cpu().numpy()


class _GuidedReLUs(TorchFunctionMode):
    """Lets every ReLU pass what is positive of a gradient only."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RELU:
            return _Guided.apply(args[0] if args else kwargs["input"])
        return func(*args, **(kwargs or {}))


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient.clamp_min(0) * (x > 0)
