"""LOST and TokenCut: one object a photo, from its own features, written from the papers.

Both take one photo's features F (h, w, channels) and give the object's cells, bool (h, w): the
connected component (4-neighbours) that holds the seed.

Their rules were made for keys of a self-supervised transformer, of both signs. Features after a
ReLU never disagree, so that all degrees tie: "centred" is this benchmark's repair, which takes the
photo's mean cell off first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.linalg import eigh
from scipy.ndimage import label

__all__ = ["OneObject", "lost", "one_object_rules", "token_cut"]

OneObject = Callable[[np.ndarray], np.ndarray]
WEAK = 1e-5  # the weight of edges below TokenCut's threshold
EXPANSIONS = (0.05, 0.1, 0.25, 0.5, 1.0)


def lost(features: np.ndarray, *, expansion: float = 0.1) -> np.ndarray:
    """Siméoni et al., "Localizing Objects with Self-Supervised Transformers and no Labels", 2021.

    The seed is the cell that correlates positively with the fewest others (section 3.2). Of the
    k cells of lowest degree those that correlate with it vote (3.3): a cell is in where its
    correlations with them sum to 0 or more (3.4). `expansion` is k as a share of the cells; the
    paper's 100 is a tenth of its grids.
    """
    shape, cells = features.shape[:2], features.reshape(-1, features.shape[-1])
    gram = cells @ cells.T
    degree = (gram >= 0).sum(1)
    order = np.argsort(degree, kind="stable")
    seed, candidates = order[0], order[: max(1, round(expansion * len(order)))]
    voters = candidates[gram[seed, candidates] >= 0]
    votes = gram[:, voters if len(voters) else [seed]].sum(1)
    return _component((votes >= 0).reshape(shape), seed)


def token_cut(features: np.ndarray, *, threshold: float = 0.2) -> np.ndarray:
    """Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery …", 2022.

    The normalised cut of the graph of cosines, 1 above the threshold and nearly 0 below: the
    second smallest eigenvector of (D - E) y = λ D y, split at its mean; the object is on the side
    that holds the largest absolute value (section 3.2).
    """
    shape, cells = features.shape[:2], features.reshape(-1, features.shape[-1]).astype(np.float64)
    norms = np.linalg.norm(cells, axis=1, keepdims=True)
    cells = np.divide(cells, norms, out=np.zeros_like(cells), where=norms > 0)
    edges = np.where(cells @ cells.T > threshold, 1.0, WEAK)
    degree = np.diag(edges.sum(1))
    vector = eigh(degree - edges, degree, subset_by_index=[1, 1])[1][:, 0]
    seed = int(np.abs(vector).argmax())
    side = (vector > vector.mean()) == (vector[seed] > vector.mean())
    return _component(side.reshape(shape), seed)


def one_object_rules() -> dict[str, list[OneObject]]:
    """Return the variants of each rule: on features as they are, and centred."""
    rules: dict[str, list[OneObject]] = {
        "LOST": [partial(lost, expansion=share) for share in EXPANSIONS],
        "TokenCut": [token_cut],
    }
    centred = {
        f"{name}, centred": [partial(_centred, rule=rule) for rule in variants]
        for name, variants in rules.items()
    }
    return rules | centred


def _centred(features: np.ndarray, *, rule: OneObject) -> np.ndarray:
    return rule(features - features.mean((0, 1)))


def _component(mask: np.ndarray, seed: int) -> np.ndarray:
    """Return the connected component of a mask that holds the seed."""
    labels, _ = label(mask)
    return labels == labels.flat[seed] if mask.flat[seed] else np.zeros_like(mask)
