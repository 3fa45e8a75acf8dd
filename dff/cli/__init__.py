"""The command line: parse, call, write. The only room that prints or exits."""

from __future__ import annotations

from dff.cli.app import main

__all__ = ["main"]
