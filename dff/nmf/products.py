"""Products with A: in which type they are made, and by which library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from dff.errors import FactorizationError

__all__ = ["PRECISIONS", "choose_precision", "multiply", "settled"]

PRECISIONS = ("auto", "float32", "bfloat16")
Result = TypeVar("Result")

LINALG_ERROR: Any = torch.linalg.LinAlgError  # type: ignore[attr-defined]
LARGE = 1 << 22  # entries of A; below, the products are not what takes the time
WORK = 1 << 22  # multiplications; below, a call of oneDNN costs more than it saves


def choose_precision(
    wanted: str, kind: torch.dtype, device: torch.device, entries: int
) -> torch.dtype:
    """Return the type for products with A, whose other arithmetic is in `kind`."""
    if kind == torch.float64 or wanted == "float32":
        return kind
    if wanted == "bfloat16" or (entries >= LARGE and has_bfloat16(device)):
        return torch.bfloat16
    return kind


def has_bfloat16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 in hardware (AMX, AVX-512, tensor cores)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in probes)


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """Return x @ y. Large products of float32 matrices go to oneDNN where torch offers it.

    torch itself takes MKL, which on tall and narrow matrices was two to three times slower
    (measured on an AMD processor with AVX-512, with which MKL is not on good terms).
    """
    if (
        _ONEDNN is not None
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() * y.shape[1] >= WORK
    ):
        product: Tensor = _ONEDNN(x, y.T, None, "none", [], "")
        return product
    return x @ y


def settled(decompose: Callable[[Tensor], Result], gram: Tensor) -> Result:
    """Return ``decompose(gram)`` of a symmetric matrix, slightly shifted where LAPACK gives up.

    Raises:
        FactorizationError: its entries overflowed.
    """
    try:
        return decompose(gram)
    except LINALG_ERROR:
        shift = 1e-12 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        try:
            return decompose(gram + shift * torch.eye(gram.shape[-1]).to(gram))
        except LINALG_ERROR as error:
            raise FactorizationError(
                "the factors of this matrix over- or underflow: ask for fewer components, leave "
                "out rows far larger than the others, or pass it in float64"
            ) from error


def _onednn() -> Any:
    """Return torch's own entrance to oneDNN's matrix product, or None where there is none."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONEDNN = _onednn()
