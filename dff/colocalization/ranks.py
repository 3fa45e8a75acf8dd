"""Several processes on one run, through torch.distributed.

Each rank works on every N-th chunk of images. Stages end together: if one rank failed, all of
them end, saying which one and why. The run's folder is shared, and what is done stays done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dff.errors import DFFError, RunError

__all__ = ["Ranks", "local_device", "start"]

Item = TypeVar("Item")
PATIENCE = timedelta(hours=24)  # one rank may read a slow disk; a dead one is noticed at once


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank does what only one shall do."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this rank's items: every N-th."""
        return items[self.rank :: self.size]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order.

        Raises:
            RunError: a rank has ended.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value)
        except (RuntimeError, ValueError, EOFError) as error:
            raise RunError(
                f"rank {self.rank} lost the other processes: one of them ended. Look at its "
                "output, and start the same command again: it goes on where this one stopped"
            ) from error
        return values

    @contextmanager
    def together(self, task: str) -> Iterator[None]:
        """Run a block on all ranks, and go on only if it went well on all.

        Raises:
            RunError: it failed on another rank; its message is given.
        """
        failure: str | None = None
        try:
            yield
        except DFFError as error:
            if self.size > 1:
                failure = str(error)
                self.gather(failure)
            raise
        if self.size > 1:
            reports = self.gather(failure)
            for rank, report in enumerate(reports):
                if report is not None:
                    raise RunError(f"rank {rank} failed at {task}: {report}")


def start() -> Ranks:
    """Join the processes that torchrun started; alone otherwise."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if not dist.is_available() or (size < 2 and not dist.is_initialized()):
        return Ranks()
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size())


def local_device() -> str | None:
    """Return the GPU of this rank among those of its machine; None leaves the choice open."""
    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
