"""What concepts are called on screen."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["titles"]

UNNAMED = re.compile(r"Concept \d+( \+ Concept \d+)*")


def titles(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of concepts, from the first on, with the numbers that commands take.

    "Concept 8" has its number; a name that was given gets it, as in "8 striped fur".
    """
    return tuple(
        name if UNNAMED.fullmatch(name) else f"{number} {name}"
        for number, name in enumerate(names, 1)
    )
