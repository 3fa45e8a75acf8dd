"""What notebooks show: a page in a frame of its own, and the table of a bank."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

__all__ = ["bank_table", "frame"]


def frame(page: str, *, title: str, height: int = 760) -> str:
    """Return a page as a frame (iframe) for a notebook's output.

    The page cannot reach the notebook around it: the frame is of no origin, and may run its own
    script and nothing else.
    """
    return str(
        Markup(
            '<iframe title="{}" sandbox="allow-scripts" width="100%" height="{}" '
            'frameborder="0" srcdoc="{}"></iframe>'
        ).format(title, height, page)
    )


def bank_table(heading: str, rows: Iterable[tuple[str, str, float]]) -> str:
    """Return a table of concepts: (name, colour as "#rrggbb", share in [0, 1]) each."""
    body = Markup("").join(
        Markup(
            '<tr><td><span aria-hidden="true" style="display:inline-block;width:1em;height:1em;'
            'border-radius:3px;background:{}"></span></td><td style="text-align:left" dir="auto">'
            "{}</td><td>{}</td></tr>"
        ).format(color, name, f"{share:.1%}")
        for name, color, share in rows
    )
    head = Markup('<tr><th></th><th style="text-align:left">concept</th><th>share</th></tr>')
    return str(
        Markup("<table><caption>{}</caption><thead>{}</thead><tbody>{}</tbody></table>").format(
            escape(heading), head, body
        )
    )
