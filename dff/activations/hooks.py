"""The only place that registers a hook: run a model once and intercept a layer on the way.

- :func:`intercept`: hand a layer's output to a function, go on with what it returns. Capture,
  stop, replace and append are all this one thing.
- :func:`observe`: look at the output of every module of one pass.
- :func:`resolve_layer`: a module or a dotted name to both.

What is borrowed from a model (hooks, training flags, gradient mode) is given back whatever
happens, an interrupt included, and threads do not get into each other's passes
(:mod:`dff.activations.borrowing`). Parameters, their ``requires_grad`` and ``grad``, and
BatchNorm statistics are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from dff.activations.borrowing import borrowed, unheard
from dff.activations.layouts import (
    MAX_PREFIX,
    PARTS,
    Layout,
    Rearrangement,
    detect_layout,
    main_tensor,
    replace_main_tensor,
)
from dff.activations.memory import stored_like
from dff.errors import LayerError, closest

__all__ = [
    "STOP",
    "Answer",
    "Appended",
    "LayoutLike",
    "Replaced",
    "fused_parts",
    "intercept",
    "observe",
    "resolve_layer",
    "split_part",
    "split_run",
]

Inputs = Tensor | Mapping[str, Any] | Sequence[Any]
_InputSize = tuple[tuple[int, int], int]
LayoutLike = Layout | Rearrangement | Callable[[Any], Tensor] | None


class _StopType:
    """The type of :data:`STOP`."""


STOP: Final = _StopType()
"""What an intercepting function returns to end the forward pass at the layer."""


@dataclass(frozen=True)
class Appended:
    """What an intercepting function returns to let further items join the batch.

    Attributes:
        maps: (m, channels, rows, cols) items after the layer; the batch itself goes on unchanged.
        source: (m,) integer, the image of the batch that each item comes from; its class and
            register tokens are carried over. None means image 0.
    """

    maps: Tensor
    source: Tensor | None = None


@dataclass(frozen=True)
class Replaced:
    """What an intercepting function returns to let the model go on with other items instead.

    The rest of the model then classifies as many items as it likes of one image that went
    through the layers before only once.

    Attributes:
        maps: (m, channels, rows, cols) items after the layer; the batch itself ends here.
        source: (m,) integer, the image of the batch whose class and register tokens each item
            carries. None means image 0.
    """

    maps: Tensor
    source: Tensor | None = None


Answer = Tensor | Appended | Replaced | _StopType | None


class _Stopped(BaseException):
    """Ends a forward pass; no ``except Exception`` inside a model can swallow it."""


def intercept(
    model: nn.Module,
    layer: nn.Module | str | Sequence[nn.Module | str],
    fn: Callable[[Tensor], Answer],
    inputs: Inputs,
    *,
    grad: bool = False,
    layout: LayoutLike = None,
) -> Any:
    """Run `model` once; hand the layer's output to `fn`; go on with what it returns.

    Args:
        model: any module; run in evaluation mode and given back in its own.
        layer: a submodule or its dotted name; several are intercepted in the order they run.
            ``NAME:key``, ``NAME:query`` or ``NAME:value`` is that third of a layer which puts the
            three side by side (:func:`fused_parts`), ``NAME:2`` the second run of one that runs
            more than once.
        fn: gets the output as maps (batch, channels, rows, cols) and returns None (go on
            unchanged), maps of the same shape (replace), :class:`Appended` (more items),
            :class:`Replaced` (other items), or :data:`STOP`.
        inputs: the image tensor (batch, 3, height, width), or the model's positional or keyword
            arguments with such a tensor first.
        grad: record gradients from the first intercepted layer on. The maps handed to `fn` then
            require gradients; nothing before the layer is recorded.
        layout: how to read the output: None to recognise it, a
            :class:`~dff.activations.layouts.Layout`, or a callable from the output to maps (a
            ``reshape_transform``).

    Returns:
        What the model returns, or None when it was stopped.

    Raises:
        LayerError: no such layer, it did not run, ran more than once, or has no grid.
    """
    layers = [layer] if isinstance(layer, (nn.Module, str)) else list(layer)
    resolved = dict(resolve_layer(model, name_or_module) for name_or_module in layers)
    size, batch = _input_size(inputs)
    runs = dict.fromkeys(resolved, 0)

    def hook(name: str, _module: nn.Module, output: Any) -> Any:
        runs[name] += 1
        wanted = split_run(name)[1]
        if wanted is None and runs[name] > 1:
            raise LayerError(
                f"layer {name!r} runs more than once in a forward pass; choose a run of it "
                f"({name + ':2'!r} is the second), or the block that contains it"
            )
        if wanted not in (None, runs[name]):
            return None
        return _answer(name, output, fn, (size, batch), grad, layout)

    try:
        result = borrowed(model, lambda: _run(model, inputs), named=resolved, visit=hook)
    except _Stopped:
        return None
    if idle := [name for name, count in runs.items() if count < (split_run(name)[1] or 1)]:
        reason = unheard(model) or "choose one that does"
        raise LayerError(f"layer {idle[0]!r} did not run in the forward pass; {reason}")
    return result


def _answer(
    name: str,
    output: Any,
    fn: Callable[[Tensor], Answer],
    input_size: _InputSize,
    grad: bool,
    layout: LayoutLike,
) -> Any:
    """Hand one output to `fn` as maps, and return what the model shall go on with."""
    stored = main_tensor(output)
    tensor = stored.dequantize() if stored.is_quantized else stored
    reading = _reading(name, output, tensor, input_size, layout)
    if grad:
        torch.set_grad_enabled(True)
        tensor = tensor if tensor.requires_grad else _leaf(tensor)
    maps = reading.to_maps(tensor)
    answer = fn(maps)
    if isinstance(answer, _StopType):
        raise _Stopped
    source = None
    if isinstance(answer, (Appended, Replaced)):
        source = answer.source
        if source is None:
            source = torch.zeros(len(answer.maps), dtype=torch.long)
        source, others = source.to(maps.device), answer.maps.to(maps)
        if isinstance(answer, Appended):
            source = torch.cat([torch.arange(len(maps), device=maps.device), source])
            others = torch.cat([maps, others])
        maps = others
    else:
        # A copy, so that what `fn` keeps is not overwritten by an in-place operation further on.
        maps = maps.clone() if answer is None else answer.to(maps)
    new = reading.from_maps(maps, tensor, source)
    return replace_main_tensor(output, stored_like(new, stored))


def _leaf(tensor: Tensor) -> Tensor:
    """Return the tensor cut off its graph, a leaf that requires gradients."""
    # A view of an input of inference mode, as patches may be, cannot require any.
    cut = tensor.clone() if tensor.is_inference() else tensor.detach()
    return cut.requires_grad_()


def _reading(
    name: str, output: Any, tensor: Tensor, input_size: _InputSize, layout: LayoutLike
) -> Layout | Rearrangement:
    """Return the layout to read an output with: the one given, traced, or recognised."""
    part = split_part(name)[1]
    if isinstance(layout, Layout):
        return replace(layout, part=part)
    if layout is not None:
        if part is not None:
            raise LayerError(f"a layout= of your own reads all of a layer: name it without :{part}")
        return layout if isinstance(layout, Rearrangement) else Rearrangement.traced(layout, output)
    size, batch = input_size
    # Windows of images, laid out as items of the batch, are no grid of them.
    reading = detect_layout(tuple(tensor.shape), size) if len(tensor) in (batch, 1) else None
    if reading is None:
        tried = (
            f" (as tokens, with 0 to {MAX_PREFIX} class and register tokens before a grid of the "
            "input's proportions)"
        )
        raise LayerError(
            f"layer {name!r} has no grid: its output is {tuple(tensor.shape)} for {batch} input(s) "
            f"of {size[0]} x {size[1]}{tried if tensor.dim() == 3 else ''}; choose an earlier one "
            "(`dff layers` lists them), or say how it reads with layout="
        )
    return replace(reading, part=part)


def observe(
    model: nn.Module,
    visit: Callable[[str, nn.Module, Any], None],
    inputs: Inputs,
    *,
    grad: bool = False,
) -> Any:
    """Run `model` once in evaluation mode; `visit` gets (name, module, output) of every submodule.

    With `grad`, the whole pass is recorded.
    """
    named = {name: module for name, module in model.named_modules() if name}
    return borrowed(model, lambda: _run(model, inputs), grad=grad, named=named, visit=visit)


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


def _run(model: nn.Module, inputs: Inputs) -> Any:
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def _input_size(inputs: Inputs) -> _InputSize:
    """Return (height, width) of the first tensor of the inputs, and how many images it holds."""
    if isinstance(inputs, Tensor):
        first: Tensor | None = inputs
    else:
        values = inputs.values() if isinstance(inputs, Mapping) else inputs
        first = next((v for v in values if isinstance(v, Tensor) and v.dim() >= 3), None)
    if first is None or first.dim() < 3:
        shape = None if first is None else tuple(first.shape)
        raise LayerError(f"expected an input tensor (batch, 3, height, width), got {shape}")
    count = int(first.shape[0]) if first.dim() > 3 else 1
    return (int(first.shape[-2]), int(first.shape[-1])), count
