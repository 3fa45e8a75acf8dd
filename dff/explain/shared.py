"""The concepts that photos share, and what each says about the classes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dff.activations.outputs import Meaning
from dff.concepts import ConceptBank
from dff.errors import LayerError, ModelError
from dff.labels import class_name

__all__ = ["ClassScore", "SharedConcepts"]


@dataclass(frozen=True)
class ClassScore:
    """A class, its probability in [0, 1] and its logit."""

    index: int
    name: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class SharedConcepts:
    """The concepts that photos share, and what each says about the classes.

    Attributes:
        bank: the concepts: embeddings, full presence, shares, names, colours.
        logits: (k, classes) of each concept at full presence; (k, 0) without a head.
        class_names: names of the classes, or None.
        unscored: why the concepts have no scores; None where they have.
        meaning: what the model's output is, and how logits become probabilities.
    """

    bank: ConceptBank
    logits: Tensor
    class_names: tuple[str, ...] | None = None
    unscored: str | None = None
    meaning: Meaning = Meaning()  # noqa: RUF009 - frozen

    def check_scored(self) -> None:
        """Raise with the reason if the concepts have no scores.

        Raises:
            ModelError: the model has no head, so that photos have no classes either.
            LayerError: the layer's grid has no say in the output.
        """
        if self.unscored:
            raise (ModelError if self.headless else LayerError)(self.unscored)

    @property
    def headless(self) -> bool:
        """Whether the model has no classes at all."""
        return not self.logits.shape[1]

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 7"."""
        return class_name(index, self.class_names)

    def top_classes(self, concept: int, *, top_k: int) -> list[ClassScore]:
        """Return the classes that a concept (from 0) speaks for; none where it has no scores."""
        return [] if self.unscored else self.likeliest(self.logits[concept], top_k)

    def likeliest(self, logits: Tensor, top_k: int) -> list[ClassScore]:
        """Return the likeliest classes of logits (classes,), best first."""
        values, indices = self.meaning.probabilities(logits).topk(min(top_k, len(logits)))
        return [
            ClassScore(i, self.class_name(i), value, float(logits[i]))
            for value, i in zip(values.tolist(), indices.tolist(), strict=True)
        ]
