"""What speaks for a class: the evidence of a photo's concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dff import scoring
from dff.activations.tail import BUDGET
from dff.errors import UsageError, closest
from dff.explain.photo import Photo, Target
from dff.maps import presence, upsample
from dff.metrics import Forward
from dff.scoring import ConceptModule, Contributions, rebuild
from dff.scoring.contributions import LINEAR

__all__ = [
    "EVIDENCE",
    "Evidence",
    "check_evidence",
    "logit_mixtures",
    "photo_contributions",
    "photo_evidence",
    "photo_module",
    "rest_of_model",
]

Targets = Target | Sequence[Target] | None
"""A class, several, or None: the photo's likeliest."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What each concept of a photo says about classes, by one way of asking.

    Attributes:
        kind: a key of :data:`EVIDENCE`.
        targets: (t,) names of the classes.
        values: (t, k); in logits, but shares of the variance for "sobol".
        details: of "contributions": the rest, the logit, the gap; else None.
    """

    kind: str
    targets: tuple[str, ...]
    values: Tensor
    details: Contributions | None = None

    def as_dict(self, target: int = 0) -> dict[str, Any]:
        """Return one target's values as plain data."""
        figures: dict[str, Any] = {
            "kind": self.kind,
            "target": self.targets[target],
            "values": self.values[target].tolist(),
        }
        if self.details is not None:
            for name in ("rest", "gap", "logit"):
                figures[name] = float(getattr(self.details, name)[target])
        return figures


@torch.inference_mode(False)
def photo_contributions(
    photo: Photo, target: Targets, *, versus: Target | None = None, tolerance: float = 0.01
) -> Contributions:
    """Split the photo's own logits into one number a concept, and the rest."""
    photo.shared.check_scored()
    photo.check_differentiable()
    names, weights = logit_mixtures(photo, target, versus)
    logit = weights @ photo.logits  # as the model gave it, without W·H + R between
    tried = photo.probed is not None and photo.tape.maps.requires_grad
    values = _linear(photo, weights) if tried else None
    if values is not None:
        rest = logit - values.sum((1, 2, 3))
        return Contributions(names, values.sum((2, 3)), rest, logit, torch.zeros_like(rest),
                             values, linear=True, steps=1)  # fmt: skip
    forward, coefficients = rest_of_model(photo)
    split = scoring.split_logits(
        forward,
        coefficients,
        weights,
        targets=names,
        tolerance=tolerance,
        batch=_gradient_batch(photo),
        curved=tried,
    )
    return replace(split, logit=logit, gap=logit - split.rest - split.values.sum(1))


def _linear(photo: Photo, weights: Tensor) -> Tensor | None:
    """Return what each cell of each concept adds (t, k, rows, cols), of a head that is linear.

    It is if the gradients of the photo's own pass foretell what the pass has shown of the photo
    without each concept, and of each concept by itself. None at the first target where they do not.
    """
    values = []
    for mixture in weights:
        found = _linear_in(photo, mixture)
        if found is None:
            return None
        values.append(found)
    return torch.stack(values).float()


def _linear_in(photo: Photo, mixture: Tensor) -> Tensor | None:
    """Return :func:`_linear` (k, rows, cols), float64, of one mixture of logits (classes,)."""
    assert photo.probed is not None
    bank, gradient = photo.bank, _gradient_of_pass(photo, mixture)
    along = torch.einsum("chw,kc->khw", gradient, bank.components.double().cpu())
    values = along * photo.layer_coefficients.double()
    logit = (mixture @ photo.logits).double()
    nothing = logit - (gradient * photo.activations.double().cpu()).sum()
    alone = nothing + along.sum((1, 2)) * bank.scale.double().cpu()
    foretold = torch.cat([logit - values.sum((1, 2)), alone])
    shown = torch.cat([photo.probed[: len(bank)].cpu(), photo.shared.logits]) @ mixture
    precision = max(LINEAR, 2 * torch.finfo(photo.tape.logits.dtype).eps)
    close = (foretold - shown).abs() <= precision * shown.abs().amax()
    return values if bool(close.all()) else None


def _gradient_of_pass(photo: Photo, mixture: Tensor) -> Tensor:
    """Return the gradient (channels, rows, cols) of a mixture of logits to the activations."""
    shares = [
        float(mixture[index]) * photo.gradient(index).double().cpu()
        for index in mixture.nonzero()[:, 0].tolist()
    ]
    return torch.stack(shares).sum(0)


@torch.inference_mode(False)
def photo_evidence(
    photo: Photo, kind: str, target: Targets, *, versus: Target | None = None
) -> Evidence:
    """Ask the photo's concepts about classes in one of the ways of :data:`EVIDENCE`."""
    check_evidence([kind])
    if kind == CONTRIBUTIONS:
        split = photo_contributions(photo, target, versus=versus)
        return Evidence(kind, split.targets, split.values, split)
    photo.shared.check_scored()
    names, weights = logit_mixtures(photo, target, versus)
    return Evidence(kind, names, _IMPORTANCE[kind](photo, weights))


def check_evidence(kinds: Sequence[str] | None) -> tuple[str, ...]:
    """Return the kinds of evidence asked for.

    Raises:
        UsageError: there is no such kind.
    """
    for name in kinds or ():
        if name not in EVIDENCE:
            hint = closest(name, EVIDENCE)
            raise UsageError(
                f"there is no evidence {name!r}{hint or '; choose from ' + ', '.join(EVIDENCE)}"
            )
    return tuple(kinds or ())


def _ablation(photo: Photo, weights: Tensor) -> Tensor:
    return scoring.ablation(*rest_of_model(photo), weights)


def _gradient(photo: Photo, weights: Tensor) -> Tensor:
    photo.check_differentiable()
    return scoring.gradient_times_coefficient(*rest_of_model(photo), weights)


def _sobol(photo: Photo, weights: Tensor) -> Tensor:
    return scoring.sobol(*rest_of_model(photo), weights)


def _blur(photo: Photo, weights: Tensor) -> Tensor:
    photo.check_still("the evidence 'blur'")
    cells = presence(photo.coefficients, photo.bank.scale.cpu())
    size = (int(photo.image.shape[1]), int(photo.image.shape[2]))
    masks = upsample(cells, size, photo.grid)
    whole = partial(photo.tail.whole, item=photo.item)
    return scoring.blur_ablation(whole, photo.image, masks, weights)


CONTRIBUTIONS = "contributions"
_IMPORTANCE: dict[str, Callable[[Photo, Tensor], Tensor]] = {
    "ablation": _ablation,
    "blur": _blur,
    "sobol": _sobol,
    "gradient": _gradient,
}
EVIDENCE = (CONTRIBUTIONS, *_IMPORTANCE)
"""The ways of asking what concepts say about classes: "contributions" (they add up to the logit),
"ablation" (the logit falls by so much when the concept is taken out of the activations), "blur"
(when its region of the picture is blurred), "sobol" (total Sobol indices, as in CRAFT), or
"gradient" (gradient x coefficient)."""


@torch.inference_mode(False)
def photo_module(photo: Photo) -> ConceptModule:
    """Return the model as seen from the photo's concepts."""
    photo.shared.check_scored()
    unexplained, _ = _unexplained(photo)
    return ConceptModule(photo.tail, photo.bank, rest=unexplained, item=photo.item)


def logit_mixtures(
    photo: Photo, target: Targets, versus: Target | None = None
) -> tuple[tuple[str, ...], Tensor]:
    """Return the targets' names, and (t, classes) the mixture of logits that each one is."""
    targets = [target] if target is None or isinstance(target, (int, str)) else list(target)
    classes = [photo.target(target) for target in targets]
    names = [photo.shared.class_name(index) for index in classes]
    weights = torch.zeros(len(classes), len(photo.logits))
    weights[range(len(classes)), classes] = 1
    if versus is not None:
        versus_index = photo.target(versus)
        weights[:, versus_index] -= 1
        names = [f"{name} - {photo.shared.class_name(versus_index)}" for name in names]
    return tuple(names), weights


def rest_of_model(photo: Photo) -> tuple[Forward, Tensor]:
    """Return the rest of the model as a function of the photo's coefficients, and these."""
    components = photo.bank.components
    unexplained, coefficients = _unexplained(photo)

    def forward(w: Tensor) -> Tensor:
        return photo.tail(rebuild(w, components.to(w), unexplained), photo.item)

    return forward, coefficients


def _gradient_batch(photo: Photo) -> int:
    """Return how many items may be recorded at a time: fewer where the grid is large."""
    return max(1, min(32, BUDGET // 2 // photo.tape.maps[photo.item].numel()))


def _unexplained(photo: Photo) -> tuple[Tensor, Tensor]:
    """Return R = A - W·H (channels, rows, cols) and W (k, rows, cols) at the layer's cells."""
    activations = photo.activations
    coefficients = photo.layer_coefficients.to(activations).clone()  # never an inference tensor
    return activations - rebuild(coefficients[None], photo.bank.components)[0], coefficients
