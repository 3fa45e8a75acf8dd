"""The only place that registers a hook: run a model once and intercept a layer on the way.

- :func:`intercept`: hand a layer's output to a function, go on with what it returns. Capture,
  stop, replace and append are all this one thing.
- :func:`record`: keep what layers put out, of any shape, with gradients from there on.
- :func:`observe`: look at the output of every module of one pass.

What is borrowed from a model (hooks, training flags, gradient mode) is given back whatever
happens, an interrupt included, and threads do not get into each other's passes
(:mod:`dff.activations.borrowing`). Parameters, their ``requires_grad`` and ``grad``, and
BatchNorm statistics are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from dff.activations.borrowing import Ended, borrowed, unheard
from dff.activations.context import Inputs, of_images
from dff.activations.layouts import (
    Layout,
    Rearrangement,
    each_tensor,
    main_tensor,
    replace_main_tensor,
)
from dff.activations.memory import stored_like
from dff.activations.names import resolve_layer, split_part, split_run
from dff.activations.recognition import InputSize, LayoutLike, input_size, read_as
from dff.errors import LayerError

__all__ = [
    "STOP",
    "Answer",
    "Appended",
    "LayoutLike",
    "Replaced",
    "intercept",
    "observe",
    "reading_of",
    "record",
]


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


def intercept(
    model: nn.Module,
    layer: nn.Module | str | Sequence[nn.Module | str],
    fn: Callable[[Tensor], Answer],
    inputs: Inputs,
    *,
    grad: bool = False,
    whole: bool = False,
    layout: LayoutLike = None,
) -> Any:
    """Run `model` once; hand the layer's output to `fn`; go on with what it returns.

    Args:
        model: any module; run in evaluation mode and given back in its own.
        layer: a submodule or its dotted name; several are intercepted in the order they run.
            ``NAME:key``, ``NAME:query`` or ``NAME:value`` is that third of a layer which puts the
            three side by side (:func:`~dff.activations.names.fused_parts`), ``NAME:2`` the second
            run of one that runs more than once.
        fn: gets the output as maps (batch, channels, rows, cols) and returns None (go on
            unchanged), maps of the same shape (replace), :class:`Appended` (more items),
            :class:`Replaced` (other items), or :data:`STOP`.
        inputs: the image tensor (batch, 3, height, width), or all that the model takes, one of
            which is the image (:func:`~dff.activations.context.of_images`): a tuple of positional
            or a mapping of keyword inputs, or :class:`~dff.activations.context.Arguments`.
        grad: record gradients from the first intercepted layer on. The maps handed to `fn` then
            require gradients; nothing before the layer is recorded.
        whole: record them from the input on.
        layout: how to read the output: None to recognise it, a
            :class:`~dff.activations.layouts.Layout`, how many tokens are no grid's
            (:class:`~dff.activations.recognition.Ends`), or a callable from the output to maps (a
            ``reshape_transform``).

    Returns:
        What the model returns, or None when it was stopped.

    Raises:
        LayerError: no such layer, it did not run, ran more than once, or has no grid.
        UsageError: no image among the inputs, or several; batch sizes that disagree.
    """
    model, images = of_images(model, inputs)
    layers = [layer] if isinstance(layer, (nn.Module, str)) else list(layer)
    size = input_size(images)

    def answer(name: str, output: Any) -> Any:
        return _answer(name, output, fn, size, grad, layout)

    def work() -> Any:
        torch.set_grad_enabled(whole)
        return model(images)

    try:
        resolved = dict(resolve_layer(model, name_or_module) for name_or_module in layers)
        return _visited(model, resolved, answer, work)
    except Ended:
        return None


def record(
    model: nn.Module,
    layers: Sequence[nn.Module | str],
    inputs: Inputs,
    *,
    grad: bool = True,
    taken_in: bool = False,
    run: Callable[[], Any] | None = None,
    change: Callable[[Any], Any] | None = None,
) -> tuple[Any, list[Any]]:
    """Run `model` once and keep what `layers` put out, as they put it out, grid or not.

    What is kept is not overwritten by in-place operations further on. With `grad` its tensors
    require gradients, and nothing before the first of the layers is recorded.

    Args:
        model: any module; run in evaluation mode and given back in its own.
        layers: submodules or dotted names, as in :func:`intercept`.
        inputs: see :func:`intercept`.
        grad: record gradients from the first of the layers on.
        taken_in: keep what the layers are handed, a tuple, in place of what they put out.
        run: what runs the model, where that is more than a call on `inputs`.
        change: from what is kept of a layer to what the model goes on with in its place.

    Returns:
        What the model returns, and what was kept of each layer, in the order given.

    Raises:
        LayerError: no such layer, it did not run, or ran more than once.
    """
    kept: dict[str, Any] = {}

    def answer(name: str, values: Any) -> Any:
        if grad:
            torch.set_grad_enabled(True)
            values = each_tensor(values, lambda t: t if t.requires_grad else _leaf(t))
        kept[name] = values
        return each_tensor(values if change is None else change(values), torch.clone)

    resolved = [resolve_layer(model, layer) for layer in layers]

    def called() -> Any:
        bound, images = of_images(model, inputs)
        return bound(images)

    work = run or called
    result = _visited(model, dict(resolved), answer, work, taken_in=taken_in)
    return result, [kept[name] for name, _ in resolved]


def _visited(
    model: nn.Module,
    resolved: Mapping[str, nn.Module],
    answer: Callable[[str, Any], Any],
    work: Callable[[], Any],
    *,
    taken_in: bool = False,
) -> Any:
    """Return ``work()``, with `answer` (name, output) in place of what each layer puts out."""
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
        return answer(name, output)

    result = borrowed(model, work, named=resolved, visit=hook, taken_in=taken_in)
    if idle := [name for name, count in runs.items() if count < (split_run(name)[1] or 1)]:
        reason = unheard(model) or "choose one that does"
        raise LayerError(f"layer {idle[0]!r} did not run in the forward pass; {reason}")
    return result


def _answer(
    name: str,
    output: Any,
    fn: Callable[[Tensor], Answer],
    size: InputSize,
    grad: bool,
    layout: LayoutLike,
) -> Any:
    """Hand one output to `fn` as maps, and return what the model shall go on with."""
    stored = main_tensor(output)
    tensor = stored.dequantize() if stored.is_quantized else stored
    reading = read_as(name, output, size, layout, part=split_part(name)[1])
    if grad:
        torch.set_grad_enabled(True)
        tensor = tensor if tensor.requires_grad else _leaf(tensor)
    maps = reading.to_maps(tensor)
    answer = fn(maps)
    if isinstance(answer, _StopType):
        raise Ended
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


def reading_of(
    name: str, output: Any, images: Tensor, layout: LayoutLike
) -> Layout | Rearrangement:
    """Return how a layer's output for images reads as maps: see :func:`intercept`.

    Raises:
        LayerError: it has no grid.
    """
    return read_as(name, output, input_size(images), layout, part=split_part(name)[1])


def observe(
    model: nn.Module,
    visit: Callable[[str, nn.Module, Any], _StopType | None],
    inputs: Inputs,
    *,
    grad: bool = False,
) -> Any:
    """Run `model` once in evaluation mode; `visit` gets (name, module, output) of every submodule.

    With `grad`, the whole pass is recorded. Where `visit` returns :data:`STOP`, the pass ends
    there, and None is returned.
    """
    model, images = of_images(model, inputs)
    named = {name: module for name, module in model.named_modules() if name}

    def visited(name: str, module: nn.Module, output: Any) -> None:
        if visit(name, module, output) is STOP:
            raise Ended

    try:
        return borrowed(model, lambda: model(images), grad=grad, named=named, visit=visited)
    except Ended:
        return None
