"""One photo under several questions: what each of its concepts contributes to the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dff.activations.context import Arguments
from dff.concepts import ConceptBank, Concepts
from dff.errors import UsageError
from dff.explain import Explainer, Explanation
from dff.explain.photo import Target
from dff.explain.questions.evidence import photo_contributions
from dff.explain.shared import ClassScore
from dff.files import json_text
from dff.manifest import Manifest
from dff.rendering.files import png
from dff.scoring import Contributions
from dff.vqa.picture import Column, answers_panel

__all__ = ["FILES", "Answer", "Answers", "ask"]

FILES = ("answers.png", "answers.json")


@dataclass(frozen=True, eq=False)
class Answer:
    """One of the top answers to a question, and what speaks for it.

    Attributes:
        score: index, name, probability and logit.
        split: contributions of the concepts to the logit, one target.
    """

    score: ClassScore
    split: Contributions

    @property
    def leading(self) -> int:
        """The concept that contributes most."""
        return int(self.split.values[0].argmax())


@dataclass(frozen=True, eq=False)
class Answers:
    """A photo's answers to several questions, in the same concepts.

    Attributes:
        explanations: of each question.
        answers: of each question, the likeliest first.
    """

    explanations: dict[str, Explanation]
    answers: dict[str, list[Answer]]

    @property
    def bank(self) -> ConceptBank:
        """The concepts."""
        return next(iter(self.explanations.values())).bank

    def panel(self) -> Image.Image:
        """Draw photo, concepts, and for each question those that speak for its answer."""
        photo = next(iter(self.explanations.values())).photos[0]
        columns = [
            Column(question, answer.score.name, answer.score.probability, answer.split)
            for question, answers in self.answers.items()
            for answer in answers
        ]
        return answers_panel(photo, columns)

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers, for JSON."""
        return {
            "concepts": len(self.bank),
            "questions": [
                {
                    "question": question,
                    "answers": [_report(answer) for answer in answers],
                }
                for question, answers in self.answers.items()
            ],
        }

    def save(self, out: str | Path) -> list[Path]:
        """Write :data:`FILES` to a folder; return their paths.

        Raises:
            OutputError: they cannot be written, or others' files would be replaced.
        """
        folder = Path(out)
        Manifest(folder).write({FILES[0]: png(self.panel), FILES[1]: json_text(self.as_dict())})
        return [folder / name for name in FILES]

    def _repr_png_(self) -> bytes | None:
        return self.panel()._repr_png_()


def ask(
    explainer: Explainer,
    image: Any,
    questions: Mapping[str, Any],
    *,
    concepts: Concepts = 7,
    bank: ConceptBank | None = None,
    top_k: int = 1,
    answer: Target | None = None,
) -> Answers:
    """Explain a model's answers to questions on one photo, in concepts found once.

    Args:
        explainer: of a :class:`dff.Given`, whose class names are the answers.
        image: one photo, as :class:`dff.Explainer` takes it.
        questions: as they are to be shown, each with what the model takes beside the image: a
            tuple, a mapping (by keyword) or :class:`dff.Arguments`.
        concepts: how many to find.
        bank: concepts to explain in, instead of new ones.
        top_k: how many of the likeliest answers to each question.
        answer: explain this answer, by name or index, in place of the likeliest.

    Raises:
        UsageError: no question, several photos, or an answer that the model does not have.
        DFFError: what the explainer raises.
    """
    if not questions:
        raise UsageError("no question: give at least one")
    if top_k < 1:
        raise UsageError(f"top_k is a whole number from 1 on, not {top_k}")
    explanations: dict[str, Explanation] = {}
    answers: dict[str, list[Answer]] = {}
    for question, context in questions.items():
        given = Arguments.of(context)
        explained = explainer.given(*given.args, **given.kwargs)(
            image, concepts=concepts, bank=bank
        )
        if len(explained.photos) != 1:
            raise UsageError(f"questions are asked of one photo, not of {len(explained.photos)}")
        bank = explained.bank
        explanations[question] = explained
        answers[question] = _answers(explained, top_k, answer)
    return Answers(explanations, answers)


def _answers(explained: Explanation, top_k: int, answer: Target | None) -> list[Answer]:
    photo = explained.photos[0]
    found = photo.predictions(top_k=len(photo.logits))
    if answer is not None:
        wanted = photo.target(answer)
        found = [score for score in found if score.index == wanted]
    return [Answer(score, photo_contributions(photo, score.index)) for score in found[:top_k]]


def _report(answer: Answer) -> dict[str, Any]:
    split = answer.split
    return {
        "answer": answer.score.name,
        "probability": round(answer.score.probability, 4),
        "logit": round(float(split.logit[0]), 4),
        "rest": round(float(split.rest[0]), 4),
        "gap": round(float(split.gap[0]), 4),
        "contributions": [round(value, 4) for value in np.asarray(split.values[0]).tolist()],
        "leading": answer.leading + 1,
    }
