"""What concepts are called on screen, and which one is meant."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

from dff.errors import UsageError

__all__ = ["concept_index", "titles"]

UNNAMED = re.compile(r"Concept \d+( \+ Concept \d+)*")


def titles(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of concepts, from the first on, with the numbers that commands take.

    "Concept 8" has its number; a name that was given gets it, as in "8 striped fur".
    """
    return tuple(
        name if UNNAMED.fullmatch(name) else f"{number} {name}"
        for number, name in enumerate(names, 1)
    )


def concept_index(names: Sequence[str], concept: int | str) -> int:
    """Return the index of a concept, from 0 as all of Python counts, or of a name,
    with its number or without ("8 striped fur").

    What is on screen and on disk counts from 1: concept 0 is "Concept 1" there.

    Raises:
        UsageError: there is no such concept.
    """
    if isinstance(concept, str):
        wanted = concept.strip().lower()
        for known in (names, titles(names)):
            if wanted in (lower := [name.lower() for name in known]):
                return lower.index(wanted)
        raise UsageError(
            f"there is no concept named {concept!r}, but "
            f"{', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
        )
    index = operator.index(concept)
    if not 0 <= index < len(names):
        raise UsageError(
            f"there is no concept {index}: in Python they count from 0 to {len(names) - 1}"
        )
    return index
