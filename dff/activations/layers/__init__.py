"""Which layers a model has, which of them have a grid, and how its cells lie over the input.

- :mod:`~dff.activations.layers.survey`: all layers of a model by one recorded pass.
- :mod:`~dff.activations.layers.recording`: what that pass shows of each.
- :mod:`~dff.activations.layers.grids`: the target layer, tried: a grid is what moves.
- :mod:`~dff.activations.layers.movement`: how far a patch takes a layer's response along.
- :mod:`~dff.activations.layers.geometry`: where the cells lie, and what they see.
"""

from __future__ import annotations

from dff.activations.layers.geometry import Geometry
from dff.activations.layers.grids import grid_layer, measured
from dff.activations.layers.movement import Movement
from dff.activations.layers.recording import LayerInfo
from dff.activations.layers.survey import Survey, probe_input, survey

__all__ = [
    "Geometry",
    "LayerInfo",
    "Movement",
    "Survey",
    "grid_layer",
    "measured",
    "probe_input",
    "survey",
]
