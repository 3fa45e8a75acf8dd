"""Rows spread over processes: the one place that talks to torch.distributed.

A factorization needs other ranks only for sums over rows; ``total`` is that sum. Alone in the
world it is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from dff.errors import FactorizationError, UsageError

__all__ = ["Total", "alone", "over_group", "place"]

Total = Callable[[Tensor], Tensor]

PATIENCE = timedelta(seconds=50)  # how long a rank waits for the others at one sum


def alone(tensor: Tensor) -> Tensor:
    """Return `tensor`: the sum over one process."""
    return tensor


def over_group() -> Total:
    """Return the sum over all ranks of the default process group.

    Raises:
        UsageError: no group is initialised.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise UsageError(
            "distributed=True expects an initialised process group and there is none: start with "
            "torchrun and call torch.distributed.init_process_group, or pass distributed=False"
        )
    return _sum_over_ranks


def place(count: int, total: Total) -> tuple[int, int]:
    """Return how many rows lie on the ranks before this one, which has `count`, and on all."""
    if total is alone:
        return 0, count
    counts = torch.zeros(dist.get_world_size(), dtype=torch.float64)
    counts[dist.get_rank()] = count
    counts = total(counts)
    return int(counts[: dist.get_rank()].sum()), int(counts.sum())


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of `tensor` over the ranks, which all pass the same shape.

    Raises:
        FactorizationError: a rank ended, or did not come within 50 seconds.
    """
    result = tensor.clone(memory_format=torch.contiguous_format)
    try:
        work = dist.all_reduce(result, async_op=True)
        if work is not None:
            work.wait(PATIENCE)
    except RuntimeError as error:
        raise FactorizationError(
            f"rank {dist.get_rank()} lost the other processes of the group: one of them ended or "
            f"did not answer for {PATIENCE.seconds} s; look at its output, and start all of them "
            "again"
        ) from error
    return result
