"""What commands print: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import typer

__all__ = ["fail", "print_json", "print_table", "progress", "say", "settings", "working"]

Item = TypeVar("Item")


@dataclass
class Settings:
    """What the user asked of all output."""

    debug: bool = False
    quiet: bool = False


settings = Settings()


def fail(error: BaseException, status: int) -> NoReturn:
    """Print an error on one line (with --debug its traceback), and exit."""
    if settings.debug:
        traceback.print_exception(error, file=sys.stderr)
    else:
        text = " ".join(str(error).split()) or type(error).__name__
        known = getattr(error, "exit_code", None) is not None
        kind = "" if known else f"unexpected {type(error).__name__}: "
        more = "" if known else " (--debug shows where)"
        typer.echo(f"dff: {kind}{text}{more}", err=True)
    sys.exit(status)


def say(text: str = "") -> None:
    """Print a line of the result, unless --quiet."""
    if not settings.quiet:
        typer.echo(text)


def print_json(value: Any) -> None:
    """Print a value as JSON, whatever --quiet says: machines asked for it."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a table as wide as its content, not folded where the output is not a terminal.

    A cell is text, a number, or a rich renderable; columns named with a leading ">" are
    right-aligned.
    """
    if settings.quiet:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, soft_wrap=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(cell if not isinstance(cell, (int, float)) else str(cell) for cell in row))
    console.print(table, highlight=False)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner while something takes its time, on a terminal only."""
    if settings.quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def progress(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield items with a progress bar, on a terminal and for more than a few items only."""
    if settings.quiet or not sys.stderr.isatty() or len(items) < 8:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, console=Console(stderr=True), transient=True)
