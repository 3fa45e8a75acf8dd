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

from dff.activations.borrowing import borrowed, unheard
from dff.activations.hooks import observe
from dff.activations.layers.geometry import Geometry, geometry
from dff.activations.layers.recording import LayerInfo, Recording
from dff.activations.names import split_part
from dff.activations.outputs import Meaning, Score, recognise
from dff.activations.reach import by_swapping, children, cuts, no_gradients
from dff.errors import LayerError

__all__ = ["Survey", "probe_input", "survey"]

COARSE = 16
"""The least stride, in pixels, of the layers that a detector's objects are seen in."""


@dataclass(frozen=True)
class Survey:
    """All layers of a model, in the order they finish, for one input.

    Keep it no longer than needed: it holds the activations of the recorded pass.

    Attributes:
        layers: what ran.
        meaning: what the model's output is, and how scores are read from it.
    """

    layers: tuple[LayerInfo, ...]
    meaning: Meaning
    _embedding: int | None
    _input: Tensor
    _tensors: dict[str, Tensor]

    @property
    def inputs(self) -> Tensor:
        """The input (1, channels, height, width) of the recorded pass, without its graph."""
        return self._input.detach()

    @property
    def outputs(self) -> int:
        """Number of scores of the model; 0 for a backbone, whose output is no scores."""
        return self.meaning.classes

    def default(self) -> LayerInfo:
        """Return the last layer that still has a grid, of those known to move or not tried.

        Of the layers with a grid that has a say in the output: the last one that everything
        passes through; if possible not one of class maps, of a single channel (depth), without
        weights of its own (pooling, dropout), or inside an attention module, whose projections
        no one reads but it: the block around it is taken, or the norm before it.

        Of a backbone, the grid need have no say in the output: where that is the class token
        alone, as of DINO's and CLIP's encoders, the patch tokens of the last block, normalised,
        are what dense tasks read all the same (DINOv2's ``x_norm_patchtokens``; Amir et al. 2021
        take tokens and keys of the last blocks). So it is the final norm, or the last block: the
        last such layer that is as wide as the embedding, which the keys of a pooling are not.

        Of a detector with a pyramid of features, everything passes through an early layer only,
        whose cells are small: there it is the last of the widest layers, the end of the backbone.

        Raises:
            LayerError: no layer has a grid.
        """
        able = [
            layer
            for layer in self.layers
            if layer.layout is not None
            and layer.runs == 1
            and (layer.movement is None or layer.movement.is_grid)
        ]
        able = [layer for layer in able if not layer.inner] or able
        fit = [layer for layer in able if layer.fits(self.outputs)]
        for candidates in (
            self._beneath_pyramid(fit),
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

    def _beneath_pyramid(self, fit: list[LayerInfo]) -> list[LayerInfo]:
        """Return the widest layers of a detector whose scores come from grids of several sizes."""
        if self.meaning.kind != "boxes":
            return []
        reaching = [layer for layer in fit if layer.reaches]
        cut = [layer.layout.cols for layer in reaching if layer.passes_all and layer.layout]
        if cut and cut[-1] * COARSE <= self._input.shape[-1]:
            return []
        maps = [layer for layer in reaching if layer.layout and layer.layout.kind == "maps"]
        most = max((layer.channels or 0 for layer in maps), default=0)
        return [layer for layer in maps if layer.channels == most]

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
        maps = layout.to_maps(tensor)
        if layout.frames is not None:
            maps = maps.unflatten(2, (layout.frames, -1))[:, :, layout.frames // 2]
        return geometry(maps, self._input)


def survey(
    model: nn.Module,
    inputs: Tensor,
    *,
    score: Score | None = None,
    head: bool = True,
    output_kind: str | None = None,
) -> Survey:
    """Run `model` once on an input (1, channels, height, width); describe its layers in order.

    One recorded forward pass and one backward pass (of a backbone none); nothing is left on the
    model. `score`, `head` and `output_kind` are what is known of the output
    (:func:`dff.activations.outputs.recognise`).
    """
    seen = Recording(model, inputs)
    layers, nodes = seen.layers, seen.nodes
    leaf = inputs.detach().clone().requires_grad_()
    # A copy of the leaf, so that a layer that returns its input has a node of its own, too.
    output = observe(model, seen.visit, leaf + 0, grad=True)
    if not any(info.layout for info in layers.values()) and (reason := unheard(model)):
        raise LayerError(f"no layer of this model has a grid: {reason}")
    meaning = recognise(
        model, output, lambda: borrowed(model, lambda: model(-inputs)), score=score, head=head,
        asked=output_kind,
    )  # fmt: skip
    scored = meaning.kind != "embeddings"
    with torch.enable_grad():
        result = meaning(output)
    reaching: set[str] = set()
    if result.grad_fn is not None and not no_gradients(model):
        through = cuts(result.grad_fn, [node for node, _ in nodes.values()], leaf)
        reaching = _reaching(result, leaf, nodes, layers) if scored else set(nodes)
        if not reaching:  # a head whose weights are still zero: look from what enters it
            reaching = _reaching(result, leaf, nodes, layers, beneath_head=True)
        for (name, (node, _)), info in zip(nodes.items(), map(layers.get, nodes), strict=True):
            assert info is not None
            layers[name] = replace(info, passes_all=node in through, reaches=name in reaching)
    if not reaching:
        _try_layers(model, inputs, layers, meaning, meaning.classes)
    embedding = int(result.shape[-1]) if meaning.hidden else None
    return Survey(tuple(layers.values()), meaning, embedding, leaf, seen.tensors)


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


def probe_input(
    size: tuple[int, int], model: nn.Module, channels: int = 3, frames: int | None = None
) -> Tensor:
    """Return seeded noise (1, channels, height, width), where and as precise as `model` is.

    With `frames` it is that of a clip, (1, channels, frames, height, width).
    """
    whole = size if frames is None else (frames, *size)
    noise = torch.randn((1, channels, *whole), generator=torch.Generator().manual_seed(0))
    weight = next((p for p in model.parameters() if p.is_floating_point()), noise)
    return noise.to(weight.device, weight.dtype)
