"""A layer's activations, and the rest of the model after it: the only place that registers a hook.

- :mod:`~dff.activations.hooks`: :func:`intercept` a layer while the model runs: capture, stop,
  replace and append are all this one thing. :func:`record` what layers put out, whatever its form.
  :func:`observe` every module of one pass.
- :mod:`~dff.activations.borrowing`: what a pass changes in a model, and gives back.
- :mod:`~dff.activations.context`: models that take more than an image, as models of images.
- :mod:`~dff.activations.failures`: what a model raises, explained.
- :mod:`~dff.activations.memory`: the order in which a model would have met a tensor's axes.
- :mod:`~dff.activations.interrupts`: set-up and clean-up that no signal comes into.
- :mod:`~dff.activations.layouts`: how an output reads as maps (batch, channels, rows, cols).
- :mod:`~dff.activations.recognition`: which of these an output's shape allows.
- :mod:`~dff.activations.names`: layers by name, thirds of fused ones, and single runs.
- :mod:`~dff.activations.reach`: what has a say in the output, and where no gradient passes.
- :mod:`~dff.activations.layers`: which layers there are, which are grids, where their cells lie.
- :mod:`~dff.activations.stitching`: a grid made finer, by shifting the input.
- :mod:`~dff.activations.tail`: the rest of the model, from maps to scores.
"""

from __future__ import annotations

from dff.activations.context import IMAGE, Arguments, Fixed, Given
from dff.activations.hooks import (
    STOP,
    Answer,
    Appended,
    LayoutLike,
    Replaced,
    intercept,
    observe,
    reading_of,
    record,
)
from dff.activations.names import resolve_layer, split_part
from dff.activations.stitching import stitched
from dff.activations.tail import Tail, run_scored

__all__ = [
    "IMAGE",
    "STOP",
    "Answer",
    "Appended",
    "Arguments",
    "Fixed",
    "Given",
    "LayoutLike",
    "Replaced",
    "Tail",
    "intercept",
    "observe",
    "reading_of",
    "record",
    "resolve_layer",
    "run_scored",
    "split_part",
    "stitched",
]
