"""A model that looks and reads: questions on pictures of creatures, and answers.

- :mod:`~dff.demo.vqa.questions`: questions in many phrasings, and a scene's answers to them.
- :mod:`~dff.demo.vqa.words`: a question as word numbers.
- :mod:`~dff.demo.vqa.network`: the network, and its trained weights.
"""

from __future__ import annotations

from dff.demo.vqa.network import VQANet, load
from dff.demo.vqa.questions import ANSWERS
from dff.demo.vqa.words import PAD, UNKNOWN, VOCABULARY, encode, words_of

__all__ = ["ANSWERS", "PAD", "UNKNOWN", "VOCABULARY", "VQANet", "encode", "load", "words_of"]
