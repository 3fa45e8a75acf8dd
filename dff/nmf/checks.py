"""What a factorization may be given: matrices, and numbers of components."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.errors import FactorizationError
from dff.nmf.rows import InMemory

__all__ = ["check_components", "tensor_rows"]


def tensor_rows(data: Tensor, least: int) -> InMemory:
    """Return the rows of a dense real matrix; integers and booleans as float32."""
    if data.ndim != 2 or data.layout != torch.strided or data.is_complex():
        raise FactorizationError(
            f"expected a real dense matrix (rows, columns), got a tensor of shape "
            f"{tuple(data.shape)} and type {data.dtype}: reshape it to one row a pixel"
        )
    if len(data) < least or data.shape[1] == 0:
        raise FactorizationError(
            f"expected at least {least} row and 1 column, got shape {tuple(data.shape)}: "
            "0 sample(s) cannot be factorized"
        )
    return InMemory(data.detach() if data.is_floating_point() else data.float())


def check_components(k: Any, rows: int, columns: int) -> None:
    """Refuse a number of components that is no positive integer or above min(rows, columns)."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise FactorizationError(f"expected n_components of 1 or more, got {k!r}: pass an integer")
    if k > min(rows, columns):
        raise FactorizationError(
            f"n_components={k} is more than this matrix of {rows} x {columns} can give: "
            f"pass {min(rows, columns)} or fewer, or more rows"
        )
