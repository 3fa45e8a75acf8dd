"""Find the layer to factorize, and where its cells lie in the input.

:func:`survey` runs a model once on noise and describes every layer: whether it has a grid,
whether everything that reaches the output passes through it, whether its grid has a say in the
output, and how its cells are centred over the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dff.activations.hooks import fused_parts, observe
from dff.activations.layouts import (
    PARTS,
    Layout,
    Score,
    detect_layout,
    is_backbone_output,
    read_scores,
    tensors_of,
)
from dff.errors import LayerError
from dff.maps import Grid

__all__ = ["LayerInfo", "Survey", "grid_of", "probe_input", "survey"]

SKIPPED = ("Pool", "Dropout", "Identity", "Flatten", "Permute")
"""Parts of class names of layers that, having no weights, are not chosen by default."""


@dataclass(frozen=True)
class LayerInfo:
    """One layer of a survey.

    Attributes:
        name: dotted name, with ``:query``, ``:key`` or ``:value`` for a third of a fused layer.
        kind: class name of the module.
        shape: shape of its (main) output for one image.
        layout: how the output reads as maps; None where there is no grid.
        runs: how often it ran in one forward pass.
        passes_all: everything that reaches the output passes through it (no skip goes around).
        reaches: the grid has a gradient from the scores. False for the last block of a
            class-token transformer, whose patch tokens nobody reads. True of a backbone's layers:
            there are no scores to reach.
        alone: its output holds no other tensor that the model could go on with, such as one that
            is pooled already.
        passive: it pools, drops or rearranges, without weights of its own.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    layout: Layout | None
    runs: int = 1
    passes_all: bool = False
    reaches: bool = False
    alone: bool = True
    passive: bool = False

    @property
    def channels(self) -> int | None:
        """Number of channels of the maps; None where there is no grid."""
        if self.layout is None:
            return None
        count = self.shape[1] if self.layout.kind == "maps" else self.shape[-1]
        return count if self.layout.part is None else count // len(PARTS)


@dataclass(frozen=True)
class Survey:
    """All layers of a model, in the order they finish, for one input.

    Keep it no longer than needed: it holds the activations of the recorded pass.

    Attributes:
        layers: what ran.
        outputs: number of scores of the model; 0 for a backbone, whose output is no scores.
    """

    layers: tuple[LayerInfo, ...]
    outputs: int
    _embedding: int | None
    _input: Tensor
    _tensors: dict[str, Tensor]

    def default(self) -> LayerInfo:
        """Return the last layer that still has a grid.

        Of the layers with a grid that has a say in the output: the last one that everything
        passes through; if possible not one of class maps, nor without weights of its own
        (pooling, dropout).

        Of a backbone, the grid need have no say in the output: where that is the class token
        alone, as of DINO's and CLIP's encoders, the patch tokens of the last block, normalised,
        are what dense tasks read all the same (DINOv2's ``x_norm_patchtokens``; Amir et al. 2021
        take tokens and keys of the last blocks). So it is the final norm, or the last block: the
        last such layer that is as wide as the embedding, which the keys of a pooling are not.

        Raises:
            LayerError: no layer has a grid.
        """
        able = [one for one in self.layers if one.layout is not None and one.runs == 1]
        fit = [
            one for one in able if one.channels != self.outputs and one.alone and not one.passive
        ]
        for candidates in (
            [one for one in fit if one.passes_all and one.channels == self._embedding],
            [one for one in fit if one.reaches and one.passes_all],
            [one for one in able if one.reaches and one.passes_all and one.alone],
            [one for one in fit if one.reaches],
            fit,
            able,
        ):
            if candidates:
                return candidates[-1]
        raise LayerError(
            "no layer of this model has a grid of more than one cell for an input of "
            f"{tuple(self._input.shape)}; name one with layer=, or give a larger input"
        )

    def __getitem__(self, name: str) -> LayerInfo:
        """Return a layer by its dotted name."""
        for one in self.layers:
            if one.name == name:
                return one
        raise LayerError(f"layer {name!r} did not run in the forward pass; choose one that does")

    def anchor_stride(self, name: str) -> int | None:
        """Return the stride of a grid whose cell 0 lies over the first pixel; None for tiles.

        Odd kernels with symmetric padding anchor their grids so, patches and even kernels tile
        the input (see :class:`dff.maps.Grid`). Told apart by the effective receptive fields
        (Luo et al. 2016) of cells near the middle: the centroid of their squared gradient lies
        nearer to the one position or to the other.
        """
        layout, tensor = self[name].layout, self._tensors.get(name)
        height = int(self._input.shape[-2])
        stride = _anchored_stride(height, layout.rows) if layout else None
        if layout is None or tensor is None or stride is None:
            return None
        maps = layout.to_maps(tensor)
        tiled_error = anchored_error = 0.0
        generator = torch.Generator().manual_seed(2)
        signs = torch.randn(maps.shape[1], generator=generator).to(maps)
        for row in sorted({layout.rows // 2 - 1, layout.rows // 2}):
            cell = (maps[0, :, row, layout.cols // 2] * signs).sum()
            (gradient,) = torch.autograd.grad(cell, self._input, retain_graph=True)
            weight = gradient[0].double().abs().sum((0, 2)) ** 2
            pixels = torch.arange(height, dtype=torch.float64, device=weight.device) + 0.5
            centre = float((weight * pixels).sum() / weight.sum().clamp_min(1e-300))
            tiled_error += abs(centre - (row + 0.5) * height / layout.rows)
            anchored_error += abs(centre - (row * stride + 0.5))
        return stride if anchored_error < tiled_error else None


def survey(
    model: nn.Module, inputs: Tensor, *, score: Score | None = None, head: bool = True
) -> Survey:
    """Run `model` once on `inputs` (1, 3, height, width); describe its layers in running order.

    One recorded forward pass and one backward pass (of a backbone none); nothing is left on the
    model. `score` reads the scores from an output that holds no logits
    (:func:`dff.activations.layouts.read_scores`). Without one, the output is no scores if `head`
    is False, or if it names hidden states and no logits.
    """
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    found: dict[str, LayerInfo] = {}
    tensors: dict[str, Tensor] = {}
    nodes: dict[str, tuple[Any, int]] = {}

    def visit(name: str, module: nn.Module, output: Any) -> None:
        names = (name, *(f"{name}:{part}" for part in fused_parts(name, module)))
        if name in found:
            for one in names:
                if one in found:
                    found[one] = replace(found[one], runs=found[one].runs + 1)
            return
        held = tensors_of(output)
        if not held:
            return
        tensor, shape = held[0], tuple(held[0].shape)
        alone = not any(other.requires_grad and other is not tensor for other in held)
        # Windows or pixels of patches, laid out as items of the batch, are no grid of the image.
        layout = detect_layout(shape, size) if shape[0] == len(inputs) else None
        kind = type(module).__name__
        passive = any(part in kind for part in SKIPPED) and next(module.parameters(), None) is None
        found[name] = LayerInfo(name, kind, shape, layout, alone=alone, passive=passive)
        if layout is None:
            return
        for third, part in zip(names[1:], PARTS, strict=False):
            # The other two are what the model could go on with.
            found[third] = replace(
                found[name], name=third, layout=replace(layout, part=part), alone=False
            )
        if tensor.grad_fn is not None:
            for one in names:
                tensors[one], nodes[one] = tensor, (tensor.grad_fn, tensor.output_nr)

    leaf = inputs.detach().clone().requires_grad_()
    # A copy of the leaf, so that a layer that returns its input has a node of its own, too.
    output = observe(model, visit, leaf + 0, grad=True)
    scored = score is not None or (head and not is_backbone_output(output))
    with torch.enable_grad():
        result = read_scores(output, score)
    if result.grad_fn is not None:
        cuts = _cuts(result.grad_fn, [node for node, _ in nodes.values()], leaf)
        reaching = _reaching(result, leaf, nodes, found) if scored else set(nodes)
        if not reaching:  # a head whose weights are still zero: look from what enters it
            reaching = _reaching(result, leaf, nodes, found, beneath_head=True)
        for (name, (node, _)), one in zip(nodes.items(), map(found.get, nodes), strict=True):
            assert one is not None
            found[name] = replace(one, passes_all=node in cuts, reaches=name in reaching)
    width = int(result.shape[-1])
    outputs, embedding = (width, None) if scored else (0, width)
    return Survey(tuple(found.values()), outputs, embedding, leaf, tensors)


def _reaching(
    result: Tensor,
    leaf: Tensor,
    nodes: dict[str, tuple[Any, int]],
    found: dict[str, LayerInfo],
    *,
    beneath_head: bool = False,
) -> set[str]:
    """Return the layers whose grid gets a gradient from a random mixture of the outputs.

    Gradients are read at the graph's nodes as the layers left them, so that in-place operations
    further on do not matter.
    """
    reaching: set[str] = set()

    def watch(name: str, index: int) -> Callable[[tuple[Tensor | None, ...]], None]:
        layout = found[name].layout
        assert layout is not None

        def look(gradients: tuple[Tensor | None, ...]) -> None:
            gradient = gradients[index]
            if gradient is not None and layout.to_maps(gradient).abs().sum() > 0:
                reaching.add(name)

        return look

    handles = [node.register_prehook(watch(name, at)) for name, (node, at) in nodes.items()]
    if beneath_head:
        handles += [child.register_prehook(_noise) for child in _children(result.grad_fn)]
    with torch.enable_grad():  # one number: torch imports sympy to check gradients handed to it
        mixed = (result * _mixture(result)).sum()
    try:
        torch.autograd.grad(mixed, leaf, retain_graph=True, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return reaching


def _noise(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return noise instead of gradients; a constant would be nothing to a normalisation."""
    return tuple(None if g is None else _mixture(g) for g in gradients)


def _mixture(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(1)).to(like)


def _cuts(root: Any, nodes: list[Any], leaf: Tensor) -> set[Any]:
    """Return those `nodes` of the graph that every path from `root` to `leaf` passes through.

    A node does when the paths to it times the paths from it are all the paths there are.
    """
    order = _topological(root)
    below: dict[Any, int] = {}
    for node in reversed(order):
        is_leaf = getattr(node, "variable", None) is leaf
        below[node] = int(is_leaf) + sum(below[child] for child in _children(node))
    above = dict.fromkeys(order, 0)
    above[root] = 1
    for node in order:
        for child in _children(node):
            above[child] += above[node]
    total = below[root]
    return {node for node in nodes if total and above.get(node, 0) * below.get(node, 0) == total}


def _children(node: Any) -> list[Any]:
    return [child for child, _ in node.next_functions if child is not None]


def _topological(root: Any) -> list[Any]:
    """Return the graph's nodes, each before its children (depth first, without recursion)."""
    done: dict[Any, None] = {}
    entered: set[Any] = set()
    stack = [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            done[node] = None
        elif node not in entered:
            entered.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in _children(node) if child not in entered)
    return list(reversed(done))


def _anchored_stride(length: int, cells: int) -> int | None:
    """Return the power of two that makes `cells` strided cells of `length` pixels, if one does."""
    stride = 2  # with stride 1, both geometries are the same
    while stride <= length:
        if (length - 1) // stride + 1 == cells:
            return stride
        stride *= 2
    return None


def grid_of(layout: Any, input_size: tuple[int, int], anchor_stride: int | None) -> Grid:
    """Return the :class:`~dff.maps.Grid` of a layout for an input of (height, width).

    `anchor_stride` is :meth:`Survey.anchor_stride` of the layer, found at any input size.
    """
    height, width = input_size
    if anchor_stride is None:
        return Grid.tiled(layout.rows, layout.cols, height, width)
    stride = (float(anchor_stride), float(anchor_stride))
    return Grid.anchored(layout.rows, layout.cols, height, width, stride)


def probe_input(size: tuple[int, int], model: nn.Module) -> Tensor:
    """Return seeded noise (1, 3, height, width) on the device and in the precision of `model`."""
    noise = torch.randn((1, 3, *size), generator=torch.Generator().manual_seed(0))
    weight = next((p for p in model.parameters() if p.is_floating_point()), noise)
    return noise.to(weight.device, weight.dtype)
