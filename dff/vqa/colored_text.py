"""Words coloured by what each contributes: green speaks for the answer, red against it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from dff.errors import UsageError

__all__ = ["word_html", "word_terminal"]

FOR, AGAINST, PAPER = (44, 150, 84), (200, 64, 56), (255, 255, 255)
Color = tuple[int, int, int]


def word_html(words: Sequence[str], values: Sequence[float], *, largest: float = 0.0) -> str:
    """Return words as HTML, each on its colour, with its number as a tooltip.

    Args:
        words: (n,) of any text; what HTML would read is escaped.
        values: (n,) what each contributes.
        largest: the number of full colour; the largest of these, if it is larger.

    Raises:
        UsageError: other words than values.
    """
    shown = [
        f'<span title="{value:+.3f}" style="background:rgb{color};color:{_ink(color)};'
        f'padding:0.1em 0.3em;border-radius:0.2em">{html.escape(word)}</span>'
        for word, value, color in _colored(words, values, largest)
    ]
    return " ".join(shown)


def word_terminal(words: Sequence[str], values: Sequence[float], *, largest: float = 0.0) -> str:
    """Return words for a terminal of 24-bit colour; arguments and errors as :func:`word_html`."""
    shown = []
    for word, _, color in _colored(words, values, largest):
        paper, ink = (";".join(map(str, c)) for c in (color, _rgb(_ink(color))))
        plain = "".join(letter for letter in word if letter.isprintable())
        shown.append(f"\x1b[48;2;{paper}m\x1b[38;2;{ink}m {plain} \x1b[0m")
    return " ".join(shown)


def _colored(
    words: Sequence[str], values: Sequence[float], largest: float
) -> list[tuple[str, float, Color]]:
    if len(words) != len(values):
        raise UsageError(f"{len(words)} words do not fit {len(values)} values")
    most = max([largest, *(abs(float(value)) for value in values)], default=0.0) or 1.0
    found = []
    for word, value in zip(words, values, strict=True):
        strength = abs(float(value)) / most
        full = FOR if value > 0 else AGAINST
        r, g, b = (round(p + strength * (f - p)) for p, f in zip(PAPER, full, strict=True))
        found.append((word, float(value), (r, g, b)))
    return found


def _ink(color: Color) -> str:
    r, g, b = color
    return "white" if 0.299 * r + 0.587 * g + 0.114 * b < 140 else "black"


def _rgb(ink: str) -> Color:
    return (255, 255, 255) if ink == "white" else (0, 0, 0)
