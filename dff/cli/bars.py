"""Bars of what takes its time in stages: how much is done, how fast, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from dff.cli.console import clean, watched

__all__ = ["bars"]

SETTLED = 1.0  # seconds from which on a rate says something


@contextmanager
def bars(images: Collection[str] = ()) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows a bar a stage, called with (stage, how much is done, of how much).

    Nothing is shown where there is no terminal, or under --quiet. A stage of nobody knows how
    many steps, 0 in all, moves to and fro.

    Args:
        images: the stages that count images: these a second are shown.
    """
    if not watched():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    known: dict[str, tuple[Any, float, int]] = {}
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(), TextColumn("left:"), TimeLeft(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:

        def report(stage: str, done: int, total: int) -> None:
            now = time.monotonic()
            if stage not in known or done < known[stage][2]:
                task = shown.add_task(escape(clean(stage)), total=total or None, amount="")
                known[stage] = (task, now, done)
            task, since, first = known[stage]
            amount = f"{done:,} of {total:,}" if total else ""
            if stage in images and done > first and now - since >= SETTLED:
                amount += f" images, {(done - first) / (now - since):.0f}/s"
            shown.update(task, completed=done, total=total or None, amount=amount)

        yield report
