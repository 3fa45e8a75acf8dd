"""The record of each photo, out of what the pass of all left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dff.activations import Tail
from dff.explain.inputs import Shot
from dff.explain.one_pass import Tape
from dff.explain.photo import Photo, Strip
from dff.explain.shared import SharedConcepts
from dff.maps import Grid

__all__ = ["Group", "photos_of"]


@dataclass(frozen=True, eq=False)
class Group:
    """What the pass left of photos that ran together.

    Attributes:
        batch: the places of the photos in the call.
        tape: activations and logits.
        coefficients: (n, k, rows, cols).
        tail: the rest of the model.
        grid: of the layer's maps.
        probed: (n, m, classes) of the photos' probes; None where there were none.
    """

    batch: Sequence[int]
    tape: Tape
    coefficients: Tensor
    tail: Tail
    grid: Grid
    probed: Tensor | None


def photos_of(
    shots: Sequence[Shot],
    groups: Sequence[Group],
    shared: SharedConcepts,
    *,
    fine: int,
    clip: tuple[int, int] | None,
) -> tuple[Photo, ...]:
    """Return the photos of a call in its order, the frames of a clip one after the other.

    Args:
        shots: the pictures of each input.
        groups: what the pass left.
        shared: the concepts.
        fine: how many times as fine as the layer's the maps' grid is.
        clip: of clips, how many grids and how many frames there are.
    """
    photos: dict[int, list[Photo]] = {}
    for group in groups:
        logits = group.tape.logits.detach().float().cpu()
        for item, i in enumerate(group.batch):
            probed = None if group.probed is None else group.probed[item].float()
            frames = _frames(group.coefficients[item].cpu(), clip)
            photos[i] = [
                Photo(
                    picture, shared, at_frame, group.grid, fine, logits[item], group.tape,
                    group.tail, item, strip, probed,
                )
                for picture, (at_frame, strip) in zip(shots[i], frames, strict=True)
            ]  # fmt: skip
    return tuple(photo for i in range(len(shots)) for photo in photos[i])


def _frames(
    coefficients: Tensor, clip: tuple[int, int] | None
) -> list[tuple[Tensor, Strip | None]]:
    """Return the coefficients of a photo, or those of each frame of a clip."""
    if clip is None:
        return [(coefficients, None)]
    grids, count = clip
    strips = [Strip(coefficients, grids, i, count) for i in range(count)]
    return [(strip.at_frame(coefficients), strip) for strip in strips]
