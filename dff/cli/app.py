"""The commands, and how they end: exit status 0 done, 1 failed, 2 wrong usage, 130 interrupted.

Modules of commands import what is heavy inside their functions, so that ``dff --help`` answers
at once.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer

from dff.cli.commands.analyze import analyze
from dff.cli.commands.colocalize import colocalize
from dff.cli.commands.compare import compare
from dff.cli.commands.demo import demo
from dff.cli.commands.inspect import layers, models
from dff.cli.commands.runs import evaluate, find, name, report
from dff.cli.commands.sweep import sweep
from dff.cli.commands.vqa import vqa
from dff.cli.console import fail, finish, leave, prepare, settings
from dff.cli.outputs import remove_empty
from dff.errors import DFFError, OutputError, UsageError
from dff.version import __version__

__all__ = ["app", "main"]

INTERRUPTED = 130

app = typer.Typer(
    name="dff",
    help="Shows which concepts a vision model finds in an image, where each is, and what each "
    "says about the classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    analyze, sweep, compare, vqa, colocalize, evaluate, find, name, report, layers, models, demo,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)


def _show_version(show: bool) -> None:
    if show:
        typer.echo(f"dff {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    settings.debug, settings.quiet = debug, False


def _check_directory() -> None:
    """Refuse to work where nothing can be found; numerical libraries would abort there."""
    try:
        os.getcwd()
    except OSError:
        raise UsageError("the working directory is gone: change to one that exists") from None


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in words:  # may stand anywhere
        words = ["--debug", *(word for word in words if word != "--debug")]
    try:
        prepare()
        _check_directory()
        try:
            status = app(_understood(words) or ["--help"], standalone_mode=False)
        finally:
            remove_empty()
        finish()
    except DFFError as error:
        fail(error, error.exit_code)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone (`dff models | head`)
        leave(1)
    except Exception as error:
        if hasattr(error, "format_message"):  # of the parser of arguments
            fail(UsageError(f"{error.format_message()} ({_help(error)})"), 2)
        fail(_known(error), 1)
    if status == INTERRUPTED:
        goes_on = "; the same command goes on with the run" if "colocalize" in words else ""
        fail(DFFError(f"interrupted{goes_on}"), INTERRUPTED)
    leave(int(status or 0))


def _understood(words: list[str]) -> list[str]:
    """Return the arguments with ``analyze`` before them where a photo stands for a command."""
    first = next(iter(words), "")
    if first == "--debug":
        return [first, *_understood(words[1:])]
    options = first.startswith("-") and first not in ("--help", "-h", "--version")
    return ["analyze", *words] if any(map(_is_photo, words if options else [first])) else words


def _is_photo(word: str) -> bool:
    """Whether an argument can be no command: a path, or a URL."""
    commands = [entry.callback.__name__ for entry in app.registered_commands if entry.callback]
    known = word in commands or word.startswith("-")
    return not known and ("." in word or "/" in word or os.path.exists(word))


def _help(error: Any) -> str:
    """Say where the options of the command are explained that was used wrongly."""
    command = getattr(getattr(error, "ctx", None), "info_name", None)
    known = command in (
        getattr(entry.callback, "__name__", "") for entry in app.registered_commands
    )
    return f"see dff {command} --help" if known else "see dff --help"


def _known(error: Exception) -> Exception:
    """Put what the machine lacks in plain words; other errors stay as they are."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        return DFFError("there is not enough memory: try a smaller --size, or fewer photos")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return OutputError(f"cannot write: {error.strerror}")
    return error
