"""Find the layer to factorize, and where its cells lie in the input.

:func:`survey` runs a model once on noise and describes every layer: whether it has a grid,
whether everything that reaches the output passes through it, whether its grid has a say in the
output, and how its cells are centred over the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dff.activations.borrowing import unheard
from dff.activations.geometry import Geometry, geometry
from dff.activations.hooks import observe
from dff.activations.layouts import (
    PARTS,
    Layout,
    Score,
    detect_layout,
    is_backbone_output,
    read_scores,
    tensors_of,
)
from dff.activations.names import fused_parts, split_part
from dff.activations.reach import by_swapping, children, cuts, no_gradients
from dff.errors import LayerError

__all__ = ["LayerInfo", "Survey", "probe_input", "survey"]

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
        runs: how often it ran in one forward pass; of ``NAME:2``, the second run alone, 2.
        passes_all: everything that reaches the output passes through it (no skip goes around).
        reaches: the grid has a gradient from the scores. False for the last block of a
            class-token transformer, whose patch tokens nobody reads. True of a backbone's layers:
            there are no scores to reach.
        alone: its output holds no other tensor that the model could go on with, such as one that
            is pooled already.
        passive: it pools, drops or rearranges, without weights of its own.
        inner: it is a part of an attention module, such as its values.
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
    inner: bool = False

    @property
    def channels(self) -> int | None:
        """Number of channels of the maps; None where there is no grid."""
        if self.layout is None:
            return None
        count = self.shape[1] if self.layout.kind == "maps" else self.shape[-1]
        return count if self.layout.part is None else count // len(PARTS)

    def fits(self, outputs: int) -> bool:
        """Whether it may be chosen unasked, of a model with so many scores."""
        single = self.channels in (1, outputs)
        return not single and self.alone and not self.passive and not self.inner


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
        passes through; if possible not one of class maps, of a single channel (depth), without
        weights of its own (pooling, dropout), or inside an attention module, whose projections
        no one reads but it: the block around it is taken, or the norm before it.

        Of a backbone, the grid need have no say in the output: where that is the class token
        alone, as of DINO's and CLIP's encoders, the patch tokens of the last block, normalised,
        are what dense tasks read all the same (DINOv2's ``x_norm_patchtokens``; Amir et al. 2021
        take tokens and keys of the last blocks). So it is the final norm, or the last block: the
        last such layer that is as wide as the embedding, which the keys of a pooling are not.

        Raises:
            LayerError: no layer has a grid.
        """
        able = [layer for layer in self.layers if layer.layout is not None and layer.runs == 1]
        able = [layer for layer in able if not layer.inner] or able
        fit = [layer for layer in able if layer.fits(self.outputs)]
        for candidates in (
            [layer for layer in fit if layer.passes_all and layer.channels == self._embedding],
            [layer for layer in fit if layer.reaches and layer.passes_all],
            [layer for layer in able if layer.reaches and layer.passes_all and layer.alone],
            [layer for layer in fit if layer.reaches],
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
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise LayerError(f"layer {name!r} did not run in the forward pass; choose one that does")

    def geometry(self, name: str) -> Geometry:
        """Return how the cells of a layer's grid lie over the input, and what they see of it."""
        layout, tensor = self[name].layout, self._tensors.get(name)
        if layout is None or tensor is None:
            return Geometry()
        return geometry(layout.to_maps(tensor), self._input)


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
    layers: dict[str, LayerInfo] = {}
    within = tuple(f"{name}." for name, module in model.named_modules() if _attends(module))
    tensors: dict[str, Tensor] = {}
    nodes: dict[str, tuple[Any, int]] = {}

    def visit(name: str, module: nn.Module, output: Any) -> None:
        names = (name, *(f"{name}:{part}" for part in fused_parts(name, module)))
        run = layers[name].runs + 1 if name in layers else 1
        if run > 1:
            for known in names:
                if known in layers:
                    layers[known] = replace(layers[known], runs=run)
            first, name = name, f"{name}:{run}"
            names = (name,)
            if run == 2 and first in nodes:
                again = f"{first}:1"
                layers[again] = replace(layers[first], name=again)
                tensors[again], nodes[again] = tensors[first], nodes[first]
        held = tensors_of(output)
        if not held:
            return
        tensor, shape = held[0], tuple(held[0].shape)
        alone = not any(other.requires_grad for other in held if other is not tensor)
        # Windows or pixels of patches, laid out as items of the batch, are no grid of the image.
        layout = detect_layout(shape, size) if shape[0] == len(inputs) else None
        class_name, weight = type(module).__name__, next(module.parameters(), None)
        passive = weight is None and any(part in class_name for part in SKIPPED)
        layers[name] = LayerInfo(
            name, class_name, shape, layout, run, alone=alone, passive=passive,
            inner=name.startswith(within),
        )  # fmt: skip
        if layout is None:
            return
        for third, part in zip(names[1:], PARTS, strict=False):
            # The other two are what the model could go on with.
            layers[third] = replace(
                layers[name], name=third, layout=replace(layout, part=part), alone=False
            )
        if tensor.grad_fn is not None:
            for known in names:
                tensors[known], nodes[known] = tensor, (tensor.grad_fn, tensor.output_nr)

    leaf = inputs.detach().clone().requires_grad_()
    # A copy of the leaf, so that a layer that returns its input has a node of its own, too.
    output = observe(model, visit, leaf + 0, grad=True)
    if not any(info.layout for info in layers.values()) and (reason := unheard(model)):
        raise LayerError(f"no layer of this model has a grid: {reason}")
    scored = score is not None or (head and not is_backbone_output(output))
    with torch.enable_grad():
        result = read_scores(output, score)
    reaching: set[str] = set()
    if result.grad_fn is not None and not no_gradients(model):
        through = cuts(result.grad_fn, [node for node, _ in nodes.values()], leaf)
        reaching = _reaching(result, leaf, nodes, layers) if scored else set(nodes)
        if not reaching:  # a head whose weights are still zero: look from what enters it
            reaching = _reaching(result, leaf, nodes, layers, beneath_head=True)
        for (name, (node, _)), info in zip(nodes.items(), map(layers.get, nodes), strict=True):
            assert info is not None
            layers[name] = replace(info, passes_all=node in through, reaches=name in reaching)
    width = int(result.shape[-1])
    outputs, embedding = (width, None) if scored else (0, width)
    if not reaching:
        _try_layers(model, inputs, layers, partial(read_scores, score=score), outputs)
    return Survey(tuple(layers.values()), outputs, embedding, leaf, tensors)


def _attends(module: nn.Module) -> bool:
    """Whether a module is an attention module, and no block that holds one, by its class's name."""
    name = type(module).__name__
    wider = any(word in name for word in ("Block", "Layer", "Encoder", "Stage", "Model"))
    return ("Attention" in name or "Attn" in name) and not wider


def _try_layers(
    model: nn.Module,
    inputs: Tensor,
    layers: dict[str, LayerInfo],
    read: Callable[[Any], Tensor],
    outputs: int,
) -> None:
    """Find what the layers have a say in where no gradient tells.

    From the last one back to one that fits as the default; those before it are taken to reach.
    """
    able = [name for name, info in layers.items() if info.layout and info.runs == 1]
    modules = list(dict.fromkeys(split_part(name)[0] for name in reversed(able)))
    before: list[str] = []

    def enough(name: str) -> bool:
        if layers[name].fits(outputs):
            before.extend(modules[modules.index(name) + 1 :])
        return bool(before)

    reaching, passing = by_swapping(model, inputs, modules, read, enough)
    for name in able:
        of = split_part(name)[0]
        reaches = of in reaching or of in before or not outputs
        layers[name] = replace(layers[name], passes_all=of in passing, reaches=reaches)


def _reaching(
    result: Tensor,
    leaf: Tensor,
    nodes: dict[str, tuple[Any, int]],
    layers: dict[str, LayerInfo],
    *,
    beneath_head: bool = False,
) -> set[str]:
    """Return the layers whose grid gets a gradient from a random mixture of the outputs.

    Gradients are read at the graph's nodes as the layers left them, so that in-place operations
    further on do not matter.
    """
    reaching: set[str] = set()

    def watch(name: str, index: int) -> Callable[[tuple[Tensor | None, ...]], None]:
        layout = layers[name].layout
        assert layout is not None

        def record(gradients: tuple[Tensor | None, ...]) -> None:
            gradient = gradients[index]
            if gradient is not None and layout.to_maps(gradient).abs().sum() > 0:
                reaching.add(name)

        return record

    handles = [node.register_prehook(watch(name, i)) for name, (node, i) in nodes.items()]
    if beneath_head:
        handles += [child.register_prehook(_noise) for child in children(result.grad_fn)]
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


def probe_input(size: tuple[int, int], model: nn.Module, channels: int = 3) -> Tensor:
    """Return seeded noise (1, channels, height, width), where and as precise as `model` is."""
    noise = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(0))
    weight = next((p for p in model.parameters() if p.is_floating_point()), noise)
    return noise.to(weight.device, weight.dtype)
