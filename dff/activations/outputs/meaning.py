"""What a model's output means: decided once a model, read everywhere by that one reading.

Scores come in two forms. *Logits* (n, classes) are what evidence adds up in and what gradients are
taken of; *probabilities* (n, classes) are what is shown. :func:`recognise` looks at one output of
the model and says which kind it is of (:data:`KINDS`); the :class:`Meaning` that it returns leads
from outputs to logits (by being called) and from logits to probabilities.

    kind            logits z                        probabilities
    logits          the output                      softmax(z)
    probabilities   log p of the output p           softmax(z), which is p again
    binary          the output                      sigmoid(z)
    multilabel      the output                      sigmoid(z)
    boxes           the best box's score s, itself  s
    values          the output                      z, which is no probability
    embeddings      -                               -

Of an output that went through a sigmoid already, z is its inverse, log(p / (1 - p)).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dff.activations.outputs.boxes import Score, box_scores
from dff.activations.outputs.heads import logits_of
from dff.errors import LayerError, UsageError, closest

__all__ = ["ASKED", "KINDS", "Meaning", "Score", "check_output", "read_scores", "recognise"]

KINDS = {
    "logits": "one logit a class, probabilities by softmax",
    "probabilities": "taken as they are, their logarithms for logits",
    "binary": "the probability of one class, by the sigmoid of its logit",
    "multilabel": "independent labels, the probability of each by the sigmoid of its logit",
    "boxes": "of each class the score of its best box",
    "values": "numbers as they are, as of a regression",
    "embeddings": "not scored",
}
ASKED = ("logits", "probabilities", "binary", "multilabel", "values")
"""The kinds that a user may name."""

HIDDEN = "last_hidden_state"
UNSCORED = {HIDDEN: "hidden states", "predicted_depth": "depths"}
"""What outputs without scores hold, by their names for it."""
HEADLESS = "the model has no head to score with"

SUM_TOLERANCE = 1e-2  # how far rows of half-precision probabilities may sum from 1
LEAST = torch.finfo(torch.float32).tiny
NEAREST = 1e-7
"""How near to 0 and 1 a sigmoid's value may come before its inverse is taken."""


@dataclass(frozen=True)
class Meaning:
    """What a model's output is, and how scores are read from it.

    Attributes:
        kind: a key of :data:`KINDS`.
        found: by which evidence.
        classes: number of scores an image; 0 for embeddings.
        score: from the output to values (n, classes); None reads them by :func:`read_scores`.
        squashed: the values went through a sigmoid, or a softmax, already.
        pooled: the values are a mean over positions, as of segmentation.
        hidden: of embeddings: they are hidden states, as wide as the layers that gave them.
        sides: of one value an image two classes are made, with the logits -z and z.
    """

    kind: str = "logits"
    found: str = "by default"
    classes: int = 0
    score: Score | None = None
    squashed: bool = False
    pooled: bool = False
    hidden: bool = False
    sides: bool = False

    def __call__(self, output: Any) -> Tensor:
        """Return the logits (n, classes) of a model's output.

        Raises:
            LayerError: the output has no such tensor.
        """
        values = read_scores(output, self.score, classes=self.classes - self.sides)
        if self.kind == "probabilities":
            return values.float().clamp_min(LEAST).log()
        if self.squashed:
            values = values.float().logit(NEAREST)
        return torch.cat([-values, values], 1) if self.sides else values

    @property
    def exclusive(self) -> bool:
        """Whether an image has one class: the probabilities of all add to 1."""
        return self.kind not in ("boxes", "binary", "multilabel", "values")

    def relative(self, logits: Tensor) -> Tensor:
        """Return logits (..., classes) over their mean, where a constant on all means nothing."""
        return logits - logits.mean(-1, keepdim=True) if self.exclusive else logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities in [0, 1] of logits (..., classes)."""
        if self.exclusive:
            return logits.softmax(-1)
        return logits if self.kind in ("boxes", "values") else logits.sigmoid()

    def predicted(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the likeliest class (n,) of logits (n, classes), and its probability (n,).

        The class is -1 where the only class there is has a probability below one half.
        """
        best, index = self.probabilities(logits).max(-1)
        yes_or_no = self.classes == 1 and self.kind != "values"
        return (index.masked_fill(best < 0.5, -1) if yes_or_no else index), best

    def named(self, names: Sequence[str]) -> Meaning:
        """Return the meaning with as many classes as there are names.

        Two names of one value an image are of the two classes that it tells apart.

        Raises:
            UsageError: there are more or fewer names than classes.
        """
        if self.kind == "binary" and self.classes == 1 and len(names) == 2:
            return replace(self, classes=2, sides=True)
        if self.classes and len(names) != self.classes:
            one = " (or two, the second for what it speaks for)" if self.kind == "binary" else ""
            raise UsageError(
                f"{len(names)} class names do not fit an output of {self.classes} "
                f"class{'es' * (self.classes != 1)}: give one a class{one}"
            )
        return self

    def as_dict(self) -> dict[str, str]:
        """Return the kind and the evidence, for JSON."""
        return {"kind": self.kind, "found": self.found}

    def __str__(self) -> str:
        return f"{self.kind}: {KINDS[self.kind]} ({self.found})"


def check_output(asked: str | None) -> str | None:
    """Return the kind of output that a user names.

    Raises:
        UsageError: there is no such kind.
    """
    if asked is not None and asked not in ASKED:
        hint = closest(asked, ASKED) or f"; choose from {', '.join(ASKED)}"
        raise UsageError(f"there is no kind of output {asked!r}{hint}")
    return asked


def recognise(
    model: nn.Module,
    output: Any,
    again: Callable[[], Any],
    *,
    score: Score | None = None,
    head: bool = True,
    asked: str | None = None,
) -> Meaning:
    """Say what an output of `model` for one image means.

    Evidence, in this order: the model has no head; the output holds boxes; its configuration
    speaks of several labels (Hugging Face's ``problem_type``); it has one value an image; its rows
    sum to 1, in both outputs that are looked at; its last operation was a sigmoid. Else it is
    logits.

    Args:
        model: what gave the output.
        output: for one image, recorded with gradients if it can be.
        again: gives the output for another image.
        score: of the user's, from the output to values (n, classes).
        head: whether the model is known to have a head to score with.
        asked: the kind that the user says it is, one of :data:`ASKED`.

    Raises:
        UsageError: it cannot be what was asked for.
        LayerError: no scores can be read from it.
    """
    if score is None and (not head or (named := _unscored(output))):
        found = f"it returns {named} and no logits" if head else HEADLESS
        return Meaning("embeddings", found, hidden=not head or named == UNSCORED[HIDDEN])
    if score is None and (boxes := box_scores(model, output)):
        if asked:
            raise UsageError(
                f"the output cannot be read as {asked}: it is boxes; leave out output=, or give a "
                "score= from the output to scores (images, classes)"
            )
        found = "the output holds the boxes of objects"
        return Meaning("boxes", found, boxes(output).shape[1], boxes)
    with torch.enable_grad():
        tensor = logits_of(output) if score is None else score(output)
        values = read_scores(output, score, classes=_classes_of_one(tensor))
    meaning = Meaning(
        classes=values.shape[1],
        score=score,
        squashed=last_operation(tensor) in ("Softmax", "Sigmoid"),
        pooled=tensor.dim() > 2,
    )
    if asked:
        return _as_asked(meaning, values, asked)
    if kind := getattr(score, "kind", None):
        return replace(meaning, kind=kind, found=f"by a {type(score).__name__}", squashed=False)
    count = meaning.classes
    kind, found = _evidence(
        meaning, model, lambda: read_scores(again(), score, classes=count), values
    )
    return replace(meaning, kind=kind, found=found)


def _classes_of_one(tensor: Any) -> int:
    """Return how many values one image has, where the model drops the axis of images."""
    return tensor.numel() if isinstance(tensor, Tensor) and tensor.dim() < 2 else 1


def _evidence(
    meaning: Meaning, model: nn.Module, again: Callable[[], Tensor], values: Tensor
) -> tuple[str, str]:
    """Return the kind, and what speaks for it."""
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    if meaning.score is None and problem == "multi_label_classification":
        return "multilabel", f"the model's configuration says {problem}"
    if meaning.classes == 1:
        each = "a position" if meaning.pooled else "an image"
        squashed = ", of 0 to 1 already" if meaning.squashed else ""
        return "binary", f"the output is one value {each}{squashed}"
    if _sums_to_one(values) and _sums_to_one(again()):
        return "probabilities", "rows of the output sum to 1"
    if meaning.squashed:
        return "multilabel", "the output ends in a sigmoid: values of 0 to 1 already"
    return "logits", "no evidence for another kind"


def _as_asked(meaning: Meaning, values: Tensor, asked: str) -> Meaning:
    """Return the meaning that the user names, if it can be."""
    found, count = "as asked for", meaning.classes
    if asked == "binary" and count != 1:
        raise UsageError(
            f"the output cannot be read as binary: it has {count} values an image, not one; take "
            "multilabel for independent labels"
        )
    if asked == "logits" and count == 1:
        raise UsageError(
            "the output cannot be read as logits: it has one value an image, whose softmax is "
            "always 1; take binary, or values for a regression"
        )
    if asked == "values":
        return replace(meaning, kind=asked, found=found, squashed=False)
    if asked != "probabilities":
        return replace(meaning, kind=asked, found=found)
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise UsageError(
            "the output cannot be read as probabilities: its values reach from "
            f"{values.min().item():.3g} to {values.max().item():.3g}"
        )
    if _sums_to_one(values) and count > 1:
        return replace(meaning, kind=asked, found=found)
    kind = "binary" if count == 1 else "multilabel"
    return replace(meaning, kind=kind, found="probabilities, as asked for", squashed=True)


def _sums_to_one(values: Tensor) -> bool:
    values = values.detach().float()
    error = (values.sum(1) - 1).abs().max()
    return values.shape[1] > 1 and bool((values >= 0).all()) and float(error) < SUM_TOLERANCE


_SHAPING = re.compile(
    "View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|Clone|Alias|ToCopy|Permute|Transpose|T|Select"
    "|Slice|Expand"
)
"""Operations that values go through as they are."""


def last_operation(tensor: Tensor) -> str:
    """Return the name of the operation that made a tensor's values, such as "Softmax"; else ""."""
    node: Any = tensor.grad_fn
    while node is not None:
        name = re.sub(r"Backward\d*$", "", node.name())
        if not _SHAPING.fullmatch(re.sub(r"\d+$", "", name)):
            return name
        node = node.next_functions[0][0]
    return ""


def read_scores(output: Any, score: Score | None = None, *, classes: int = 1) -> Tensor:
    """Return the values (n, classes) that scores are made of.

    Without a `score` of the user's they are the output's ``logits``, else its main tensor; where
    that has positions, as in segmentation (n, classes, h, w) or tokens (n, positions, channels),
    the mean over them.

    Args:
        output: of a model.
        score: from the output to a tensor (n, classes).
        classes: how many there are, where an output has one axis alone: (n,) of one class, or
            (classes,) of one image where the model drops the axis of images.

    Raises:
        LayerError: the output has no such tensor, or `score` returns something else.
    """
    if score is not None:
        scores = score(output)
        if not isinstance(scores, Tensor) or scores.dim() not in (1, 2):
            came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise LayerError(f"score must return a tensor (images, classes), got {came}")
    else:
        scores = logits_of(output)
    if scores.dim() < 2:
        return scores.reshape(-1, max(classes, 1))
    if scores.dim() == 3:
        return scores.mean(1)
    return scores.flatten(2).mean(2) if scores.dim() > 3 else scores


def _unscored(output: Any) -> str | None:
    """Return what an output names in place of logits: it is no classifier's."""
    named = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    if named.get("logits") is not None:
        return None
    return next((what for name, what in UNSCORED.items() if name in named), None)
