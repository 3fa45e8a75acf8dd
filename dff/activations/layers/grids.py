"""Which layers have a grid that moves with the input: tried once for a model.

:func:`grid_layer` is the one way to a target layer, whether it is named or found.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from dff.activations.failures import MODEL_FAILURES
from dff.activations.hooks import STOP, observe
from dff.activations.layers.movement import PLACES, Movement, movement, patched
from dff.activations.layers.recording import LayerInfo
from dff.activations.layers.survey import Survey
from dff.activations.layouts import Layout, tensors_of
from dff.activations.names import split_part, split_run
from dff.activations.recognition import Ends, Size, detect_layout
from dff.errors import DFFError, LayerError

__all__ = ["grid_layer", "measured"]

ENOUGH, LARGEST = 7, 512
"""The cells a side of a grid on which movement is told, and the side of inputs made for it."""

SHOWN = 4
"""How many of the layers that were tried a message names."""


def grid_layer(model: nn.Module, surveyed: Survey, name: str | None = None) -> LayerInfo:
    """Return the layer of a name, or the default one, if a patch that moves is seen to move there.

    Args:
        model: the model that was surveyed.
        surveyed: all its layers.
        name: dotted name of a layer; None tries the default one, and if it is no grid, all.

    A default layer that is passed over is warned of, with the figure.

    Raises:
        LayerError: no such layer, or its grid is none; where no layer is named, no layer has one.
    """
    info = surveyed.default() if name is None else surveyed[name]
    if info.layout is None:
        return info  # by a layout of the user's, or refused when it runs
    surveyed = measured(model, surveyed, [info.name])
    info = surveyed[info.name]
    if info.movement is None or info.movement.is_grid:
        return info
    if name is not None:
        raise LayerError(
            f"layer {name!r} is no grid of the image: {info.movement.problem} (read as "
            f"{info.layout}); choose another (`dff layers` says how far a patch moves each), or "
            "say how it reads with layout="
        )
    surveyed = measured(model, surveyed, [i.name for i in surveyed.layers if i.layout is not None])
    try:
        found = surveyed.default()
    except LayerError as error:
        tried = [i for i in surveyed.layers if i.movement is not None][-SHOWN:]
        figures = "; ".join(f"{i.name}: {i.movement and i.movement.problem}" for i in tried)
        raise LayerError(
            f"no layer of this model has a grid that follows the image; tried, among others, "
            f"{figures}; say how a layer reads with layer= and layout="
        ) from error
    warnings.warn(
        f"the last layer with the shape of a grid, {info.name!r}, is none: "
        f"{info.movement.problem}; taking {found.name!r}",
        stacklevel=2,
    )
    return found


def measured(model: nn.Module, surveyed: Survey, names: Iterable[str]) -> Survey:
    """Return the survey with the movement of some layers, each in the layout that moves best.

    Two passes as far as the last of the layers: on one input, and on four. A layer that gives no
    item for an input stays untried.
    """
    wanted = [surveyed[name] for name in names]
    tried = _tried(model, surveyed.inputs, wanted)
    done: dict[str, LayerInfo] = {}
    for info in wanted:
        found = [(one.layout, one.movement) for one in tried[info.name] if one.movement]
        moving = [pair for pair in found if pair[1].is_grid]
        if found:
            layout, moved = min(moving or found[:1], key=lambda pair: pair[1].error)
            done[info.name] = replace(info, layout=layout, others=(), movement=moved)
    layers = tuple(done.get(layer.name, layer) for layer in surveyed.layers)
    return replace(surveyed, layers=layers)


@dataclass
class _Trial:
    """A layer read in one layout: its maps of one input after the other, until all are there."""

    layout: Layout
    movement: Movement | None = None
    _maps: list[Tensor] = field(default_factory=list)

    def record(self, output: Tensor, size: Size) -> None:
        layout = self._at(tuple(output.shape), size)
        if layout is None:
            return
        maps = layout.to_maps(output)
        if self._maps and maps.shape[1:] != self._maps[0].shape[1:]:
            return
        seen = [*self._maps, maps]
        if sum(map(len, seen)) > len(PLACES):
            again, *four = seen
            frames = layout.frames or 1
            self.movement, self._maps = movement(torch.cat(four), again, frames), []
        else:
            self._maps.append(maps.clone())  # what follows in place would change it

    def _at(self, shape: tuple[int, ...], size: Size) -> Layout | None:
        """Return the layout at another input size: as many tokens are no grid's there."""
        if self.layout.kind != "tokens" or shape[1] == self.layout.tokens:
            return self.layout
        found = detect_layout(shape, size, Ends(self.layout.prefix, self.layout.suffix))
        return found and replace(found, part=self.layout.part)


_Trials = dict[str, list[_Trial]]


def _tried(model: nn.Module, noise: Tensor, wanted: list[LayerInfo]) -> _Trials:
    """Run the model on the first of the patched inputs, and then on all.

    In a grid of few cells everything sees everything: larger inputs are taken then, if they can.
    """
    if (factor := _factor(noise, wanted)) > 1:
        larger = patched(noise.repeat(*[1] * (noise.dim() - 2), factor, factor))
        with suppress(*MODEL_FAILURES, DFFError):
            return _recorded(model, wanted, [larger[:1], larger])
    inputs = patched(noise)
    with suppress(*MODEL_FAILURES, DFFError):
        return _recorded(model, wanted, [inputs[:1], inputs])
    # It takes one image at a time.
    return _recorded(model, wanted, [inputs[:1], *inputs.split(1)])


def _factor(noise: Tensor, wanted: list[LayerInfo]) -> int:
    """Return how many times as large an input gives the smallest of the grids enough cells."""
    sides = [info.layout.cols for info in wanted if info.layout]
    factor = 1
    while factor * min(sides) < ENOUGH and 2 * factor * max(noise.shape[-2:]) <= LARGEST:
        factor *= 2
    return factor


def _recorded(model: nn.Module, wanted: list[LayerInfo], batches: list[Tensor]) -> _Trials:
    trials: _Trials = {
        info.name: [_Trial(layout) for layout in (info.layout, *info.others) if layout]
        for info in wanted
    }
    of_run: _OfRun = {}
    for name, several in trials.items():
        module, run = split_run(split_part(name)[0])
        of_run.setdefault((module, run or 1), []).extend(several)
    for batch in batches:
        observe(model, _recorder(dict(of_run), batch), batch)
    return trials


_OfRun = dict[tuple[str, int], list[_Trial]]
"""The trials that a run of a module, counted from 1, is for."""


def _recorder(left: _OfRun, batch: Tensor) -> Callable[[str, nn.Module, Any], Any]:
    """Return what records the outputs of the runs `left`, and ends the pass after all."""
    runs: Counter[str] = Counter()

    def visit(name: str, _module: nn.Module, output: Any) -> Any:
        runs[name] += 1
        trials = left.pop((name, runs[name]), [])
        if trials:
            tensor = tensors_of(output)[0].detach()
            tensor = tensor.dequantize() if tensor.is_quantized else tensor
            if len(tensor) != len(batch):
                raise LayerError(f"layer {name!r} gives {len(tensor)} items of {len(batch)}")
            for trial in trials:
                trial.record(tensor, tuple(batch.shape[2:]))
        return None if left else STOP

    return visit
