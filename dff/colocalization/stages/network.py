"""A model made ready for batches: 8-bit squares in, activation rows and logits out."""

from __future__ import annotations

import hashlib
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.activations import STOP, Answer, Tail, intercept
from dff.activations.failures import model_errors
from dff.activations.layers import probe_input
from dff.activations.layouts import over_grid
from dff.activations.memory import input_format
from dff.colocalization.stages.fusing import fused
from dff.concepts import ConceptBank
from dff.errors import OutOfMemoryError, UsageError
from dff.explain import Explainer
from dff.maps import Grid

__all__ = ["PRECISIONS", "Network", "Passed"]

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Passed:
    """What a batch gave.

    Attributes:
        rows: (n, cells, channels) activations on the network's grid, in the precision they were
            computed in.
        logits: (n, classes) float32; None where the model has none, or was stopped.
    """

    rows: Tensor
    logits: Tensor | None


class Network:
    """An explainer's model at its layer, at one input size.

    Args:
        explainer: model, layer, preprocessing.
        precision: "float32"; "bfloat16" (autocast: about twice as fast on processors that have
            it); "auto" is bfloat16 on GPUs, and on CPUs float32, so that results are those of
            `dff analyze`, until a trial has shown that they stay so.

    Raises:
        UsageError: no such precision, or an explainer with a factorizer of its own.
        LayerError: the layer has no grid at this input size.
    """

    def __init__(self, explainer: Explainer, *, precision: str = "auto") -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        if explainer.factorizer is not None:
            raise UsageError("a dataset is fitted by NMF or semi-NMF: give no factorizer")
        self.explainer = explainer
        self.layer, self.device = explainer.layer, explainer.device
        self.name, self.class_names = explainer.name, explainer.class_names
        self.fine, self.meaning = explainer.fine, explainer.meaning
        self.preprocessing = replace(explainer.preprocessing, fixed=True)  # so that batches form
        if precision == "auto":
            precision = "float32" if self.device.type == "cpu" else "bfloat16"
        self.precision = precision
        size, channels = self.preprocessing.size, self.preprocessing.channels
        probe_image = probe_input((size, size), explainer.model, channels)
        self.model = fused(explainer.model, self.layer, probe_image)
        self._memory = input_format(explainer.model)
        self._most = sys.maxsize  # images at a time, once memory ran out
        probe = self(self._black())
        self.channels = int(probe.rows.shape[2])
        self.classes = None if probe.logits is None else int(probe.logits.shape[1])
        own = explainer.grid(torch.empty(self._shape), torch.empty(size, size))
        self.grid: Grid = own.finer(self.fine)

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, cols) of the grid."""
        return self.grid.shape

    def __call__(self, pixels: np.ndarray, *, predict: bool = True) -> Passed:
        """Run a batch of levels (n, size, size, channels); end at the layer unless `predict`.

        A model without a head ends there always.

        Where memory runs out, it runs as two halves, and so do later ones of its size.

        Raises:
            ModelError: the model fails on it.
            OutOfMemoryError: one image alone is too much.
        """
        if len(pixels) <= self._most:
            try:
                return self._passed(pixels, predict)
            except OutOfMemoryError:
                if len(pixels) < 2:
                    raise
            self._most = len(pixels) // 2
            warnings.warn(
                f"memory ran out on {len(pixels)} images at once: going on with {self._most}",
                RuntimeWarning,
                stacklevel=2,
            )
        parts = [self(pixels[start : start + self._most], predict=predict)
                 for start in range(0, len(pixels), self._most)]  # fmt: skip
        logits = [part.logits for part in parts if part.logits is not None]
        rows = torch.cat([part.rows for part in parts])
        return Passed(rows, torch.cat(logits) if len(logits) == len(parts) else None)

    def _passed(self, pixels: np.ndarray, predict: bool) -> Passed:
        seen: list[Tensor] = []

        def capture(maps: Tensor) -> Answer:
            seen.append(maps)
            self._shape = (int(maps.shape[2]), int(maps.shape[3]))
            return None if predict and not self.explainer.headless else STOP

        x = self._input(pixels)
        output = self._run(x, capture)
        rows = self.explainer.stitch(seen[0], x, self._to_layer).permute(0, 2, 3, 1).flatten(1, 2)
        # No mean over positions stands in for a classifier's logits.
        scored = predict and not self.explainer.headless and not self.meaning.pooled
        logits = self.meaning(output).float() if scored else None
        return Passed(rows.contiguous(), logits)

    def concept_logits(self, bank: ConceptBank) -> tuple[Tensor, Tensor] | None:
        """Return the logits (k, classes) of each concept laid over the grid at full presence.

        And those (classes,) of an empty grid. None where the model has no logits, or the layer
        no say in them.
        """
        if self.classes is None or self.explainer.unscored:
            return None
        concepts = torch.cat([bank.at_full_presence, torch.zeros_like(bank.components[:1])])
        maps = torch.empty(1, self.channels, *self._shape, dtype=self.explainer.dtype)
        black = self._input(self._black())
        tail = Tail(self.model, self.layer, black, layout=self.explainer.layout,
                    score=self.meaning)  # fmt: skip
        logits = tail(over_grid(concepts, maps.to(self.device))).float()
        return logits[:-1], logits[-1]

    def digest(self) -> str:
        """Return a digest of all parameters and buffers."""
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(self.explainer.model.state_dict().items()):
            digest.update(name.encode())
            # int8 layers keep (weight, bias), and their dtype
            for part in value if isinstance(value, tuple) else (value,):
                digest.update(_bytes_of(part))
        return digest.hexdigest()

    def _black(self) -> np.ndarray:
        return np.zeros((1, *(self.preprocessing.size,) * 2, self.preprocessing.channels), np.uint8)

    def _input(self, pixels: np.ndarray) -> Tensor:
        levels = torch.from_numpy(pixels).to(self.device)
        x = self.preprocessing.normalise(levels).to(self.explainer.dtype)
        return x.permute(0, 3, 1, 2).contiguous(memory_format=self._memory)

    def _to_layer(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def capture(maps: Tensor) -> Answer:
            seen.append(maps)
            return STOP

        self._run(x, capture)
        return seen[0]

    def _run(self, x: Tensor, fn: Any) -> Any:
        with model_errors(self.model, x), self._autocast(), torch.inference_mode():
            return intercept(self.model, self.layer, fn, x, layout=self.explainer.layout)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def _bytes_of(value: Any) -> bytes:
    """Return the numbers of a tensor as bytes; what else a state holds as it is printed."""
    if not isinstance(value, Tensor):
        return repr(value).encode()
    plain = value.dequantize() if value.is_quantized else value
    flat = plain.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()
