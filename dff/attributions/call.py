"""One call for all methods: what in the input speaks for one number of a module's output."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dff.activations import LayoutLike, reading_of, resolve_layer
from dff.activations.borrowing import borrowed, plainly
from dff.activations.failures import model_errors
from dff.activations.layouts import main_tensor
from dff.activations.names import split_run
from dff.activations.reach import no_gradients
from dff.attributions.captum_calls import Call
from dff.attributions.forward import Scored, activations_of, checked, rewired
from dff.attributions.methods import METHODS, Method, attribution_method
from dff.attributions.settings import checked as checked_settings
from dff.attributions.settings import fitting_baseline
from dff.attributions.targets import Place, places
from dff.errors import LayerError, ModelError, OutOfMemoryError, UsageError
from dff.maps import Grid, upsample

__all__ = ["Attribution", "TargetLayer", "attribute", "why_not"]

BATCH = 16
"""Inputs that run at a time, at most."""

Progress = Callable[[int], object]
"""Called with how many inputs have run, after each of the model's runs."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """What in n inputs speaks for a number of the output, and what against it.

    Attributes:
        values: (n, channels, height, width) float32, signed; one channel of methods that explain by
            a layer.
        scores: (n,) float32, the numbers that are explained.
        delta: (n,) float32, the sum of the values less what it should be, the score less the
            baseline's; None where the method's values do not add up to anything.
        method: a key of :data:`dff.attributions.METHODS`.
        settings: all of the method's.
    """

    values: Tensor
    scores: Tensor
    delta: Tensor | None
    method: str
    settings: Mapping[str, Any]

    @property
    def relative_delta(self) -> Tensor | None:
        """(n,) |delta| as a share of the score less the baseline's; None without a delta."""
        if self.delta is None:
            return None
        whole = self.values.sum((1, 2, 3)) - self.delta
        return self.delta.abs() / whole.abs().clamp_min(1e-12)


@dataclass(frozen=True, eq=False)
class TargetLayer:
    """A layer, how its output reads as maps, and where their cells lie.

    Attributes:
        layer: a module, or its dotted name.
        layout: see :func:`dff.activations.intercept`; None recognises it.
        grid: of the cells in the input; None takes them for tiles.
    """

    layer: nn.Module | str
    layout: LayoutLike = None
    grid: Grid | None = None


def attribute(
    forward: nn.Module,
    inputs: Tensor,
    target: Any = None,
    method: str = "integrated-gradients",
    *,
    layer: TargetLayer | nn.Module | str | None = None,
    settings: Mapping[str, Any] | None = None,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> Attribution:
    """Say what in each input speaks for a number of a module's output, by one of Captum's methods.

    The module runs in evaluation mode and is given back as it was, also after a failure; its
    weights may be frozen, and the call may be made inside of ``torch.no_grad()``. Where memory runs
    out, fewer inputs run at a time.

    Args:
        forward: any module, from (n, channels, height, width) to a tensor (n, ...).
        inputs: (n, channels, height, width), normalised as the module expects. One input serves
            several targets.
        target: the place of the number in each output: an index, or a tuple of one for each axis
            but the first; one for all inputs, or one each. None: the output is one number an input.
        method: a key of :data:`dff.attributions.METHODS`.
        layer: the target layer, of methods that explain by one.
        settings: of the method, in place of its defaults (:mod:`dff.attributions.settings`).
        batch: how many inputs run at a time, at most.
        progress: see :data:`Progress`.

    Raises:
        UsageError: no such method or setting, or a target that does not fit inputs and output.
        MissingExtraError: Captum is not installed.
        ModelError: the method cannot explain this module, the module failed, or there are NaN.
        LayerError: no such layer, or one without a grid.
        OutOfMemoryError: one input alone is too much.
    """
    chosen = attribution_method(method)
    name = next(key for key, value in METHODS.items() if value is chosen)
    complete = checked_settings(name, chosen.settings, settings or {})
    x = _inputs(inputs)
    fitting_baseline(complete, x)
    if batch < 1:
        raise UsageError(f"batch is a whole number from 1 on, not {batch!r}")
    at = layer if isinstance(layer, TargetLayer) or layer is None else TargetLayer(layer)
    if reason := why_not(name, forward, at):
        raise ModelError(_with_others(reason, forward, at))
    work = _Work(forward, name, chosen, complete, at, progress or (lambda _: None))
    return plainly(lambda: work.attribution(x, target, batch))


def why_not(method: str, forward: nn.Module, layer: TargetLayer | None = None) -> str | None:
    """Return why a method cannot explain a module (by a layer); None where it can."""
    chosen = attribution_method(method)
    if chosen.gradients and no_gradients(forward):
        return f"{method} needs gradients, and none pass int8 layers"
    if chosen.layer and layer is None:
        return f"{method} explains by a layer, and none is named"
    if chosen.rewired == "relu" and not activations_of(forward, "relu"):
        return (
            f"{method} changes what ReLU modules pass back, and this model has none (ReLUs called "
            "as functions are not seen): without them it is the gradient, which is saliency"
        )
    return None


@contextmanager
def _own_draws(device: torch.device) -> Iterator[None]:
    """Leave the global random states, which Captum draws from, as they are."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    devices = [device.index or 0] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002


def _with_others(reason: str, forward: nn.Module, layer: TargetLayer | None) -> str:
    able = [name for name in METHODS if why_not(name, forward, layer) is None]
    return f"{reason}; this model can have {', '.join(able)}"


def _inputs(inputs: Tensor) -> Tensor:
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or not len(inputs):
        shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise UsageError(f"inputs are a tensor (n, channels, height, width), not {shape}")
    if not inputs.is_floating_point():
        raise UsageError(f"inputs are normalised, of floating point, not {inputs.dtype}")
    return inputs.detach()


@dataclass(frozen=True, eq=False)
class _Work:
    """A method on a module."""

    forward: nn.Module
    name: str
    method: Method
    settings: Mapping[str, Any]
    layer: TargetLayer | None
    progress: Progress

    def attribution(self, x: Tensor, target: Any, batch: int) -> Attribution:
        output = self._output(x, batch)
        wanted = places(target, tuple(output.shape[1:]), len(x))
        if len(x) == 1 and len(wanted) > 1:
            x, output = (
                x.expand(len(wanted), -1, -1, -1),
                output.expand(len(wanted), *output.shape[1:]),
            )
        scores = torch.stack([output[i][place] for i, place in enumerate(wanted)]).reshape(-1)
        if not bool(torch.isfinite(scores).all()):
            raise ModelError("the model's scores are NaN or infinite: there is nothing to explain")
        with _own_draws(x.device), warnings.catch_warnings():
            # Captum says of each call what it does to its own copies.
            warnings.filterwarnings("ignore", message="(?s).*(Input Tensor|Setting (for|back)ward)")
            values, delta = self._all(x, wanted, batch)
        if not bool(torch.isfinite(values).all()):
            raise ModelError(
                f"the map by {self.name} holds NaN or infinity: look at the input, the weights, "
                "and the precision the model runs in"
            )
        return Attribution(values, scores.float().cpu(), delta, self.name, self.settings)

    def _output(self, x: Tensor, batch: int) -> Tensor:
        def run() -> Tensor:
            parts = [checked(self.forward(part), len(part)) for part in x.split(batch)]
            return torch.cat(parts)

        with model_errors(self.forward, x):
            return borrowed(self.forward, run)

    def _all(self, x: Tensor, wanted: Sequence[Place], batch: int) -> tuple[Tensor, Tensor | None]:
        """Explain the inputs, those of methods that evaluate each several times one by one."""
        model, layer = self.forward, None
        if self.method.rewired is not None:
            with model_errors(self.forward, x):
                model = rewired(self.forward, x[:1], self.method.rewired)
        if self.method.layer:
            layer = resolve_layer(model, self._layer_name())[1]
        scored = Scored(model, self.progress)
        together = 1 if self.method.repeated else batch
        found = []
        for start in range(0, len(x), together):
            part = slice(start, start + together)
            same = start > 0 and x.stride(0) == 0  # one input, of several targets
            found.append(self._fitting(scored, layer, x[part], wanted[part], batch, same))
        deltas = [delta for _, delta in found if delta is not None]
        return torch.cat([values for values, _ in found]), torch.cat(deltas) if deltas else None

    def _fitting(
        self, scored: Scored, layer: nn.Module | None, x: Tensor, wanted: Sequence[Place],
        batch: int, same: bool,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Explain some inputs, with fewer running at a time where memory runs out."""
        while True:
            try:
                return self._explained(scored, layer, x, wanted, batch, same)
            except OutOfMemoryError:
                if batch == 1:
                    raise
            batch, same = batch // 2, False
            warnings.warn(
                f"memory ran out in {self.name}: going on with {batch} at a time",
                RuntimeWarning,
                stacklevel=2,
            )

    def _explained(
        self, scored: Scored, layer: nn.Module | None, x: Tensor, wanted: Sequence[Place],
        batch: int, same: bool,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        if "seed" in self.settings:
            torch.manual_seed(self.settings["seed"])
            np.random.seed(self.settings["seed"] % 2**32)  # noqa: NPY002 - what Captum draws from
        if not self.method.gradients:  # the same outputs serve every target
            scored.again() if same else scored.keep()
        target: Any = None if not wanted[0] else wanted[0] if len(wanted) == 1 else list(wanted)
        leaf = x.clone().requires_grad_(self.method.gradients)
        call = Call(scored, leaf, target, self.settings, batch, layer)
        with model_errors(self.forward, x):
            values, delta = borrowed(
                scored, lambda: self.method.run(call), grad=self.method.gradients
            )
        values = values.detach().float()
        if self.method.layer:
            values = self._on_pixels(values, x)
        return values.cpu(), None if delta is None else delta.detach().float().cpu().reshape(-1)

    def _on_pixels(self, values: Tensor, x: Tensor) -> Tensor:
        """Add a layer's values up over its channels, and bring their cells to the input's size."""
        assert self.layer is not None
        reading = reading_of(self._layer_name(), values, x, self.layer.layout)
        cells = reading.to_maps(main_tensor(values)).sum(1, keepdim=True)
        return upsample(cells, (int(x.shape[-2]), int(x.shape[-1])), self.layer.grid)

    def _layer_name(self) -> str:
        assert self.layer is not None
        name = resolve_layer(self.forward, self.layer.layer)[0]
        if split_run(name)[1]:
            raise LayerError(f"{self.name} explains by a layer that runs once, not {name!r}")
        return name
