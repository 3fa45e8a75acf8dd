"""Class names: read them, show them, and find a class by name or number."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dff.errors import UsageError, closest, shortened

__all__ = ["NO_CLASS", "class_index", "class_name", "read_labels", "short_name", "spoken_classes"]

LARGEST = 1 << 24  # bytes of a file of labels
LONGEST = 1000  # characters of a name
NO_CLASS = "no class"
"""What is shown of a concept that speaks for none."""


def read_labels(path: str | Path) -> tuple[str, ...]:
    """Read class names from a text file: one a line, in class order.

    Raises:
        UsageError: the file cannot be read as text, or is empty.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UsageError(f"cannot read the labels {str(path)!r}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read the labels {str(path)!r}: {reason}") from None
    if len(content) > LARGEST:
        raise UsageError(
            f"the labels {str(path)!r} are more than {LARGEST >> 20} MB; expected one class name "
            "a line"
        )
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UsageError(f"the labels {str(path)!r} are empty; expected one class name a line")
    names = tuple(line.strip() for line in lines)
    for number, name in enumerate(names, 1):
        if len(name) > LONGEST or "\0" in name:
            raise UsageError(
                f"the labels {str(path)!r} hold no class name in line {number}: "
                f"{shortened(name, 40)!r}; expected text of at most {LONGEST} characters"
            )
    return names


def class_name(index: int, names: Sequence[str] | None) -> str:
    """Return the name of a class, or "class 7" where there are no names."""
    return names[index] if names is not None and index < len(names) else f"class {index}"


def short_name(index: int, names: Sequence[str] | None) -> str:
    """Return the first of a class's comma-separated synonyms, or all if another class's is equal.

    "tabby, tabby cat" is "tabby", but "maillot, tank suit" is not "maillot" beside a "maillot".
    """
    first, comma, _ = class_name(index, names).partition(",")
    if comma and _firsts(tuple(names or ()))[first.strip()] > 1:
        return class_name(index, names)
    return first.strip() or class_name(index, names)


@functools.lru_cache(maxsize=8)
def _firsts(names: tuple[str, ...]) -> Counter[str]:
    return Counter(name.partition(",")[0].strip() for name in names)


def spoken_classes(cell: str | None) -> list[str]:
    """Return what a cell of concepts' classes ("a, b; c") is shown as: their first synonyms.

    An empty one is of a concept that speaks for none, and None of one without scores.
    """
    classes = [] if cell is None else (cell or NO_CLASS).split("; ")
    return [name.split(",")[0] for name in classes]


def class_index(target: int | str, names: Sequence[str] | None, count: int) -> int:
    """Return the index of a class given by index, name, or one of its comma-separated synonyms.

    Upper and lower case do not matter. Digits are an index.

    Raises:
        UsageError: there is no such class (close names are given), or several have the name.
    """
    if isinstance(target, str) and not target.strip().lstrip("-").isdigit():
        return _by_name(target, names)
    index = int(target)
    if not 0 <= index < count:
        raise UsageError(f"class {index} does not exist: the model has classes 0 to {count - 1}")
    return index


def _by_name(target: str, names: Sequence[str] | None) -> int:
    if names is None:
        raise UsageError(
            f"the model has no class names to find {target!r} in; give an index, or labels"
        )
    wanted = target.strip().lower()
    known: dict[str, dict[int, None]] = {}
    for index, name in enumerate(names):
        for synonym in (name, *name.split(",")):
            known.setdefault(synonym.strip().lower(), {})[index] = None
    if wanted not in known:
        single = [name for name in known if "," not in name]  # not all synonyms in a row
        hint = closest(wanted, single) or "; give an index, or a name of its labels"
        raise UsageError(f"there is no class {target!r}{hint}")
    bearers = list(known[wanted])
    if len(bearers) > 1:
        more = [i if names[i].lower() == wanted else f"{i} ({names[i]!r})" for i in bearers]
        listed = f"{', '.join(map(str, more[:-1]))} and {more[-1]}"
        raise UsageError(f"{target!r} is the name of classes {listed}: give its index")
    return bearers[0]
