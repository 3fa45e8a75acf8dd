"""A model made ready for batches: 8-bit squares in, activation rows and logits out."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.activations import STOP, Answer, intercept
from dff.activations.borrowing import model_errors
from dff.activations.layers import probe_input
from dff.activations.layouts import main_tensor, read_scores
from dff.colocalization.stages.fusing import fused
from dff.concepts import ConceptBank
from dff.errors import LayerError, OutOfMemoryError, UsageError
from dff.explain import Explainer
from dff.maps import Grid

__all__ = ["PRECISIONS", "Network", "Passed"]

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Passed:
    """What a batch gave.

    Attributes:
        rows: (n, cells, channels) activations, in the precision they were computed in.
        logits: (n, classes) float32; None where the model has none, or was stopped.
    """

    rows: Tensor
    logits: Tensor | None


class Network:
    """An explainer's model at its layer, at one input size.

    Args:
        explainer: model, layer, preprocessing.
        precision: "float32"; "bfloat16" (autocast: about twice as fast on processors that have
            it); "auto" is float32 on CPUs, so that results are those of `dff analyze`, and
            bfloat16 on GPUs.

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
        self.preprocessing = replace_fixed(explainer.preprocessing)
        if precision == "auto":
            precision = "float32" if self.device.type == "cpu" else "bfloat16"
        self.precision = precision
        size = self.preprocessing.size
        self.model = fused(explainer.model, self.layer, probe_input((size, size), explainer.model))
        scale, shift = self.preprocessing.affine()
        # a value for each number of a row of pixels: R, G, B, R, G, B, ...
        self._scale, self._shift = (
            v.flatten().repeat(size).to(self.device) for v in (scale, shift)
        )
        self._most = sys.maxsize  # images at a time, once memory ran out
        probe = self(np.zeros((1, size, size, 3), np.uint8))
        self.channels = int(probe.rows.shape[2])
        self.classes = None if probe.logits is None else int(probe.logits.shape[1])
        rows, cols = self._shape
        self.grid: Grid = explainer.grid(torch.empty(1, rows, cols), torch.empty(3, size, size))

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, cols) of the grid."""
        return self._shape

    def __call__(self, pixels: np.ndarray, *, predict: bool = True) -> Passed:
        """Run a batch, uint8 (n, size, size, 3), RGB; end at the layer unless `predict`.

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
        parts = [self(pixels[at : at + self._most], predict=predict)
                 for at in range(0, len(pixels), self._most)]  # fmt: skip
        logits = [part.logits for part in parts if part.logits is not None]
        rows = torch.cat([part.rows for part in parts])
        return Passed(rows, torch.cat(logits) if len(logits) == len(parts) else None)

    def _passed(self, pixels: np.ndarray, predict: bool) -> Passed:
        seen: list[Tensor] = []

        def capture(maps: Tensor) -> Answer:
            seen.append(maps)
            self._shape = (int(maps.shape[2]), int(maps.shape[3]))
            return None if predict and not self.explainer.headless else STOP

        output = self._run(self._input(pixels), capture)
        rows = seen[0].permute(0, 2, 3, 1).flatten(1, 2)
        return Passed(rows.contiguous(), self._logits(output, len(pixels)))

    def concept_logits(self, bank: ConceptBank) -> tuple[Tensor, Tensor] | None:
        """Return the logits (k, classes) of each concept laid over the grid at full presence.

        And those (classes,) of an empty grid. None where the model has no logits, or the layer
        no say in them.
        """
        if self.classes is None or self.explainer.unscored:
            return None
        size = self.preprocessing.size
        concepts = torch.cat([bank.at_full_presence, torch.zeros_like(bank.components[:1])])

        def lay(maps: Tensor) -> Answer:
            return concepts.to(maps)[:, :, None, None].expand(-1, -1, *maps.shape[2:])

        pixels = np.zeros((len(concepts), size, size, 3), np.uint8)
        logits = self._logits(self._run(self._input(pixels), lay), len(concepts))
        assert logits is not None
        return logits[:-1], logits[-1]

    def digest(self) -> str:
        """Return a digest of all parameters and buffers."""
        digest = hashlib.blake2b(digest_size=8)
        for name, tensor in sorted(self.explainer.model.state_dict().items()):
            digest.update(name.encode())
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(memoryview(flat.view(torch.uint8).numpy()))
        return digest.hexdigest()

    def _input(self, pixels: np.ndarray) -> Tensor:
        levels = torch.from_numpy(pixels).to(self.device).flatten(2)
        x = levels.float().mul_(self._scale).add_(self._shift).to(self.explainer.dtype)
        return x.view(pixels.shape).permute(0, 3, 1, 2)  # channels-last

    def _run(self, x: Tensor, fn: Any) -> Any:
        with model_errors(x), self._autocast(), torch.inference_mode():
            return intercept(self.model, self.layer, fn, x, layout=self.explainer.layout)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _logits(self, output: Any, count: int) -> Tensor | None:
        if output is not None and self.explainer.score is not None:
            return read_scores(output, self.explainer.score).float()
        try:
            logits = None if output is None else main_tensor(output)
        except LayerError:
            return None
        if logits is None or logits.ndim != 2 or len(logits) != count:
            return None
        return logits.float()


def replace_fixed(preprocessing: Any) -> Any:
    """Return the preprocessing that squashes every photo to one square, so that batches form."""
    return replace(preprocessing, fixed=True)


def batches(ids: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cut a sequence into pieces of `size`."""
    return [ids[start : start + size] for start in range(0, len(ids), size)]
