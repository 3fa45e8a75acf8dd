"""The model as Captum calls it: counted, its outputs kept, and where asked a copy of its structure.

Captum changes modules that it explains by (hooks, attributes), and trips over activations that
work in place or run more than once. :func:`rewired` makes a copy that shares the weights, in which
each run of an activation is a module of its own, so that the model itself is not touched.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from dff.activations.borrowing import borrowed
from dff.errors import ModelError

__all__ = ["Scored", "activations_of", "rewired"]

ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations", "transformers.activations")
"""Modules of activations, elementwise but for :data:`MIXING`."""
MIXING = ("Softmax", "LogSoftmax", "Softmax2d", "Softmin", "GLU", "MultiheadAttention")
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.Softmax)
"""What DeepLift has rules of its own for."""


class Scored(nn.Module):
    """A model that says how many inputs it has run, and gives outputs again that it has given.

    Args:
        model: from (m, ...) to a tensor (m, ...).
        ran: called with the number of inputs after each run.
    """

    def __init__(self, model: nn.Module, ran: Callable[[int], object]) -> None:
        super().__init__()
        self.model, self.ran = model, ran
        self._kept: list[Tensor] | None = None
        self._again: Iterator[Tensor] | None = None

    def keep(self) -> None:
        """Keep the outputs from now on: what runs next gives them again in their order."""
        self._kept, self._again = [], None

    def again(self) -> None:
        """Give the kept outputs again: the same inputs come in the same order."""
        self._again = iter(self._kept or [])

    def forward(self, x: Tensor) -> Tensor:
        if self._again is not None:
            output = next(self._again)
            assert len(output) == len(x)
        else:
            output = checked(self.model(x), len(x))
            if self._kept is not None:
                self._kept.append(output.detach())
        self.ran(len(x))
        return output


def checked(output: Any, count: int) -> Tensor:
    """Return a model's output, which is a tensor (count, ...).

    Raises:
        ModelError: it is not.
    """
    if not isinstance(output, Tensor) or output.dim() == 0 or len(output) != count:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"attributions explain a tensor ({count}, ...), a row for each input, and the model "
            f"gives {shape}: hand in a module that returns its scores"
        )
    return output


def activations_of(model: nn.Module, which: str) -> list[nn.Module]:
    """Return the activations that a method changes: "elementwise" ones, or "relu" and its kin."""
    if which == "relu":
        return [m for m in model.modules() if isinstance(m, (nn.ReLU, nn.ReLU6))]
    return [
        m
        for m in model.modules()
        if type(m).__module__.startswith(ACTIVATIONS) and type(m).__name__ not in MIXING
    ]


def rewired(model: nn.Module, x: Tensor, which: str) -> nn.Module:
    """Return a copy of a model's structure that Captum can change.

    The weights are shared. Nothing in it works in place, and every activation of the kind asked for
    is an ``nn.ReLU`` to Captum, whose rules for it hold for any elementwise function: the rescale
    rule of DeepLift, and of ReLUs guided backpropagation. One that runs several times stands there
    as often.

    Args:
        model: in evaluation mode while it runs.
        x: an input, to count how often each module runs.
        which: "elementwise", "relu", or "" for none (:func:`activations_of`).

    Raises:
        ModelError: a model that cannot be copied.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        twin = copy.deepcopy(model, shared)
    except Exception as error:  # whatever its code raises
        raise ModelError(
            f"this method changes activations on a copy of the model, which cannot be made: {error}"
        ) from error
    named = dict(twin.named_modules())
    for module in named.values():
        if getattr(module, "inplace", None) is True:
            module.inplace = False
    if not which:
        return twin
    changed = activations_of(twin, which)
    pools = [m for m in named.values() if type(m) in POOLS] if which == "elementwise" else []
    runs = _runs(twin, x, [*changed, *pools])
    stand_ins = {m: _in_turn([_as_relu(m) for _ in range(runs[m] or 1)]) for m in changed}
    stand_ins.update({m: _in_turn([copy.copy(m) for _ in range(runs[m])]) for m in pools
                      if runs[m] > 1})  # fmt: skip
    for parent in list(named.values()):
        for name, child in parent._modules.items():
            if child in stand_ins:
                parent._modules[name] = stand_ins[child]
    return stand_ins.get(twin, twin)


def _runs(model: nn.Module, x: Tensor, modules: list[nn.Module]) -> Counter[nn.Module]:
    runs: Counter[nn.Module] = Counter()

    def visit(_: str, module: nn.Module, __: Any) -> None:
        runs[module] += 1

    named = {str(i): module for i, module in enumerate(modules)}
    borrowed(model, lambda: model(x), named=named, visit=visit)
    return runs


def _as_relu(activation: nn.Module) -> nn.Module:
    """Return a module of the type ``nn.ReLU`` that computes an activation."""
    stand_in = nn.ReLU()
    stand_in.forward = activation.forward  # type: ignore[method-assign]
    return stand_in


class _InTurn(nn.Module):
    """Modules of which each run takes the next one."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.turns = nn.ModuleList(modules)
        self._next = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        module = self.turns[self._next]
        self._next = (self._next + 1) % len(self.turns)
        return module(*args, **kwargs)


def _in_turn(modules: list[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else _InTurn(modules)
