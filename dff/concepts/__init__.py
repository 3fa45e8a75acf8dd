"""Concepts apart from any photo: from activations A to the bank H, and how many there are.

- :class:`ConceptBank`: embeddings, full presence, shares, names, colours; kept in a file.
- :func:`titles`: the names of concepts with their numbers, as on screen; :func:`concept_index`:
  which one is meant.
- :func:`factorize`: the way from A to a bank: which factorization, its order, full presence.
- :func:`choose_components`: how many concepts A has; :class:`Branch`: which splits into which.
"""

from __future__ import annotations

from dff.concepts.bank import LEVELS, ConceptBank, Nearest, check_level
from dff.concepts.factorize import (
    FACTORIZERS,
    Concepts,
    Factorizer,
    bank_from,
    check_factorizer,
    factorize,
    joined,
    most_concepts,
    select,
    sweep_banks,
)
from dff.concepts.selection import Selection, choose_components, matched_cosine
from dff.concepts.solver import cell_lengths, explained_shares, solver
from dff.concepts.titles import concept_index, titles
from dff.concepts.tree import Branch

__all__ = [
    "FACTORIZERS",
    "LEVELS",
    "Branch",
    "ConceptBank",
    "Concepts",
    "Factorizer",
    "Nearest",
    "Selection",
    "bank_from",
    "cell_lengths",
    "check_factorizer",
    "check_level",
    "choose_components",
    "concept_index",
    "explained_shares",
    "factorize",
    "joined",
    "matched_cosine",
    "most_concepts",
    "select",
    "solver",
    "sweep_banks",
    "titles",
]
