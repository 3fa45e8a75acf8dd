"""What one pass shows of every layer: its output's shape, its layout, its node in the graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from dff.activations.layers.movement import Movement
from dff.activations.layouts import PARTS, Layout, tensors_of
from dff.activations.names import fused_parts
from dff.activations.recognition import possible_layouts

__all__ = ["LayerInfo", "Recording"]

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
        others: further layouts that its shape allows, the likelier first.
        movement: whether a patch moves in the grid; None where that was not tried
            (:func:`dff.activations.layers.grids.measured`).
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
    others: tuple[Layout, ...] = ()
    movement: Movement | None = None
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


class Recording:
    """The layers of a pass, as they finish: :meth:`visit` is for every module of the pass.

    Attributes:
        layers: what is known of each, by name.
        tensors: its (main) output, where that has the shape of a grid.
        nodes: the node of the graph that made this output, and which of the node's outputs it is.
    """

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.layers: dict[str, LayerInfo] = {}
        self.tensors: dict[str, Tensor] = {}
        self.nodes: dict[str, tuple[Any, int]] = {}
        self._batch, self._size = len(inputs), tuple(inputs.shape[2:])
        self._grids: list[Layout] = []
        self._within = tuple(f"{n}." for n, module in model.named_modules() if _attends(module))

    def visit(self, name: str, module: nn.Module, output: Any) -> None:
        """Note the output of one run of a module, and of the parts of a fused one."""
        names = (name, *(f"{name}:{part}" for part in fused_parts(name, module)))
        run = self.layers[name].runs + 1 if name in self.layers else 1
        if run > 1:
            self._count(names, run)
            names = (f"{name}:{run}",)
        held = tensors_of(output)
        if not held:
            return
        info = self._described(names[0], module, held, run)
        self.layers[info.name] = info
        if info.layout is None:
            return
        if (
            info.layout.kind != "tokens"
            or info.layout.tokens == info.layout.rows * info.layout.cols
        ):
            self._grids.append(info.layout)
        for third, part in zip(names[1:], PARTS, strict=False):
            self.layers[third] = _part_of(info, third, part)
        if held[0].grad_fn is not None:
            for known in names:
                self.tensors[known] = held[0]
                self.nodes[known] = (held[0].grad_fn, held[0].output_nr)

    def _count(self, names: tuple[str, ...], run: int) -> None:
        """Note that a module has run again; from the second run on, each has a name of its own."""
        for known in names:
            if known in self.layers:
                self.layers[known] = replace(self.layers[known], runs=run)
        first = names[0]
        if run == 2 and first in self.nodes:
            again = f"{first}:1"
            self.layers[again] = replace(self.layers[first], name=again)
            self.tensors[again], self.nodes[again] = self.tensors[first], self.nodes[first]

    def _described(self, name: str, module: nn.Module, held: list[Tensor], run: int) -> LayerInfo:
        shape = tuple(held[0].shape)
        # Windows or pixels of patches, laid out as items of the batch, are no grid of the image.
        whole = shape[0] == self._batch
        possible = possible_layouts(shape, self._size, self._grids) if whole else []
        kind, weight = type(module).__name__, next(module.parameters(), None)
        return LayerInfo(
            name,
            kind,
            shape,
            possible[0] if possible else None,
            tuple(possible[1:]),
            runs=run,
            alone=not any(other.requires_grad for other in held[1:]),
            passive=weight is None and any(part in kind for part in SKIPPED),
            inner=name.startswith(self._within),
        )


def _part_of(info: LayerInfo, name: str, part: str) -> LayerInfo:
    """Return a third of a fused layer: the other two are what the model could go on with."""
    assert info.layout is not None
    return replace(
        info,
        name=name,
        layout=replace(info.layout, part=part),
        others=tuple(replace(other, part=part) for other in info.others),
        alone=False,
    )


def _attends(module: nn.Module) -> bool:
    """Whether a module is an attention module, and no block that holds one, by its class's name."""
    name = type(module).__name__
    wider = any(word in name for word in ("Block", "Layer", "Encoder", "Stage", "Model"))
    return ("Attention" in name or "Attn" in name) and not wider
