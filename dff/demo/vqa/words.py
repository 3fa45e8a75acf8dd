"""A question as word numbers: 0 pads, 1 is a word that the model does not know."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from dff.demo.creatures import PARTS, SPECIES_NAMES
from dff.demo.vqa.questions import PHRASINGS
from dff.errors import UsageError

__all__ = ["PAD", "UNKNOWN", "VOCABULARY", "encode", "words_of"]

PAD, UNKNOWN = 0, 1

_SLOTS = (text for slots in PHRASINGS.values() for slot in slots for text in slot)
_WORDS = {word for text in _SLOTS for word in text.split() if "{" not in word}
VOCABULARY: tuple[str, ...] = (
    "<pad>", "<unknown>", *sorted({*_WORDS, *PARTS, *SPECIES_NAMES})
)  # fmt: skip
"""All words; a word's number is its place."""

_NUMBERS = {word: number for number, word in enumerate(VOCABULARY)}


def words_of(question: str) -> list[str]:
    """Return the words of a question, in lower case and without punctuation.

    Raises:
        UsageError: there are none.
    """
    words = re.findall(r"\w+", question.lower())
    if not words:
        raise UsageError(f"the question {question!r} has no words")
    return words


def encode(questions: str | Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return word numbers (n, words) int64, padded with 0, and how many words there are (n,).

    Unknown words are named in a warning, and stand as :data:`UNKNOWN`.

    Raises:
        UsageError: no question, or one without words.
    """
    asked = [questions] if isinstance(questions, str) else list(questions)
    if not asked:
        raise UsageError("no question: the list is empty")
    split = [words_of(question) for question in asked]
    strange = sorted({word for words in split for word in words if word not in _NUMBERS})
    if strange:
        warnings.warn(
            f"the model does not know {', '.join(map(repr, strange))}: taken for {UNKNOWN}, the "
            "unknown word",
            stacklevel=2,
        )
    rows = [[_NUMBERS.get(word, UNKNOWN) for word in words] for words in split]
    longest = max(map(len, rows))
    padded = [row + [PAD] * (longest - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor([len(row) for row in rows])
