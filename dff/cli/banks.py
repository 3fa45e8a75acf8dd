"""A bank names its model: the options that build it again, and what contradicts them."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from dff.cli.options import ModelOptions, numbers
from dff.errors import ModelError, UsageError
from dff.files import digest_of

if TYPE_CHECKING:
    from dff.concepts import ConceptBank

__all__ = ["of_bank"]

FIXED = ("model", "weights", "mean", "std", "layer")
"""What concepts hang on. Size, labels and the reading of scores may be others than the bank's."""


def of_bank(
    chosen: ModelOptions, bank: ConceptBank, path: str, typed: Collection[str]
) -> ModelOptions:
    """Return the options with what a bank says of its model, so that it is built again.

    Args:
        chosen: as parsed.
        bank: whose recipe is followed.
        path: of its file, for messages.
        typed: the fields that the command line names: they win over the bank's.

    Raises:
        UsageError: the bank does not say enough, or the command line contradicts it.
        ModelError: a file that the model was built from is not there.
    """
    where = f"the bank {path!r}"
    if "model" not in typed:
        _check_named(bank, where, chosen.model)
    said = {"model": bank.model, "layer": bank.layer, **_as_options(bank.recipe)}
    for name in FIXED:
        given = getattr(chosen, name)
        if name in typed and name in said and not _same(name, given, bank, said[name]):
            raise UsageError(
                f"--{name} {given!r} contradicts {where}, which was made with {said[name]!r}: "
                f"leave out --{name}, or find new concepts without --bank"
            )
    followed = replace(chosen, **{k: v for k, v in said.items() if k not in typed and v != ""})
    _check_files(followed, bank, where, typed)
    return followed


def _check_named(bank: ConceptBank, where: str, named: str) -> None:
    """Refuse a bank that does not say how its model is built, or whose model is code.

    Unless that code is `named`, as in a file of settings that the user gave.
    """
    from dff.models import is_code

    if is_code(bank.model) and bank.model != named:
        raise UsageError(
            f"{where} is of a model that is code, which is run only where you name it: "
            f"--model {bank.model}"
        )
    if bank.recipe.get("weights") == "random":
        raise UsageError(
            f"{where} was made with random weights, which cannot be had again: name a model with "
            "--model"
        )
    if not bank.recipe:
        raise UsageError(
            f"{where} is of {bank.model!r}, layer {bank.layer!r}, and does not say how that is "
            "built: name it with --model, and --weights, --labels, --mean, --std, --size where "
            "they are not its own"
        )


def _as_options(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe in the words of the command line."""
    names = {field.name for field in fields(ModelOptions)}
    said = {name: value for name, value in recipe.items() if name in names}
    for name in ("mean", "std"):
        if name in said:
            said[name] = ",".join(map(repr, said[name]))
    return said


def _same(name: str, given: Any, bank: ConceptBank, said: str) -> bool:
    """Whether what the command line gives is what the bank was made with."""
    if name == "weights" and os.path.isfile(given):
        return digest_of(given) == bank.recipe.get("sha256")
    if name in ("mean", "std"):
        values, own = numbers(f"--{name}", given), bank.recipe[name]
        return own == (values if isinstance(values, list) else [values] * len(own))
    moved = name == "model" and os.path.exists(_place(given))
    return given == said or (moved and os.path.basename(given) == os.path.basename(said))


def _place(model: str) -> str:
    """Return the path in the name of a model that is local: hf:FOLDER, or FILE.py:factory."""
    source, _, rest = model.partition(":")
    return rest if source == "hf" else source


def _check_files(
    chosen: ModelOptions, bank: ConceptBank, where: str, typed: Collection[str]
) -> None:
    """Refuse, before anything is loaded, files that are gone or are others than the bank's."""
    folder = _place(chosen.model)
    gone = {
        "model": chosen.model.startswith("hf:") and _is_path(folder) and not os.path.isdir(folder),
        "weights": "sha256" in bank.recipe and not os.path.isfile(chosen.weights or ""),
        "labels": bool(chosen.labels) and not os.path.isfile(chosen.labels or ""),
    }
    for name, missing in gone.items():
        if missing and name not in typed:
            raise ModelError(
                f"{where} was made with the {name} {getattr(chosen, name)!r}, not to be found "
                f"from here: say with --{name} where that is now"
            )
    if "weights" in typed or "sha256" not in bank.recipe:
        return
    if digest_of(chosen.weights or "") != bank.recipe["sha256"]:
        raise UsageError(
            f"the weights {chosen.weights!r} is another file than {where} was made with "
            f"(sha256 {bank.recipe['sha256'][:12]}…): name that with --weights"
        )


def _is_path(folder: str) -> bool:
    return folder.startswith((".", os.sep)) or folder.count("/") > 1
