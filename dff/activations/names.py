"""Layers by name: a module or a dotted name to both, and what follows a name after a colon."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dff.activations.layouts import PARTS
from dff.errors import LayerError, closest

__all__ = ["fused_parts", "resolve_layer", "split_part", "split_run"]


def resolve_layer(model: nn.Module, layer: nn.Module | str) -> tuple[str, nn.Module]:
    """Return (name, module) of a layer of `model`; ``:key`` and its like stay in the name.

    Raises:
        LayerError: no such name (the closest ones are given), the module is not the model's, or
            it has no such part.
    """
    if isinstance(layer, nn.Module):
        for name, module in model.named_modules():
            if module is layer:
                return name, module
        raise LayerError(
            f"the layer {type(layer).__name__} is not part of the {type(model).__name__} given"
        )
    if ":" not in layer and layer and (module := _by_path(model, layer)) is not None:
        return layer, module
    named = dict(model.named_modules())
    if split_run(layer)[1] and split_run(layer)[0] in named:
        return layer, named[split_run(layer)[0]]
    name, part = split_part(layer)
    if part is not None and name in named and part not in fused_parts(name, named[name]):
        raise LayerError(
            f"layer {name!r} ({_outline(named[name])}) has no part {part!r}: expected a layer "
            f"named qkv that gives {', '.join(PARTS)} side by side, 3 times its input's channels"
            + _instead(named, name, part)
        )
    if name in named and name:
        return layer, named[name]
    raise LayerError(
        f"{type(model).__name__} has no layer {layer!r}"
        + (closest(layer, named) or "; `dff layers` lists them")
    )


def _by_path(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except (AttributeError, RuntimeError):  # there is none, or torch.jit offers no such look-up
        return None


def split_part(layer: str) -> tuple[str, str | None]:
    """Return the module's name and the part of ``NAME:key`` (or query, value); else no part."""
    name, _, part = layer.rpartition(":")
    return (name, part) if part in PARTS else (layer, None)


def split_run(layer: str) -> tuple[str, int | None]:
    """Return the module's name and which of its runs ``NAME:2`` is, from 1; else no run."""
    name, _, run = layer.rpartition(":")
    return (name, int(run)) if run.isdecimal() and name and int(run) else (layer, None)


def fused_parts(name: str, module: nn.Module) -> tuple[str, ...]:
    """Return :data:`~dff.activations.layouts.PARTS` if a layer's output is these; else nothing.

    It is for a linear layer, or a convolution of single cells, whose name holds "qkv" and which
    triples the channels: timm's and most others' transformers split its output so, in this order.
    What the block does to them later (normalisation, rotary positions) comes after.
    """
    if isinstance(module, nn.Linear):
        triples = module.out_features == 3 * module.in_features
    elif isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
        triples = module.out_channels == 3 * module.in_channels
    else:
        triples = False
    return PARTS if triples and "qkv" in name.rpartition(".")[2].lower() else ()


def _instead(named: Mapping[str, nn.Module], name: str, part: str) -> str:
    """Say what else has the part: a layer of its own in there, or fused ones of like names."""
    alone = (part, part[0], f"{part}_proj", f"{part[0]}_proj", f"to_{part[0]}")
    inside = [one for one in named if one.startswith(name) and one.rpartition(".")[2] in alone]
    if inside:
        return f"; here it is a layer of its own, {inside[0]!r}"
    fused = [f"{one}:{part}" for one in named if fused_parts(one, named[one])]
    return closest(f"{name}:{part}", fused) or "; the model has no such layer"


def _outline(module: nn.Module) -> str:
    sizes = [getattr(module, one, None) for one in ("in_features", "out_features")]
    kind = type(module).__name__
    return kind if None in sizes else f"{kind}, {sizes[0]} to {sizes[1]} channels"
