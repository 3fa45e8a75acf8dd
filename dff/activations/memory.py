"""How tensors lie in memory: as those that a model would have met by itself.

``x.view(-1, 16 * 5 * 5)`` and its like ask for one order of the axes, int8 layers for int8. A
tensor that is handed to a model in place of its own so is stored as the one it stands for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["input_format", "stored_like"]


def input_format(model: nn.Module) -> torch.memory_format:
    """Return the memory format of images for a model: channels-last only if its kernels are so."""
    for weight in model.parameters():
        last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
        if last and not weight.is_contiguous():
            return torch.channels_last
    return torch.contiguous_format


def stored_like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return `tensor` with its axes in memory in the order of `model`'s, of as many axes.

    It is copied only where it lies otherwise, or shares memory between its items. Where `model`
    is quantised, it is so, too, on the same scale.
    """
    if model.is_quantized:
        scale, zero = model.q_scale(), model.q_zero_point()
        stored = stored_like(tensor.detach(), model.dequantize())
        return torch.quantize_per_tensor(stored, scale, zero, model.dtype)
    if model.is_contiguous() or model.dim() != tensor.dim():
        return tensor.contiguous()
    sizes, strides = model.shape, model.stride()  # the stride of an axis of one means nothing
    order = sorted(range(model.dim()), key=lambda axis: (sizes[axis] > 1, -strides[axis]))
    places = sorted(range(model.dim()), key=order.__getitem__)
    return tensor.permute(order).contiguous().permute(places)
