"""Settings in a file: what the command line leaves open, and what a run was made with.

A file has a table ``[model]`` for the options of the model, which commands share, and one for each
command's own, such as ``[analyze]``; keys are the options without their dashes::

    [model]
    model = "mobilenet_v2"
    size = 225

    [analyze]
    concepts = 8

``dff.toml`` of the working folder is read by itself, others by ``--settings``.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import sys
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from dff.cli.console import clean, say
from dff.cli.options import ModelOptions
from dff.errors import OutputError, UsageError, closest, shortened
from dff.files import is_regular, make_folder, taken, write_file
from dff.version import __version__

__all__ = ["SaveSettings", "SettingsFile", "differing", "finish", "model_words"]

FOUND = "dff.toml"
COMMANDS = ("analyze", "sweep", "compare", "colocalize", "layers")
LARGEST = 1 << 20  # bytes
MODEL = [field.name for field in fields(ModelOptions)]
OWN = ("settings_file", "save_settings")  # never in a file
PRINTING = ("json", "quiet")  # do not change what is found
HEAD = re.compile(r"# Written by dff [^\n]*, sha256 ([0-9a-f]{64})\n")


def _use(ctx: typer.Context, given: str | None) -> str | None:
    """Take a file's values as the defaults of the command."""
    path = given or (FOUND if os.path.isfile(FOUND) else None)
    if path is None or ctx.resilient_parsing:
        return path
    values = _checked(path, _read(path), ctx)
    source, colon, _ = str(values.get("model", "")).partition(":")
    if given is None and colon and source not in ("timm", "hf"):
        raise UsageError(
            f"the settings {path!r} name a model that is code ({values['model']}), which is run "
            f"only where you ask for it, with --settings {path} or --model"
        )
    ctx.default_map = values
    return path


def _check_place(path: Path | None) -> Path | None:
    """Refuse a place where something lies that is not the program's own."""
    if path is not None and os.path.lexists(path) and not _written(path):
        raise OutputError(str(taken(path)).replace("--out", "--save-settings"))
    return path


SettingsFile = Annotated[
    str | None,
    typer.Option(
        "--settings",
        help="A file of settings (TOML). Default: dff.toml, if there is one.",
        callback=_use,
        is_eager=True,
        show_default=False,
    ),
]
SaveSettings = Annotated[
    Path | None,
    typer.Option(
        "--save-settings",
        help="Write this run's settings to a file, for --settings.",
        callback=_check_place,
        rich_help_panel="Output",
    ),
]


def _read(path: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    where = f"the settings {path!r}"
    if os.path.lexists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise UsageError(f"cannot read {where}: not a regular file")
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UsageError(f"{where} are more than {LARGEST >> 20} MB")
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {shortened(error)}") from None
    except RecursionError:
        raise UsageError(f"{where} is nested too deeply") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {where}: {reason}") from None


def _checked(path: str, tables: dict[str, Any], ctx: typer.Context) -> dict[str, Any]:
    """Return the values of a file by the names of the command's parameters."""
    where, command = f"the settings {path!r}", str(ctx.command.name)
    options = {
        _key(param): param
        for param in ctx.command.params
        if param.param_type_name == "option" and param.name not in (*OWN, "help")
    }
    shared = [name.replace("_", "-") for name in MODEL]
    own = [key for key in options if key not in shared]
    values: dict[str, Any] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            home = "model" if name in shared else command
            raise UsageError(f"{where}: {name!r} stands in no table: write it below [{home}]")
        if name not in ("model", *COMMANDS):
            hint = closest(name, ("model", *COMMANDS)) or "; there are [model], " + ", ".join(
                f"[{known}]" for known in COMMANDS
            )
            raise UsageError(f"{where}: there is no table [{name}]{hint}")
        if name not in ("model", command):
            continue
        for key, value in table.items():
            known, other = (shared, own) if name == "model" else (own, shared)
            if key not in known:
                home = command if name == "model" else "model"
                belongs = f"{key!r} belongs in [{home}]"
                no = f"there is no key {key!r} in [{name}]{closest(key, known)}"
                raise UsageError(f"{where}: {belongs if key in other else no}")
            if key in options:  # `dff layers` takes few of the model's
                param = options[key]
                values[str(param.name)] = _value(param, value, f"{where}: {key!r} in [{name}]", ctx)
    return values


def _key(param: Any) -> str:
    return max(param.opts, key=len).lstrip("-")


def _value(param: Any, value: Any, where: str, ctx: typer.Context) -> Any:
    """Return a value as the command line would give it, checked as there."""
    kind = _type(ctx, str(param.name))
    number = type(value) in (int, float)
    if kind is list:
        sound, what = _texts(value) or isinstance(value, str), "a list of texts"
        value = [value] if isinstance(value, str) else value
    elif kind is bool:
        sound, what = isinstance(value, bool), "true or false"
    elif kind is int:
        sound, what = type(value) is int, "a whole number"
    elif kind is float:
        sound, what = number, "a number"
    else:  # a number, or one a channel, is as good as its text
        sound, what = isinstance(value, str) or number or _numbers(value), "a text"
    if not sound:
        raise UsageError(f"{where} is {what}, not {shortened(repr(value), 60)}")
    if kind not in (list, bool, int, float):
        value = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        param.process_value(ctx, value)
    except typer.BadParameter as error:
        raise UsageError(f"{where}: {error.message}") from None
    return value


def _type(ctx: typer.Context, name: str) -> Any:
    """Return the type of a command's parameter: bool, int, float, list, or another for a text."""
    assert ctx.command.callback is not None
    hint: Any = inspect.signature(ctx.command.callback).parameters[name].annotation
    plain = get_args(hint)[0]  # of Annotated
    if get_origin(plain) is not list:  # X | None
        plain = next((one for one in get_args(plain) if one is not type(None)), plain)
    return get_origin(plain) or plain


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _numbers(value: Any) -> bool:
    plain = isinstance(value, list) and value
    return bool(plain) and all(type(one) in (int, float) for one in value)


def differing(ctx: typer.Context, *, without: tuple[str, ...] = ("out",)) -> dict[str, Any]:
    """Return the settings that differ from their defaults, by table and key, as plain data.

    Args:
        ctx: of the command.
        without: parameters to leave out beside those that only say what is printed.
    """
    tables: dict[str, Any] = {"model": {}, str(ctx.command.name): {}}
    for param in ctx.command.params:
        value = ctx.params.get(str(param.name))
        if param.name in (*OWN, *PRINTING, *without) or param.param_type_name != "option":
            continue
        if value in (None, (), []) or value == param.default:
            continue
        table = tables["model" if param.name in MODEL else str(ctx.command.name)]
        plain = list(value) if isinstance(value, (list, tuple)) else value
        table[_key(param)] = str(value) if isinstance(value, Path) else plain
    return {name: table for name, table in tables.items() if table}


def finish(ctx: typer.Context) -> None:
    """Say which settings differ from the defaults, and write them where that was asked for."""
    words = [word for table in differing(ctx).values() for word in _words(table)]
    if words:
        say(f"settings{' (dff.toml)' if _found(ctx) else ''}: {shlex.join(words)}")
    path = ctx.params.get("save_settings")
    if path is not None:
        make_folder(path.parent)
        write_file(path, _text(ctx, path), replace=_written(path))
        say(str(path))


def model_words(ctx: typer.Context) -> list[str]:
    """Return the options that a command on the same model takes; none where dff.toml has them."""
    return [] if _found(ctx) else _words(differing(ctx).get("model", {}))


def _words(table: dict[str, Any]) -> list[str]:
    words = []
    for key, value in table.items():
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        else:
            for one in value if isinstance(value, list) else [value]:
                words += [f"--{key}", str(one)]
    return words


def _found(ctx: typer.Context) -> bool:
    return ctx.params.get("settings_file") == FOUND


def _text(ctx: typer.Context, path: Path) -> str:
    """Return a run's settings as a file that says how it is used, and proves to be unchanged."""
    arguments: list[str] = []
    for param in ctx.command.params:
        given: Any = ctx.params.get(str(param.name))
        if param.param_type_name != "option":
            arguments += map(str, given if isinstance(given, (list, tuple)) else [given])
    again = shlex.join(["dff", str(ctx.command.name), *arguments, "--settings", str(path)])
    lines = [f"# {clean(again)}"]
    for name, table in differing(ctx, without=()).items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    body = "\n".join(lines) + "\n"
    digest = sha256(body.encode(errors="surrogatepass")).hexdigest()
    return f"# Written by dff {__version__}, sha256 {digest}\n{body}"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _written(path: Path) -> bool:
    """Whether a file is one of settings that the program wrote, and nobody changed since."""
    if not is_regular(path):
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    head = HEAD.match(text)
    return head is not None and sha256(text[head.end() :].encode()).hexdigest() == head[1]
