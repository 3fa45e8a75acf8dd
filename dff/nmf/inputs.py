"""What may be factorized: turns the caller's matrix into a tensor, or says what is wrong with it.

Nothing here writes to the caller's memory; a float32 or float64 matrix is not copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import validate_data
from torch import Tensor

from dff.errors import FactorizationError

__all__ = ["as_matrix", "check_components", "check_finite", "check_nonnegative", "energy", "like"]


def as_matrix(estimator: Any, data: Any, *, fitted: bool) -> Tensor:
    """Return `data` (n, c) as a float32 or float64 tensor on its own device, sharing its memory.

    Integers and booleans become float64 (numpy) or float32 (torch); float16 and bfloat16 become
    float32. Sets or checks the estimator's ``n_features_in_``.

    Raises:
        FactorizationError: not a matrix, empty, or another number of columns than in the fit.
        TypeError: a sparse matrix.
    """
    if isinstance(data, Tensor):
        return _from_torch(estimator, data, fitted=fitted)
    try:
        array = validate_data(
            estimator, data, dtype=[np.float32, np.float64], ensure_all_finite=False,
            reset=not fitted,
        )  # fmt: skip
    except ValueError as error:
        raise FactorizationError(str(error)) from error
    if not array.flags.writeable or min(array.strides) < 0:
        array = _borrowed(array)
    return torch.from_numpy(array)


def _borrowed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a writeable view of a read-only array (torch warns otherwise); copy what it cannot."""
    interface = dict(array.__array_interface__)
    if min(array.strides) < 0:
        return array.copy()
    interface["data"] = (interface["data"][0], False)
    holder = type("_View", (), {"__array_interface__": interface, "owner": array})()
    return np.asarray(holder)


def _from_torch(estimator: Any, data: Tensor, *, fitted: bool) -> Tensor:
    if data.ndim != 2 or data.is_sparse or data.is_complex():
        raise FactorizationError(
            f"expected a real dense matrix (rows, columns), got a tensor of shape "
            f"{tuple(data.shape)} and type {data.dtype}: reshape it to one row a pixel"
        )
    if 0 in data.shape:
        raise FactorizationError(
            f"expected at least 1 row and 1 column, got shape {tuple(data.shape)}: "
            "0 sample(s) cannot be factorized"
        )
    if not fitted:
        estimator.n_features_in_ = data.shape[1]
    elif data.shape[1] != estimator.n_features_in_:
        raise FactorizationError(
            f"X has {data.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input: pass the layer it was fitted on"
        )
    data = data.detach()
    return data if data.dtype in (torch.float32, torch.float64) else data.float()


def check_components(k: Any, rows: int, columns: int) -> None:
    """Refuse a number of components that is no positive integer or above min(rows, columns)."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise FactorizationError(f"expected n_components of 1 or more, got {k!r}: pass an integer")
    if k > min(rows, columns):
        raise FactorizationError(
            f"n_components={k} is more than this matrix of {rows} x {columns} can give: "
            f"pass {min(rows, columns)} or fewer, or more rows"
        )


def energy(a: Tensor) -> float:
    """Return ||a||², summed along rows in the type of `a`, then in float64; NaN or inf if `a` is.

    (One long float32 sum is off by as much as 0.1%.)
    """
    return float(torch.linalg.vector_norm(a, dim=1).double().square().sum())


def check_finite(a: Tensor, norm: float) -> None:
    """Raise if `a` (n, c), of squared norm `norm`, holds NaN or infinity: how many, and where."""
    if np.isfinite(norm):
        return
    for name, wrong in (("NaN", a.isnan()), ("infinity (inf)", a.isinf())):
        if wrong.any():
            row, column = (int(i) for i in wrong.nonzero()[0])
            raise FactorizationError(
                f"the matrix contains {name} in {int(wrong.sum())} of {a.numel()} entries, "
                f"first at row {row}, column {column}: remove those rows, or run the model in "
                "float32"
            )


def check_nonnegative(a: Tensor, who: str) -> None:
    """Raise if `a` (n, c) has an entry below zero: how many, where the lowest is."""
    lowest = float(a.min())
    if lowest >= 0:
        return
    row, column = divmod(int(a.argmin()), a.shape[1])
    raise FactorizationError(
        f"Negative values in data passed to {who}: {int((a < 0).sum())} of {a.numel()} entries, "
        f"the lowest {lowest:.4g} at row {row}, column {column}; use SemiNMF for signed "
        "activations, or factorize after a ReLU"
    )


def like(result: Tensor, data: Any) -> Any:
    """Return `result` as the kind that `data` is: a tensor for a tensor, else a numpy array."""
    return result if isinstance(data, Tensor) else result.cpu().numpy()
