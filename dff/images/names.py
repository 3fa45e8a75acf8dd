"""Names of files for photos: safe on every system, and none of them twice."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["distinct_names"]

LONGEST = 180  # bytes, which leaves room for an ending in a name of 255
DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}


def distinct_names(names: Iterable[str]) -> list[str]:
    """Return a file name without ending for each name, in order.

    Two names differ by more than upper and lower case or the composition of accents, which some
    file systems do not tell apart; what would come twice gets a number.
    """
    given = [_plain(name) for name in names]
    reserved = {_key(name) for name in given}  # a made-up name is never one that was given
    used: set[str] = set()
    distinct = []
    for stem in given:
        name, count = stem, 1
        while _key(name) in used or (count > 1 and _key(name) in reserved):
            count += 1
            name = f"{stem}-{count}"
        used.add(_key(name))
        distinct.append(name)
    return distinct


def _plain(name: str) -> str:
    """Keep letters, digits and a few signs; everything else becomes an underscore."""
    composed = unicodedata.normalize("NFC", name)
    kept = "".join(
        c if unicodedata.category(c)[0] in "LMN" or c in "-_. " else "_" for c in composed
    )
    stem = kept.encode()[:LONGEST].decode(errors="ignore").strip(". ") or "image"
    return f"_{stem}" if stem.partition(".")[0].rstrip().lower() in DEVICES else stem


def _key(name: str) -> str:
    """Return what is the same for all names that some file system takes for one."""
    folded = unicodedata.normalize("NFKD", name).casefold()
    return unicodedata.normalize("NFKD", folded)
