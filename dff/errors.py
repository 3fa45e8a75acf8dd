"""The one exception family of the toolkit.

Every error that a user can cause is a :class:`DFFError`: its message says what was expected,
what came, and what to do next. The command line prints it on one line, without a traceback,
and exits with :attr:`DFFError.exit_code`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = [
    "BankError",
    "DFFError",
    "FactorizationError",
    "ImageError",
    "LayerError",
    "MissingExtraError",
    "ModelError",
    "OutOfMemoryError",
    "OutputError",
    "RunError",
    "UsageError",
    "closest",
    "shortened",
]


class DFFError(Exception):
    """Base of all errors raised at users; ``exit_code`` is the command line's exit status."""

    exit_code = 1


class UsageError(DFFError, ValueError):
    """An argument that cannot be right, whatever the data (exit status 2)."""

    exit_code = 2


class ImageError(DFFError, ValueError):
    """An image that cannot be read, decoded, or is over the limits."""


class ModelError(DFFError, ValueError):
    """A model, its weights or its labels that cannot be built, loaded or run."""


class LayerError(ModelError):
    """A layer that does not exist, never runs, or has no grid."""


class OutOfMemoryError(DFFError, MemoryError):
    """Memory ran out while a model ran: no fault of the model, and fewer images may pass."""


class FactorizationError(DFFError, ValueError):
    """A matrix that cannot be factorized as asked."""


class BankError(DFFError, ValueError):
    """A concept bank that cannot be read, or belongs to another model or layer."""


class RunError(DFFError, RuntimeError):
    """A co-localization run that cannot be started, continued or read."""


class OutputError(DFFError, OSError):
    """A result that cannot be written."""


class MissingExtraError(DFFError, ImportError):
    """An optional package is needed; the message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}: pip install 'deep-feature-factorization[{extra}]'"
        )


def closest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the known names nearest to `name`, else ''.

    Those that hold it as a word come first (a tabby cat, then a cat bear), then close spellings.
    """
    names = list(known)
    word = re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", re.IGNORECASE)
    holding = [known for known in names if name and word.search(known)]
    holding.sort(key=lambda known: not known.lower().endswith(name.lower()))
    near = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    matches = list(dict.fromkeys([*holding, *near]))[:count]
    if not matches:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"


def shortened(text: object, length: int = 200) -> str:
    """Return what comes from a file as one line that a message can hold, control codes escaped."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: length + 1])
    return line if len(line) <= length else line[: length - 1] + "…"
