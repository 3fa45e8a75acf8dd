"""A grid is what moves: how far a patch that moves over the input takes a layer's response along.

A layer may have the shape of a grid and be none: queries of a detector, tokens in another order,
cells that have all seen everything alike. So four inputs with a bright patch in one of four places
are run. Where a place is seen is where the activations stand out most for it: by their difference
from the mean over all places, which takes away what a patch changes wherever it lies, and compared
with the other places' differences, each as a share of its sum. The middle of what stands out must
follow the patch along both axes, and must not go aside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Movement", "movement", "patched"]

BRIGHT = 2.0
"""What a patch adds to noise of unit variance."""

PLACES = ((0, 0, 0), (1, 0, 1), (1, 1, 0), (0, 1, 1))
"""The quarters (later, down, right) of the input in whose middle a patch of half their size lies.

Images have no frames, and the four quarters all the same. Over four places, moves along any two
axes are independent of each other.
"""

RATES = (0.6, 1.5)
MOST_ASIDE = 0.25
"""The end of a trained network of 12 blocks was seen to move by 0.83 to 1.0, 0.16 aside at most;
tokens read in another order by 0.7 along the one axis and 0.1 along the other."""

LEAST_LATER = 0.1
"""Of time little can be asked: grids of two cells are customary, each of which sees both halves."""

MOST_NOISE = 0.05
"""Of two runs on one input, which differ a little by batch and by the scales of int8 layers."""

LEAST_RESPONSE = 1e-9
"""Below it lies rounding, as a share of the squared activations."""


@dataclass(frozen=True)
class Movement:
    """How the centre of a layer's response follows a patch: ways as shares of the patch's own.

    Attributes:
        down: how far the response goes down with a patch that goes down; 1 is as far.
        right: likewise to the right.
        later: likewise to later frames; None for images, and for one grid of all frames.
        aside: the most that it goes along the other axis meanwhile.
        shift: how far the middle of the responses lies from that of the patches, in sides.
        response: squared difference between places, as a share of the squared activations.
        noise: squared difference of two runs on one input, as a share of that between places.
    """

    down: float
    right: float
    later: float | None
    aside: float
    shift: float
    response: float
    noise: float

    @property
    def is_grid(self) -> bool:
        """Whether the patch moves in the layer: along both axes at its rate, and not aside."""
        return self.problem is None

    @property
    def problem(self) -> str | None:
        """What speaks against a grid; None where nothing does."""
        if not self.response > LEAST_RESPONSE:
            return "it is the same wherever a bright patch lies"
        if not self.noise <= MOST_NOISE:
            return (
                "two runs on the same input differ there by "
                f"{min(self.noise, 9.99):.0%} of what moving a bright patch changes (something is "
                "drawn at random, such as a mask)"
            )
        follows = all(RATES[0] <= rate <= RATES[1] for rate in (self.down, self.right))
        if self.later is not None and not self.later >= LEAST_LATER:
            follows = False
        return None if follows and self.aside <= MOST_ASIDE else str(self)

    @property
    def error(self) -> float:
        """How far from that of a grid the movement is; 0 is none."""
        return abs(self.down - 1) + abs(self.right - 1) + self.aside + self.shift

    def __str__(self) -> str:
        later = "" if self.later is None else f", {self.later:.0%} to later frames"
        return (
            f"a patch that moves takes its response along {self.down:.0%} of its way down and "
            f"{self.right:.0%} to the right{later}, and {self.aside:.0%} aside"
        )


def patched(noise: Tensor) -> Tensor:
    """Return an input (1, channels, height, width) four times, with a bright patch at each place.

    So for clips (1, channels, frames, height, width). Sides of less than four pixels have patches
    of one pixel.
    """
    inputs = noise.repeat(len(PLACES), *[1] * (noise.dim() - 1))
    size = noise.shape[2:]
    for item, place in zip(inputs, PLACES, strict=True):
        view = item
        for axis, (far, length) in enumerate(zip(place[-len(size) :], size, strict=True), 1):
            first = int(length * (1 + 4 * far) / 8)
            view = view.narrow(axis, first, max(length // 4, 1))
        view += BRIGHT
    return inputs


def movement(maps: Tensor, again: Tensor, frames: int = 1) -> Movement:
    """Judge a layer by what it makes of the inputs of :func:`patched`.

    Args:
        maps: (4, channels, frames · rows, cols), the patch at each of its places.
        again: (1, channels, frames · rows, cols) of another run on the first of the inputs.
        frames: how many grids lie one below the other.
    """
    maps, again = maps.detach().double(), again.detach().double()
    power = (maps - maps.mean(0)).square().sum(1)
    noise = float((again - maps[:1]).square().sum())
    centres = _centres(power.unflatten(1, (frames, -1)))
    # How far the middle goes along each axis (rows) with a patch that goes along each (columns).
    ways = centres @ _CONTRASTS / 0.5  # between the middles of two quarters lies half of the side
    along = ways.diagonal()
    aside = (ways - along.diag())[1:, 1:]
    mean_power = float(power.sum()) / len(power)
    return Movement(
        down=float(along[1]),
        right=float(along[2]),
        later=float(along[0]) if frames > 1 else None,
        aside=float(aside.abs().max()),
        shift=float((centres[1:].mean(1) - 0.5).abs().max()),
        response=mean_power / max(float(maps.square().sum()) / len(maps), 1e-300),
        noise=noise / max(mean_power, 1e-300),
    )


_CONTRASTS = (torch.tensor(PLACES, dtype=torch.float64) * 2 - 1) / 2
"""(4, 3): what takes the mean over the nearer places from that over the farther, for each axis."""


def _centres(power: Tensor) -> Tensor:
    """Return (3, 4) the middle, along each axis, of where each place stands out, in sides.

    `power` is (4, frames, rows, cols).
    """
    shares = power / power.sum((1, 2, 3), keepdim=True).clamp_min(1e-300)
    own = (shares - shares.topk(2, 0).values[1]).clamp_min(0)  # what no other place reaches
    own = own / own.sum((1, 2, 3), keepdim=True).clamp_min(1e-300)
    centres = []
    for axis in (1, 2, 3):
        others = tuple({1, 2, 3} - {axis})
        at = torch.arange(own.shape[axis], dtype=own.dtype, device=own.device) + 0.5
        centres.append((own.sum(others) * at).sum(1) / own.shape[axis])
    return torch.stack(centres).cpu()
