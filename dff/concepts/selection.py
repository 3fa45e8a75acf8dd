"""How many concepts: what each further one explains, and whether it comes back on other data.

A (n x c) is factorized for every k of a range, on all rows and on the two halves of several random
splits. A concept that is in the data is found again in both halves of a split; one that fits noise,
or that cuts a concept in two by chance, is not. (Stability as the measure for the number of
components: Brunet et al. 2004; Wu et al., staNMF, PNAS 2016. Split halves: Lange et al. 2004.)
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dff.concepts.solver import solver
from dff.concepts.tree import Branch, Floats, branch, cosines
from dff.errors import FactorizationError, UsageError
from dff.nmf import starts
from dff.nmf.fitting import Progress

__all__ = ["Selection", "choose_components", "matched_cosine"]

SLACK = 0.003  # of matched cosine, within which a larger k is as stable as the stablest
MOST_ROWS = 8192


@dataclass(frozen=True)
class Selection:
    """The sweep over k, and the k that it speaks for.

    Attributes:
        counts: the numbers of concepts tried, ascending.
        chosen: the one of them that :func:`choose_components` picks; `reason` says why.
        explained: share of ||A||² explained at each k, of shape (len(counts),).
        gains: what each k explains beyond the one before it, of shape (len(counts),).
        stability: matched cosine between halves, of the least stable concept, the median over
            splits; 0 to 1, of shape (len(counts),).
        spread: half the range of that over splits, of shape (len(counts),).
        components: for each k, H (k, c), largest share first.
        shares: for each k, the share of ||A||² of each concept (k,).
        branches: the concept tree, one step fewer than counts.
    """

    counts: tuple[int, ...]
    chosen: int
    reason: str
    explained: Floats
    gains: Floats
    stability: Floats
    spread: Floats
    components: tuple[NDArray[Any], ...]
    shares: tuple[Floats, ...]
    branches: tuple[Branch, ...]

    def __repr__(self) -> str:
        i = self.counts.index(self.chosen)
        return (
            f"Selection({self.chosen} chosen of {self.counts[0]} to {self.counts[-1]} concepts, "
            f"stability {self.stability[i]:.2f}, explained share {self.explained[i]:.2f})"
        )


def choose_components(
    data: Any,
    counts: Iterable[int] = range(2, 13),
    *,
    splits: int = 4,
    random_state: int = 0,
    slack: float = SLACK,
    progress: Progress = lambda done, total: None,
) -> Selection:
    """Return the sweep of `data` A (n, c), numpy or torch, over the numbers of concepts `counts`.

    The rule: the k whose least stable concept is found again best in other data (the stability of
    Brunet et al. 2004, as staNMF applies it; Wu et al. 2016), and of those within `slack` of the
    best, the largest. Stability is the matched cosine of the least stable concept between random
    halves of the rows, the median over `splits`; concepts are matched by the Hungarian algorithm.
    Noise above zero has a mean, which is one faint concept that is nearly as stable as the true
    ones: a fixed threshold would count it. Signed data is taken by SemiNMF.

    The work is shared between the k: one sample of at most 8192 rows, one set of splits, and one
    singular value decomposition of each part, from which every k starts. `progress` is called with
    (fits made, of how many).

    Raises:
        UsageError: no counts, or counts below 1.
        FactorizationError: data that cannot be factorized, or fewer rows than the largest k needs.
    """
    tried = tuple(sorted({int(k) for k in counts}))
    if not tried or tried[0] < 1 or splits < 1:
        raise UsageError(
            f"expected numbers of concepts from 1 and splits from 1, got {list(tried)} and "
            f"{splits}: pass for example range(2, 13)"
        )
    rows = _sampled(data, tried[-1], random_state)
    signed = bool((rows < 0).any())
    made, total = itertools.count(1), len(tried) * (1 + 2 * splits)

    def fitted(part: Tensor, start: Tensor) -> tuple[Any, Tensor]:
        found = _fit(part, start, signed)
        progress(next(made), total)
        return found

    fits = [fitted(rows, start) for start in starts(rows, tried, random_state=random_state)]
    refound = np.array(
        [_split_cosines(rows, tried, fitted, random_state + turn) for turn in range(splits)]
    )
    stability = np.median(refound, axis=0)
    explained = np.array([1 - model.rest_share_ for model, _ in fits])
    chosen, reason = _rule(tried, stability, slack)
    codes = [code for _, code in fits]
    return Selection(
        counts=tried,
        chosen=chosen,
        reason=reason,
        explained=explained,
        gains=np.diff(explained, prepend=0.0),
        stability=stability,
        spread=np.ptp(refound, axis=0) / 2,
        components=tuple(model.components_.cpu().numpy() for model, _ in fits),
        shares=tuple(model.explained_share_ for model, _ in fits),
        branches=tuple(map(branch, codes[:-1], codes[1:])),
    )


def matched_cosine(first: Any, second: Any) -> Floats:
    """Return the cosine of each row of `first` (k, c) with its partner in `second` (k, c), (k,).

    Partners are the one-to-one matching of largest total cosine (Hungarian algorithm).
    """
    from scipy.optimize import linear_sum_assignment  # heavy

    cosine = cosines(first, second)
    rows, columns = linear_sum_assignment(-cosine)
    return np.asarray(cosine[rows, columns])


def _sampled(data: Any, largest: int, seed: int) -> Tensor:
    """Return at most MOST_ROWS of the rows, as a checked tensor."""
    values = torch.as_tensor(data).detach()
    if values.ndim != 2:
        raise FactorizationError(
            f"expected a matrix (rows, columns), got shape {tuple(values.shape)}"
        )
    values = values if values.dtype == torch.float64 else values.float()
    if not values.isfinite().all():
        raise FactorizationError("the matrix contains NaN or inf: remove those rows")
    if largest > min(len(values) // 2, values.shape[1]):
        raise FactorizationError(
            f"n_components={largest} is more than half of {len(values)} rows, or than "
            f"{values.shape[1]} columns, can show: pass {min(len(values) // 2, values.shape[1])} "
            "or fewer"
        )
    if len(values) <= MOST_ROWS:
        return values
    chosen = np.random.default_rng(seed).choice(len(values), MOST_ROWS, replace=False)
    return values[torch.from_numpy(np.sort(chosen)).to(values.device)]


def _fit(rows: Tensor, start: Tensor, signed: bool) -> tuple[Any, Tensor]:
    """Return the model fitted from `start` (k, c), and its codes (n, k)."""
    from sklearn.exceptions import ConvergenceWarning  # heavy

    model = solver(signed)(len(start), init=start, tol=1e-5, max_iter=300, precision="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        codes = model.fit_transform(rows)
    return model, codes


def _split_cosines(
    rows: Tensor, counts: tuple[int, ...], fitted: Callable[[Tensor, Tensor], Any], seed: int
) -> Floats:
    """Return for each k the matched cosine of the least stable concept between two halves."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows))).to(rows.device)
    half = len(rows) // 2
    parts = [rows[order[:half]], rows[order[half:]]]
    components = [
        [fitted(part, start)[0].components_ for start in starts(part, counts)] for part in parts
    ]
    pairs = zip(*components, strict=True)
    return np.array([matched_cosine(first, second).min() for first, second in pairs])


def _rule(counts: tuple[int, ...], stability: Floats, slack: float) -> tuple[int, str]:
    best = float(stability.max())
    last = int(np.flatnonzero(stability >= best - slack)[-1])
    k, kept = counts[last], float(stability[last])
    return k, (
        f"with {k} concepts the least stable one is found again in other data with a cosine of "
        f"{kept:.2f}; no larger number comes within {slack:g} of the best, {best:.2f}"
    )
