"""Models that look and read: a photo, questions, and what speaks for the answers.

- :func:`vqa_explainer`, :func:`encoded`: the demo's model, and questions as it takes them.
- :func:`ask`: a photo under several questions, in the same concepts: :class:`Answers`.
- :func:`attribute`: integrated gradients over picture and words together: :class:`Attributed`.
- :func:`interpretable`: an embedding layer that lets embeddings through, for as long as asked.
- :func:`word_html`, :func:`word_terminal`: words coloured by what each contributes.
"""

from __future__ import annotations

from dff.vqa.answers import Answers, ask
from dff.vqa.colored_text import word_html, word_terminal
from dff.vqa.demo import encoded, vqa_explainer
from dff.vqa.words import WAYS, Attributed, attribute, interpretable

__all__ = [
    "WAYS",
    "Answers",
    "Attributed",
    "ask",
    "attribute",
    "encoded",
    "interpretable",
    "vqa_explainer",
    "word_html",
    "word_terminal",
]
