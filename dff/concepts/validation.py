"""What a concept bank may hold: banks are files that anyone may have made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dff.errors import BankError

__all__ = ["FACTS", "TENSORS", "check_facts", "check_tensors", "check_unions"]

TENSORS = ("components", "scale", "shares", "offset", "union_scale", "union_likeness")
FACTS = ("model", "layer", "signed", "rest", "names", "rgb", "versions", "unions", "recipe")
LONGEST_NAME = 1000
LONGEST_PATH = 4096
RECIPE = {
    "weights": str, "sha256": str, "labels": str, "num_classes": int, "size": int, "mean": list,
    "std": list, "output_kind": str,
}  # fmt: skip
"""What a recipe may say (:attr:`dff.models.LoadedModel.recipe`), and of which type."""


def check_tensors(tensors: Mapping[str, Tensor | None], *, signed: bool) -> None:
    """Refuse what no factorization gives.

    Args:
        tensors: by the names :data:`TENSORS`; the offset and those of unions may be None.
        signed: the components may be negative.

    Raises:
        BankError: shapes that do not fit, values that are not finite, or negative ones.
    """
    components, scale, shares = (tensors[name] for name in TENSORS[:3])
    assert components is not None and scale is not None and shares is not None  # noqa: PT018
    k, offset = len(components), tensors["offset"]
    shapes = [tuple(t.shape) for t in (components, scale, shares)]
    if components.dim() != 2 or not k or shapes[1:] != [(k,), (k,)]:
        raise BankError(
            f"expected components (k, channels), scale (k,) and shares (k,), got {shapes}"
        )
    if offset is not None and offset.shape != components.shape[1:]:
        raise BankError(
            f"the bank's components are {shapes[0]}, but its offset is "
            f"{tuple(offset.shape)}; it has one number a channel"
        )
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise BankError(f"the bank's {name} are not all finite floating-point numbers")
        if name.endswith("scale") or (name == "components" and not signed):
            lowest = float(tensor.min()) if tensor.numel() else 0.0
            if lowest < 0:
                raise BankError(f"the bank's {name} are never negative, but one is {lowest}")


def check_unions(unions: Any, scale: Tensor | None, likeness: Tensor | None, concepts: int) -> None:
    """Refuse unions of concepts that there are not, or of which the maps are not known.

    Raises:
        BankError: such.
    """
    for union in unions:
        known = all(0 <= k < concepts for k in union)
        if not known or len(set(union)) < max(1, len(union)) or len(union) >= concepts:
            raise BankError(
                f"a union is of 1 to {concepts - 1} of the bank's {concepts} concepts, not of "
                f"{str(union)[:40]}"
            )
    if (0 if scale is None else tuple(scale.shape)) != ((len(unions),) if unions else 0):
        raise BankError(f"the bank has {len(unions)} unions, but not as many full presences")
    if likeness is not None and tuple(likeness.shape) != (len(unions), concepts + 1):
        raise BankError(
            f"expected a likeness of {len(unions)} unions to {concepts} concepts and a level, got "
            f"{tuple(likeness.shape)}"
        )


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse names that cannot be shown, colours that are none, and what is no number.

    Args:
        facts: by the names :data:`FACTS`.

    Raises:
        BankError: one of them is not what it has to be.
    """
    for text in (facts["model"], facts["layer"], *facts["names"]):
        if not isinstance(text, str) or len(text) > LONGEST_NAME:
            raise BankError(
                f"the bank's names are texts of at most {LONGEST_NAME} characters, not "
                f"{str(text)[:40]!r}"
            )
    if any(len(color) != 3 or not all(0 <= v <= 255 for v in color) for color in facts["rgb"]):
        raise BankError("the bank's colours are three numbers from 0 to 255 each")
    if not isinstance(facts["rest"], (int, float)) or not math.isfinite(facts["rest"]):
        raise BankError(f"the bank's rest is a finite number, not {str(facts['rest'])[:40]!r}")
    if not isinstance(facts["signed"], bool) or not isinstance(facts["versions"], dict):
        raise BankError("the bank's signed is true or false, and its versions a mapping")
    _check_recipe(facts["recipe"])


def _check_recipe(recipe: Any) -> None:
    for name, value in recipe.items() if isinstance(recipe, dict) else [("recipe", recipe)]:
        numbers = value if isinstance(value, list) else []
        sound = (
            type(value) is RECIPE.get(name)
            and (not isinstance(value, str) or len(value) <= LONGEST_PATH)
            and all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers)
        )
        if not sound:
            raise BankError(
                f"the bank's recipe of its model holds no such {str(name)[:40]!r}: "
                f"{str(value)[:40]!r}"
            )
