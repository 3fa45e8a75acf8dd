"""What is asked of a source of models, and what all sources do about it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dff.models.loaded import without_head
from dff.models.weights import load_weights

__all__ = ["DEFAULT", "RANDOM", "Request", "filled_but_for_head", "first_line", "lacking_head"]

DEFAULT, RANDOM = "default", "random"


@dataclass(frozen=True)
class Request:
    """What to build: the name within its source, the weights ("default", "random" or a path).

    With `texts`, a model that compares images with them.
    """

    name: str
    weights: str
    num_classes: int | None
    texts: tuple[str, ...] = ()

    @property
    def path(self) -> Path | None:
        """The file of weights, if one is named."""
        return None if self.weights in (DEFAULT, RANDOM) else Path(self.weights)


def filled_but_for_head(
    module: nn.Module, state: Mapping[str, Tensor], request: Request
) -> str | None:
    """Copy weights into a model; where they lack its head, return why it is not scored."""
    lacking = load_weights(module, state, request.weights)
    return lacking_head(f"the file {request.weights!r}", lacking) if lacking else None


def lacking_head(what: str, keys: Sequence[str]) -> str:
    """Warn that weights lack those of the head, and return why the model is not scored."""
    named = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
    warnings.warn(f"{what} lacks the weights of a head ({named}): nothing is scored", stacklevel=2)
    return without_head(f"{what} lacks the weights of a head ({named})")


def first_line(error: BaseException) -> str:
    """Return the first line of another package's message, or the error's kind."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
