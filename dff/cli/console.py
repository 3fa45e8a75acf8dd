"""What commands print: results on stdout, progress and errors on stderr.

Whatever is printed passes through :func:`clean`: names of classes, concepts and files, and what
servers say, come from others, and must not steer the terminal.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from dff.errors import OutputError
from dff.files import json_text

if TYPE_CHECKING:
    from rich.text import Text

__all__ = [
    "clean",
    "complain",
    "fail",
    "finish",
    "leave",
    "prepare",
    "print_json",
    "print_table",
    "progress",
    "say",
    "settings",
    "suggest",
    "swatch",
    "watched",
    "working",
]

Item = TypeVar("Item")

LONGEST = 600  # characters of an error or warning

# Marks that reorder what is read: embeddings, overrides, isolates.
_REORDERING = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SUSPECT = re.compile(f"[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff{_REORDERING}]")


@dataclass
class Settings:
    """What the user asked of all output."""

    debug: bool = False
    quiet: bool = False


settings = Settings()


def clean(text: object) -> str:
    """Return text fit for a terminal: one line, with what would steer it written as escapes."""
    return _SUSPECT.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def prepare() -> None:
    """Let output degrade where its encoding lacks a character, and warnings take one line."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _write(f"dff: warning: {_one_line(message)}", error=True)

    warnings.showwarning = show
    warnings.filterwarnings("ignore", message="Glyph ")  # a plot's font lacks a letter of a name


def finish() -> None:
    """Hand on what was printed.

    Raises:
        OutputError: stdout takes no more, as a full disk.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _full(error) from None


def fail(error: BaseException, status: int) -> NoReturn:
    """Print an error on one line (with --debug its traceback), and exit."""
    if settings.debug:
        traceback.print_exception(error, file=sys.stderr)
    else:
        complain(error)
    leave(status)


def complain(error: BaseException) -> None:
    """Print an error on one line."""
    known = getattr(error, "exit_code", None) is not None
    kind = "" if known else f"unexpected {type(error).__name__}: "
    more = "" if known else " (--debug shows where)"
    with contextlib.suppress(OSError):
        text = _one_line(error) or type(error).__name__
        _write(f"dff: {kind}{text}{more}", error=True)


def leave(status: int) -> NoReturn:
    """Exit, without a complaint about what stdout could not take."""
    try:
        finish()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def say(text: str = "") -> None:
    """Print a line of the result, unless --quiet."""
    if not settings.quiet:
        _write(clean(text))


def suggest(words: Sequence[str], why: str) -> None:
    """Print a command that may come next, to people: what is piped is for programs."""
    if sys.stdout is not None and sys.stdout.isatty():
        say(f"next: {shlex.join(words)}   ({why})")


def print_json(value: Any) -> None:
    """Print a value as JSON, whatever --quiet says: machines asked for it."""
    text = json_text(value).removesuffix("\n")
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("_", "-")
    if encoding not in ("utf-8", "utf8") or _SUSPECT.search(text.replace("\n", "")):
        text = json_text(value, ascii_only=True).removesuffix("\n")
    _write(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a table as wide as its content, not folded where the output is not a terminal.

    A cell is text, a number, or a :func:`swatch`; columns named with a leading ">" are
    right-aligned.
    """
    if settings.quiet or sys.stdout is None:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 200, soft_wrap=False)
    heading = Text(clean(title)) if title else None
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=heading, title_justify="left")
    for column in columns:
        right = column.startswith(">")
        table.add_column(Text(clean(column.lstrip(">"))), justify="right" if right else "left")
    for row in rows:
        # As text, since rich reads "[/]" in a plain string as markup.
        table.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    with _printing():
        console.print(table, highlight=False)


def swatch(color: str, name: object) -> Text:
    """Return a cell with a square of a colour ("#rrggbb") and a name."""
    from rich.text import Text

    return Text("■ ", style=color).append(clean(name), style="default")


@contextmanager
def working(task: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner while something takes its time, on a terminal only.

    Yields what changes the text beside it.
    """
    if not watched():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(clean(task))) as status:
        yield lambda text: status.update(Text(clean(text)))


def progress(items: Sequence[Item], task: str) -> Iterator[Item]:
    """Yield items with a progress bar, on a terminal and for more than a few items only."""
    if not watched() or len(items) < 8:
        yield from items
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, escape(clean(task)), console=console, transient=True)


def watched() -> bool:
    """Return whether somebody looks on: progress is shown on a terminal, unless --quiet."""
    return not settings.quiet and sys.stderr is not None and sys.stderr.isatty()


def _one_line(text: object) -> str:
    line = clean(" ".join(str(text).split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]}…{line[-LONGEST // 3 :]}"


def _write(text: str, *, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    if stream is None:  # closed by whoever started the program
        return
    with _printing():
        stream.write(text + "\n")


@contextmanager
def _printing() -> Iterator[None]:
    """Say what happened where the output takes no more; a reader that has gone is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _full(error) from None


def _full(error: OSError) -> OutputError:
    return OutputError(f"cannot print: {error.strerror or error}")
