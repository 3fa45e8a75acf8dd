"""A page of one file: style, script and data inside it, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["asset", "html_page", "json_for_html", "rounded"]


def html_page(
    title: str, data: Mapping[str, Any], scripts: Sequence[str], *, fallback: str = ""
) -> str:
    """Return a page whose scripts make its content of the data.

    Args:
        title: plain text.
        data: for JSON; the scripts read it.
        scripts: names of files in ``assets``, in order; they become one script.
        fallback: a picture, as a data URI, for readers without scripts.
    """
    style = Markup(asset("base.css"))
    script = Markup("".join(asset(name) for name in ("base.js", *scripts)))
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_digest(style)}; script-src {_digest(script)}"
    )
    return _environment().get_template("page.html").render(
        title=_whole(title), style=style, script=script, policy=policy, fallback=fallback,
        data=Markup(json_for_html(data)),
    )  # fmt: skip


def json_for_html(data: Any) -> str:
    """Return JSON that can stand in a script element: no character of it can end the element.

    All beyond ASCII, and ``<``, ``>`` and ``&``, stand as escapes; NaN and infinities are null.
    """
    text = json.dumps(_plain(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def rounded(values: Any, decimals: int = 4) -> Any:
    """Return an array, or nested lists of numbers, as nested lists of few decimals."""
    return np.round(np.asarray(values, np.float64), decimals).tolist()


@cache
def asset(name: str) -> str:
    """Return the text of a file in ``assets``."""
    return (resources.files("dff.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("dff.report") / "templates"
    loader = FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    return Environment(autoescape=True, undefined=StrictUndefined, loader=loader)


def _digest(text: str) -> str:
    """Return how a policy names the inline script or style of a text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _whole(text: str) -> str:
    """Return text that UTF-8 can write: half characters become question marks."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
