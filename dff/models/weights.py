"""Weights from local files: safetensors, or PyTorch files read without running code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dff.errors import ModelError, closest, shortened

__all__ = ["class_count", "load_weights", "read_weights"]

NESTED = ("state_dict", "model_state_dict", "model", "model_ema", "teacher", "student")
"""Keys under which training scripts keep the weights of a checkpoint."""
DEEPEST = 5  # such keys within each other


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` or PyTorch file (``.pth``, ``.pt``, ``.bin``).

    PyTorch files are read with ``weights_only=True``: a pickle that would run code is refused.
    Checkpoints are unwrapped, and ``module.`` prefixes of DataParallel removed.

    Raises:
        ModelError: the file is missing, damaged, of another kind, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        what = "is a directory" if path.is_dir() else "does not exist"
        raise ModelError(f"the weights {str(path)!r}: the file {what}{closest(path.name, names)}")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except SafetensorError as error:
        raise ModelError(f"the weights {str(path)!r} are damaged: {error}") from None
    except PermissionError:
        raise ModelError(f"the weights {str(path)!r} cannot be read: permission denied") from None
    return _state_dict(content, path)


def _check_archive(path: Path) -> None:
    """Refuse a PyTorch archive that unpacks to more than it is: torch stores tensors as they are.

    Raises:
        ModelError: a compressed member, or more bytes than the file has.
    """
    if not zipfile.is_zipfile(path):
        return  # of the days before torch 1.6
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"the weights {str(path)!r} are damaged: {shortened(error)}") from None
    unpacked, size = sum(member.file_size for member in members), path.stat().st_size
    if unpacked > size or any(m.compress_type != zipfile.ZIP_STORED for m in members):
        raise ModelError(
            f"the weights {str(path)!r} are refused: a file of {size} bytes that unpacks to "
            f"{unpacked} is none that torch.save wrote"
        )


def _unpickle(path: Path) -> Any:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols: the error says enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = "Unsupported" in str(error) or "weights_only" in str(error).lower()
        if unsafe and "GLOBAL" in str(error).upper():
            raise ModelError(
                f"the weights {str(path)!r} are refused: loading them would run code from the "
                "file; save the state dict alone, best as .safetensors"
            ) from None
        raise ModelError(f"the weights {str(path)!r} are not a PyTorch file of tensors") from None
    except PermissionError:
        raise
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        reason = shortened(str(error).splitlines()[0]) if str(error) else "it ends early"
        raise ModelError(f"the weights {str(path)!r} are damaged: {reason}") from None


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the tensors by name in what a file holds."""
    for _ in range(DEEPEST):  # a mapping may hold itself
        if not isinstance(content, Mapping):
            break
        nested = next((k for k in NESTED if isinstance(content.get(k), Mapping)), None)
        if nested is None:
            break
        content = content[nested]
    else:
        raise ModelError(f"the weights {str(path)!r} are nested more than {DEEPEST} deep")
    if not isinstance(content, Mapping):
        raise ModelError(
            f"the weights {str(path)!r} hold a {type(content).__name__}, not tensors by name; "
            "save model.state_dict()"
        )
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ModelError(f"the weights {str(path)!r} hold no tensors; save model.state_dict()")
    for key, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            what = "quantized" if value.is_quantized else "meta" if value.is_meta else "sparse"
            raise ModelError(
                f"the weights {str(path)!r} hold a {what} tensor, {shortened(key, 80)!r}; save "
                "plain (dense) tensors"
            )
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def class_count(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes of weights that fit `model` but for its head; None if they fit.

    Heads differ in their first axis alone, all by the same count; other weights are left to
    :func:`load_weights` to complain about.
    """
    own = model.state_dict()
    other = {k: v.shape for k, v in state.items() if k in own and v.shape != own[k].shape}
    counts = {int(shape[0]) for shape in other.values() if shape}
    alike = all(shape[1:] == own[key].shape[1:] for key, shape in other.items())
    return counts.pop() if len(counts) == 1 and alike else None


def _listed(keys: list[str]) -> str:
    return ", ".join(shortened(key, 80) for key in keys[:3]) + (", …" if len(keys) > 3 else "")


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Copy weights into a model; return the keys of its head where they lack just these.

    The head is the last layer that has weights: a backbone's file fits but for them, and they
    stay as they were.

    Raises:
        ModelError: other keys are missing, unexpected or of another shape; they are named.
    """
    own = model.state_dict()
    # Counters of BatchNorm play no part in evaluation, and older files have none.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    other = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    lacking = tuple(missing) if missing == _last_layer(own) else ()
    missing = [] if lacking else missing
    complaints = [
        f"{len(keys)} {what} ({_listed(keys)})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", other),
        )
        if keys
    ]
    if complaints:
        raise ModelError(
            f"the weights {source!r} do not fit {type(model).__name__}: {'; '.join(complaints)}; "
            "check --model and --num-classes"
        )
    model.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
    return lacking


def _last_layer(own: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of the last of a model's layers that has weights."""
    last = ([*own] or [""])[-1].rpartition(".")[0]
    return [key for key in own if last and key.rpartition(".")[0] == last]
