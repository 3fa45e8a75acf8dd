"""Where a layer's cells are centred, by the strides, kernels and paddings that led to them.

The graph that autograd has recorded holds them all, also those of functional calls and of paddings
that depend on the input's size. From a layer back to the input each step says where in its own
input the cell at place p has its middle: at stride · p + dilation · (kernel - 1) / 2 - padding.
(The arithmetic of receptive fields: Araujo, Norris & Sim, "Computing Receptive Fields of
Convolutional Neural Networks", Distill 2019.)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["centres"]

POOLS = ("MaxPool2DWith", "MaxPool3DWith", "AvgPool2D", "AvgPool3D")
PADS = ("ReflectionPad", "ReplicationPad")
MIXING = (
    "AdaptiveAvgPool", "AdaptiveMaxPool", "Addmm", "Bmm", "FractionalMaxPool", "Grid", "Mean", "Mm",
    "Roll", "ScaledDotProduct", "Sum", "Upsample",
)  # fmt: skip
"""Steps after which a place is no more what it was: the way goes on beside them, or not at all."""

FEWEST = 0.6  # of the rows that fit: with half of them a step was one that is not known here

Steps = tuple[float, float]
"""(stride, first): the cell at place p has its middle at stride · p + first."""


def centres(maps: Tensor, inputs: Tensor) -> Steps | None:
    """Return the stride between rows of cells and the middle of the first, in pixels of the input.

    Args:
        maps: (1, channels, rows, cols) with a graph to `inputs`.
        inputs: (1, channels, height, width) or with frames, a leaf. Pixel i covers [i, i + 1).

    Returns:
        None where no way back to the input is known step by step, or it does not lead to as many
        rows as there are.
    """
    height, rows = int(inputs.shape[-2]), int(maps.shape[2])
    found = _walk(maps.grad_fn, inputs)
    if found is None:
        return None
    stride, first = found[0], found[1] + 0.5
    fitting = height / stride  # rows, but for those that a network without paddings leaves out
    middle = first + (rows - 1) * stride / 2
    if not FEWEST * fitting < rows < fitting + 1 or not 0 < middle < height:
        return None
    return stride, first


def _walk(start: Any, inputs: Tensor) -> Steps | None:
    """Return the steps of the first way from a node of the graph back to the input."""
    waiting: list[tuple[Any, Steps]] = [(start, (1.0, 0.0))]
    seen = set()
    while waiting:
        node, so_far = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", None) is inputs:
            return so_far
        step = _step(node)
        if step is None:
            continue
        stride, first = so_far
        onwards = step[0] * stride, step[0] * first + step[1]
        waiting += [(before, onwards) for before, _ in reversed(node.next_functions)]
    return None


def _step(node: Any) -> Steps | None:
    """Return what an operation does to places along the rows; None if that is not known."""
    name = node.name()
    if name.startswith(MIXING):
        return None
    if name.startswith("Convolution"):
        kernel = node._saved_weight.shape[2:]
        if node._saved_transposed or len(kernel) < 2:
            return None
        return _window(kernel, node._saved_stride, node._saved_padding, node._saved_dilation)
    if name.startswith(POOLS):
        kernel, stride = node._saved_kernel_size, node._saved_stride
        dilation = getattr(node, "_saved_dilation", (1, 1))
        return _window(kernel, stride or kernel, node._saved_padding, dilation)
    if name.startswith("ConstantPad"):
        return 1.0, -float(_top(node._saved_pad))
    if name.startswith(PADS):
        return 1.0, -float(_top(node._saved_padding))
    if name.startswith("Slice"):
        return _slice(node)
    return 1.0, 0.0


def _slice(node: Any) -> Steps | None:
    """Return the step of a part of the rows; what is taken of other axes changes no place."""
    axes = len(node._saved_self_sym_sizes)
    if axes < 4 or node._saved_dim != axes - 2:
        return 1.0, 0.0
    if node._saved_step != 1:  # the other rows go another way
        return None
    return 1.0, float(node._saved_start)


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any) -> Steps:
    """Return the step of a sliding window; along rows, the last axis but one."""
    middle = _rows(dilation) * (_rows(kernel) - 1) / 2
    return float(_rows(stride)), middle - _rows(padding)


def _rows(sizes: Any) -> int:
    return int(sizes[-2] if len(sizes) > 1 else sizes[0])


def _top(pads: Any) -> int:
    """Return the padding before the first row, of (left, right, top, bottom, ...).

    torch gives what is cut off, a negative padding, as an unsigned number of 64 bits.
    """
    top = int(pads[2]) if len(pads) > 2 else 0
    return top - (1 << 64) if top >= 1 << 63 else top
