"""The file of a concept bank: tensors, and one entry of JSON for all that is not a tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dff.concepts.validation import TENSORS
from dff.errors import BankError, shortened
from dff.files import is_regular

__all__ = ["damaged", "is_bank", "packed", "unpacked"]

FORMAT = "dff-concept-bank-2"
LARGEST_HEADER = 1 << 24  # bytes: names, colours and versions of more concepts than anyone reads


def packed(tensors: Mapping[str, Tensor | None], facts: Mapping[str, Any]) -> bytes:
    """Return the bytes of a bank's file: tensors that are there, and facts for JSON."""
    there = {k: t.detach().cpu().contiguous() for k, t in tensors.items() if t is not None}
    # One entry, as safetensors does not keep the order of several.
    return save(there, {"concept_bank": json.dumps({"format": FORMAT, **facts})})


def unpacked(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the facts of a bank's file, which anyone may have made.

    Raises:
        BankError: the file is missing, damaged, or not a concept bank.
    """
    where = f"the concept bank {str(path)!r}"
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("concept_bank", "{}")
            if len(text) > LARGEST_HEADER:
                raise BankError(f"{where} is damaged: its header is {len(text)} characters")
            tensors = {key: file.get_tensor(key) for key in TENSORS if key in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, BankError):
            raise
        raise BankError(f"cannot read {where}: {shortened(error)}") from None
    try:
        facts = json.loads(text)
        form = facts.pop("format", None)
    except RecursionError:
        raise BankError(f"{where} is damaged: its header is nested too deeply") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BankError(damaged(path, error)) from None
    if form != FORMAT:
        raise BankError(f"{str(path)!r} is not a concept bank of this version ({FORMAT})")
    return tensors, facts


def damaged(path: str | Path, error: Exception) -> str:
    """Return the message for a bank that cannot be what it says it is."""
    return f"the concept bank {str(path)!r} is damaged: {shortened(error)}"


def is_bank(path: str | Path) -> bool:
    """Return whether a regular file says of itself that it is a concept bank."""
    if not is_regular(path):
        return False
    try:
        with safe_open(path, "pt") as file:
            return "concept_bank" in (file.metadata() or {})
    except (OSError, ValueError, SafetensorError):
        return False
