"""Which number of the output is explained: a place in it for each input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dff.errors import UsageError

__all__ = ["Place", "places"]

Place = tuple[int, ...]
"""An index for each axis of the output but the first; () where it has no other."""


def places(target: Any, shape: Sequence[int], count: int) -> list[Place]:
    """Return the place that is explained of each input.

    Args:
        target: an index or a tuple of them for all inputs, a sequence or tensor of one for each,
            or None for outputs of one number.
        shape: of the output for one input.
        count: of the inputs; one input may have several targets.

    Raises:
        UsageError: more or fewer targets than inputs, or one outside the output.
    """
    if target is None:
        if any(side != 1 for side in shape):
            raise UsageError(
                f"the output for one input is {tuple(shape)}: a target says which of its numbers "
                "is explained"
            )
        return [tuple(0 for _ in shape)] * count
    wanted = target.tolist() if isinstance(target, (Tensor, np.ndarray)) else target
    single = isinstance(wanted, (int, np.integer, tuple))
    several = [_place(one, shape) for one in ([wanted] if single else wanted)]
    if single:
        return several * count
    if not several or (count > 1 and len(several) != count):
        raise UsageError(f"expected one target for each of {count} inputs, got {len(several)}")
    return several


def _place(target: Any, shape: Sequence[int]) -> Place:
    place = target if isinstance(target, (tuple, list)) else (target,)
    if isinstance(target, bool) or not all(isinstance(i, (int, np.integer)) for i in place):
        raise UsageError(
            f"a target is an index, or one for each axis of the output, not {target!r}"
        )
    if len(place) != len(shape):
        raise UsageError(
            f"the output for one input is {tuple(shape)}: a target has {len(shape)} "
            f"ind{'ex' if len(shape) == 1 else 'ices'}, not {len(place)}"
        )
    for index, side in zip(place, shape, strict=True):
        if not 0 <= index < side:
            raise UsageError(
                f"target {target!r} is outside the output, whose places are "
                + " x ".join(f"0 to {side - 1}" for side in shape)
            )
    return tuple(map(int, place))
