"""The commands, and how they end: exit status 0 done, 1 failed, 2 wrong usage, 130 interrupted.

Modules of commands import what is heavy inside their functions, so that ``dff --help`` answers
at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from dff.cli.analyze import analyze
from dff.cli.colocalize import colocalize
from dff.cli.console import fail, settings
from dff.cli.demo import demo
from dff.cli.inspect import layers, models
from dff.cli.runs import evaluate, find, name
from dff.cli.sweep import sweep
from dff.errors import DFFError

__all__ = ["app", "main"]

app = typer.Typer(
    name="dff",
    help="Shows which concepts a vision model finds in an image, where each is, and what each "
    "says about the classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (analyze, sweep, colocalize, evaluate, find, name, layers, models, demo):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dff {version('deep-feature-factorization')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    settings.debug, settings.quiet = debug, False


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in words:  # may stand anywhere
        words = ["--debug", *(word for word in words if word != "--debug")]
    try:
        app(words, standalone_mode=True)
    except DFFError as error:
        fail(error, error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`dff models | head`): no complaint at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        fail(error, 1)
