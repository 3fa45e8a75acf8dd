"""The target layer of a model: surveyed and tried once, and what follows for scores."""

from __future__ import annotations

from torch import Tensor, nn

from dff.activations import LayoutLike
from dff.activations.borrowing import plainly
from dff.activations.failures import model_errors
from dff.activations.layers import LayerInfo, Survey, grid_layer, survey
from dff.activations.outputs import Score
from dff.activations.recognition import Ends

__all__ = ["ends_of", "target_layer", "why_unscored"]


def target_layer(
    model: nn.Module,
    probe: Tensor,
    name: str | None = None,
    layout: LayoutLike = None,
    *,
    score: Score | None = None,
    head: bool = True,
    output_kind: str | None = None,
) -> tuple[Survey, LayerInfo]:
    """Survey a model on a probe input; return the survey and the layer of a name, or the default.

    A layer that is named with a layout is taken at the user's word; any other is tried
    (:func:`dff.activations.layers.grid_layer`).

    Raises:
        LayerError: no such layer, or none with a grid.
        ModelError: the model fails on the probe.
    """
    with model_errors(model, probe, try_sizes=True):
        surveyed = plainly(
            lambda: survey(model, probe, score=score, head=head, output_kind=output_kind)
        )
        if name is not None and layout is not None:
            return surveyed, surveyed[name]
        return surveyed, plainly(lambda: grid_layer(model, surveyed, name), grad=False)


def ends_of(info: LayerInfo) -> LayoutLike:
    """Return how many tokens are no grid's, as found at the probe's size; None for maps."""
    layout = info.layout
    tokens = layout is not None and layout.kind == "tokens"
    return Ends(layout.prefix, layout.suffix) if tokens and layout else None


def why_unscored(info: LayerInfo) -> str | None:
    """Return why a layer's concepts cannot be scored; None if they can."""
    if info.layout is None or info.reaches:  # what is read by a layout of the user's reaches
        return None
    return (
        f"the grid of layer {info.name!r} has no say in the model's scores (these read nothing of "
        "it, as where only a class token is read): its concepts have maps, but no scores; choose "
        "an earlier layer"
    )
