"""What may be factorized: turns the caller's data into rows, or says what is wrong with it.

Nothing here writes to the caller's memory or copies a floating-point matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.errors import FactorizationError
from dff.nmf.distributed import Total, alone
from dff.nmf.rows import InMemory, RowBlocks, Rows, as_tensor

__all__ = ["Inspector", "as_rows", "check_components", "check_fitted", "like"]

KINDS = [np.float32, np.float64, np.float16]


def as_rows(estimator: Any, data: Any, *, fitted: bool, least: int = 1) -> Rows:
    """Return the rows of `data` (n, c), sharing its memory; integers and booleans as float32.

    Sets or checks the estimator's ``n_features_in_``. `least` is the fewest rows.

    Raises:
        FactorizationError: not a matrix, empty, or another number of columns than in the fit.
        TypeError: a sparse matrix.
    """
    if isinstance(data, RowBlocks):
        _check_width(estimator, data.shape[1], fitted=fitted)
        return data
    if isinstance(data, Tensor):
        return InMemory(_from_torch(estimator, data, fitted=fitted, least=least))
    from sklearn.utils.validation import validate_data  # heavy, and not needed for tensors

    try:
        array = validate_data(
            estimator, data, dtype=KINDS, ensure_all_finite=False, ensure_min_samples=least,
            reset=not fitted,
        )  # fmt: skip
    except ValueError as error:
        raise FactorizationError(str(error)) from error
    return InMemory(as_tensor(array))


def check_fitted(estimator: Any) -> None:
    """Refuse, as scikit-learn does, what has not been fitted yet."""
    if not hasattr(estimator, "components_"):
        from sklearn.exceptions import NotFittedError  # heavy

        raise NotFittedError(f"this {type(estimator).__name__} is not fitted yet: call fit first")


def _check_width(estimator: Any, columns: int, *, fitted: bool) -> None:
    if not fitted:
        estimator.n_features_in_ = columns
    elif columns != estimator.n_features_in_:
        raise FactorizationError(
            f"X has {columns} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input: pass the layer it was fitted on"
        )


def _from_torch(estimator: Any, data: Tensor, *, fitted: bool, least: int) -> Tensor:
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
    _check_width(estimator, data.shape[1], fitted=fitted)
    return data.detach() if data.is_floating_point() else data.float()


def check_components(k: Any, rows: int, columns: int) -> None:
    """Refuse a number of components that is no positive integer or above min(rows, columns)."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise FactorizationError(f"expected n_components of 1 or more, got {k!r}: pass an integer")
    if k > min(rows, columns):
        raise FactorizationError(
            f"n_components={k} is more than this matrix of {rows} x {columns} can give: "
            f"pass {min(rows, columns)} or fewer, or more rows"
        )


class Inspector:
    """Checks the entries of A while it is read, and sums ||A||².

    Call it with each block, from any thread; then ``finish`` gives the energy, or the error.
    Nothing is waited for in between, so a GPU is not held up.
    """

    def __init__(self, who: str, *, signed: bool) -> None:
        self.who = who
        self.signed = signed
        self.energies: list[Tensor] = []
        self.lowest: list[Tensor] = []

    def __call__(self, block: Tensor) -> None:
        """Take in a block (b, c)."""
        if len(block) == 0:
            return
        kind = torch.float64 if block.dtype == torch.float64 else torch.float32
        # Along rows in float32, then in float64: one long float32 sum is off by as much as 0.1%.
        norms = torch.linalg.vector_norm(block, dim=1, dtype=kind)
        self.energies.append(norms.double().square().sum())
        if not self.signed:
            self.lowest.append(block.amin())

    def finish(self, rows: Rows, total: Total = alone) -> float:
        """Return ||A||² over all ranks; raise on all of them if any holds a forbidden entry."""
        energies = torch.stack(self.energies) if self.energies else torch.zeros(0)
        energy = energies.sort().values.sum()  # the same in whichever order the blocks came
        finite = bool(energy.isfinite())
        wrong = not finite or (bool(self.lowest) and float(torch.stack(self.lowest).min()) < 0)
        figures = [float(energy) if finite else 0.0, float(wrong)]
        if total is not alone:
            together = torch.tensor(figures, dtype=torch.float64, device=energy.device)
            figures = total(together).tolist()
        if wrong:
            self._explain(rows)
        if figures[1] > 0:
            raise FactorizationError(
                f"another rank of the process group passed entries that {self.who} cannot take: "
                "see its message"
            )
        return float(figures[0])

    def _explain(self, rows: Rows) -> None:
        """Look again and raise with how many entries are wrong, and where."""
        size = rows.shape[0] * rows.shape[1]
        broken = "remove those rows, or run the model in float32"
        checks: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
            ("NaN", lambda block: block.isnan(), broken),
            ("infinity (inf)", lambda block: block.isinf(), broken),
        ]
        if not self.signed:
            remedy = "use SemiNMF for signed activations, or factorize after a ReLU"
            checks.append(("Negative values", lambda block: block < 0, remedy))
        for name, test, remedy in checks:
            count, place = _count(rows, test)
            if count:
                raise FactorizationError(
                    f"{name} in data passed to {self.who}: {count} of {size} entries, first at "
                    f"row {place[0]}, column {place[1]}; {remedy}"
                )
        raise FactorizationError("the entries are so large that their squares overflow: rescale")


def _count(rows: Rows, test: Callable[[Tensor], Tensor]) -> tuple[int, tuple[int, int]]:
    """Return how many entries pass `test`, and the first of them (row, column)."""
    count, place = 0, (-1, -1)
    for where, block in rows.blocks():
        hits = test(block).nonzero()
        if len(hits) and not count:
            place = (where.start + int(hits[0, 0]), int(hits[0, 1]))
        count += len(hits)
    return count, place


def like(result: Tensor, data: Any) -> Any:
    """Return `result` as the kind that `data` is: a tensor for a tensor, else a numpy array."""
    return result if isinstance(data, Tensor) else result.cpu().numpy()
