"""Several processes on one run, through torch.distributed.

Each rank works on every N-th chunk of images. Stages end together: if one rank failed, all of
them end, saying which one and why. The run's folder is shared, and what is done stays done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
    """This process among those of a run.

    Attributes:
        rank: from 0.
        size: how many there are.
        agent: the process of torchrun that started this one, if one did.
    """

    rank: int = 0
    size: int = 1
    agent: int | None = None

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
            RunError: a rank has ended, or has failed meanwhile (its message is given); or torchrun
                is gone.
        """
        if self.size == 1:
            return [value]
        self.check_agent()
        values: list[Any] = [None] * self.size
        with self._all_alive():
            dist.all_gather_object(values, value)
        return self._sound(values)

    def collect(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order, on the first; nothing on the others.

        Raises:
            RunError: as :meth:`gather`.
        """
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.first else None
        self.gather(None)  # all come this far, or all hear why not
        with self._all_alive():
            dist.gather_object(value, values)
        return values or []

    def check_agent(self) -> None:
        """End where the agent of torchrun has: nobody else would end this process any more.

        Raises:
            RunError: it has.
        """
        if self.agent is not None and os.getppid() != self.agent:
            raise _KnownError(
                f"rank {self.rank} was started by torchrun, which has ended: start the same "
                "command again: it goes on where this one stopped"
            )

    @contextmanager
    def together(self, task: str) -> Iterator[None]:
        """Run a block on all ranks, and go on only if it went well on all.

        Raises:
            RunError: it failed on another rank; its message is given.
        """
        try:
            yield
        except DFFError as error:
            if self.size > 1 and not isinstance(error, _KnownError):
                with suppress(RunError):
                    self.gather(_Failure(self.rank, task, str(error)))
            raise
        self.gather(None)

    @contextmanager
    def _all_alive(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, EOFError) as error:
            raise _KnownError(
                f"rank {self.rank} lost the other processes: one of them ended. Look at its "
                "output, and start the same command again: it goes on where this one stopped"
            ) from error

    @staticmethod
    def _sound(values: list[Any]) -> list[Any]:
        for value in values:
            if isinstance(value, _Failure):
                raise _KnownError(f"rank {value.rank} failed at {value.task}: {value.message}")
        return values


@dataclass(frozen=True)
class _Failure:
    """What a rank that failed sends in place of the value that the others wait for."""

    rank: int
    task: str
    message: str


class _KnownError(RunError):
    """An end that all ranks know of already."""


def start() -> Ranks:
    """Join the processes that torchrun started; alone otherwise."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if not dist.is_available() or (size < 2 and not dist.is_initialized()):
        return Ranks()
    device = local_device()
    if device is not None:
        torch.cuda.set_device(device)  # what "cuda" means from now on, also where nobody asks here
    if not dist.is_initialized():
        dist.init_process_group(_backend(), timeout=PATIENCE)
    agent = os.getppid() if dist.is_torchelastic_launched() else None
    return Ranks(dist.get_rank(), dist.get_world_size(), agent)


def local_device() -> str | None:
    """Return the GPU of this rank among those of its machine; None leaves the choice open."""
    if "LOCAL_RANK" not in os.environ or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"


def _backend() -> str:
    """Return gloo for what lies in memory, and NCCL for GPUs, of which it wants one a rank."""
    own = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and own else "gloo"
