"""Semi-NMF on a transformer's tokens against its peers: `real_masks.py --check-semi`.

For k from 2 to 12, on the tokens as they are of one photo, of 40 and of all: losses relative to
that of scikit-learn's k-means (its default, one start of k-means++), components that no token has,
seconds, and whether a second fit is the same bit for bit. Ding's updates start from the clusters
of that k-means (0.2 added, as in section 2.3 of the paper) and run until 10 iterations lower the
loss by less than one in a million, and overcomplete's from random until its own criterion is met
at 1e-6; both for 500 iterations at most.

Then ten random problems, of which ours has to solve each at least as well as overcomplete's NMF
and semi-NMF by each of their solvers, and the best of 20 starts as well as the first alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from masked_photos import MODELS, Photo, activations, numbers
from nmf import loss
from nmf_solvers import overcomplete
from sklearn.cluster import KMeans

from dff.nmf import NMF, SemiNMF

COUNTS = "2:12"
PHOTOS = (1, 40, None)
MODEL = "vit_s14"
MOST, CHECKED, SETTLED = 500, 10, 1e-6
PROBLEMS, ROWS, COLUMNS, COMPONENTS = 10, 400, 60, 6
NEAR = 1.0005  # within 0.05 %
STARTS = 20
SOLVERS = ("hals", "mu", "pgd", "anls")
Factors = tuple[Any, Any]


def check(args: argparse.Namespace, photos: Sequence[Photo]) -> None:
    """Print the tables."""
    model = MODELS[MODEL]
    values = activations(model.load(args.shared, args.size), photos).values
    print(
        "\n| photos | k | k-means | ours | dead | again | s | Ding | s | overcomplete | dead | s |"
    )
    print("| --- " * 12 + "|")
    for count in sorted({min(count or len(photos), len(photos)) for count in PHOTOS}):
        a = np.ascontiguousarray(values[:count].reshape(-1, values.shape[-1]))
        for k in numbers(args.concepts or COUNTS):
            print(f"| {count} | {k} | {tokens_row(a, k)} |", flush=True)
    random_problems()
    best_of_starts(values[0].reshape(-1, values.shape[-1]), numbers(args.concepts or COUNTS))


def tokens_row(a: np.ndarray, k: int) -> str:
    """Return a row on A (tokens, channels): losses relative to that of k-means."""
    clusters = KMeans(k, random_state=0).fit(a)
    reference = loss(a, np.eye(k, dtype=np.float32)[clusters.labels_], clusters.cluster_centers_)
    (own, seconds), (again, _) = timed(ours, a, k), timed(ours, a, k)
    same = all(np.array_equal(x, y) for x, y in zip(own, again, strict=True))
    theirs, ding_seconds = timed(ding, a, clusters.labels_, k)
    cells = [f"{reference:.4g}", f"{loss(a, *own) / reference:.4f}", str(dead(own[0])),
             "same" if same else "differs", f"{seconds:.2f}",
             f"{loss(a, *theirs) / reference:.4f}", f"{ding_seconds:.2f}"]  # fmt: skip
    return " | ".join([*cells, *_overcomplete_cells(a, k, reference)])


def _overcomplete_cells(a: np.ndarray, k: int, reference: float) -> list[str]:
    try:
        peer, seconds = timed(overcomplete_semi, a, k)
    except ImportError:
        return ["–"] * 3
    return [f"{loss(a, *peer) / reference:.4f}", str(dead(peer[0])), f"{seconds:.2f}"]


def timed(fit: Any, *arguments: Any) -> tuple[Factors, float]:
    """Return what a fit gives, and the seconds that it takes."""
    started = time.perf_counter()
    return fit(*arguments), time.perf_counter() - started


def ours(a: np.ndarray, k: int) -> Factors:
    """Ours by its defaults."""
    model = SemiNMF(k)
    return model.fit_transform(a), model.components_


def dead(codes: np.ndarray) -> int:
    """Return how many components no row has."""
    return int((codes <= 1e-12).all(0).sum())


def ding(a: np.ndarray, labels: np.ndarray, k: int) -> Factors:
    """Ding, Li & Jordan, "Convex and Semi-Nonnegative Matrix Factorizations", 2010, section 2.2.

    H is their Fᵀ and W their G: H by least squares, W by the square root of a ratio.
    """
    x = torch.from_numpy(a).double()
    w = torch.from_numpy(np.eye(k)[labels] + 0.2)
    before = torch.inf
    for i in range(MOST):
        h = torch.linalg.pinv(w.T @ w) @ (w.T @ x)
        cross, gram = x @ h.T, h @ h.T
        up = cross.clamp_min(0) + w @ (-gram).clamp_min(0)
        down = (-cross).clamp_min(0) + w @ gram.clamp_min(0)
        w = w * (up / down.clamp_min(1e-12)).sqrt()
        if i % CHECKED == 0:
            now = float((x - w @ h).square().sum())
            if now > before * (1 - SETTLED):
                break
            before = now
    return w.numpy(), (torch.linalg.pinv(w.T @ w) @ (w.T @ x)).numpy()


def overcomplete_semi(a: np.ndarray, k: int, solver: str = "mu") -> Factors:
    """overcomplete's semi-NMF, run until its criterion is met."""
    torch.manual_seed(0)
    model = overcomplete().SemiNMF(k, solver=solver, tol=SETTLED)
    codes, components = model.fit(torch.from_numpy(a), max_iter=MOST)
    return codes.detach().numpy(), components.detach().numpy()


def overcomplete_nmf(a: np.ndarray, k: int, solver: str) -> Factors:
    """overcomplete's NMF, likewise."""
    torch.manual_seed(0)
    model = overcomplete().NMF(k, solver=solver, tol=SETTLED)
    codes, components = model.fit(torch.from_numpy(a), max_iter=MOST)
    return codes.detach().numpy(), components.detach().numpy()


def problem(seed: int, *, signed: bool) -> np.ndarray:
    """Return A (400, 60): sparse codes of six components, and noise."""
    generator = np.random.default_rng(seed)
    codes = generator.gamma(0.5, size=(ROWS, COMPONENTS))
    components = generator.standard_normal((COMPONENTS, COLUMNS))
    noise = 0.3 * generator.standard_normal((ROWS, COLUMNS))
    a = codes @ (components if signed else np.abs(components)) + noise
    return (a if signed else np.maximum(a, 0)).astype(np.float32)


def random_problems() -> None:
    """Print how often ours is no worse than overcomplete's solvers, and by how much it differs."""
    print(
        f"\nten random problems, {ROWS} x {COLUMNS}, k = {COMPONENTS}: ours lower or within 0.05 %"
    )
    for signed, peer, solvers in (
        (False, overcomplete_nmf, SOLVERS),
        (True, overcomplete_semi, ("mu", "pgd")),
    ):
        matrices = [problem(seed, signed=signed) for seed in range(PROBLEMS)]
        estimator = SemiNMF if signed else NMF
        own = [fitted_loss(estimator(COMPONENTS), a) for a in matrices]
        settled = [
            fitted_loss(estimator(COMPONENTS, tol=SETTLED, max_iter=MOST), a) for a in matrices
        ]
        for solver in solvers:
            try:
                theirs = [loss(a, *peer(a, COMPONENTS, solver)) for a in matrices]
            except ImportError as error:
                print(f"without overcomplete: {error}")
                return
            for what, losses in (("by default", own), (f"at tol {SETTLED:g}", settled)):
                ratios = np.array(losses) / np.array(theirs)
                print(
                    f"{estimator.__name__} {what} against {solver}: {(ratios <= NEAR).sum()} of "
                    f"{PROBLEMS}, loss {100 * (ratios.mean() - 1):+.3f} % on average, at worst "
                    f"{100 * (ratios.max() - 1):+.3f} %",
                    flush=True,
                )


def fitted_loss(estimator: Any, a: np.ndarray) -> float:
    """Return the loss of an estimator fitted to A."""
    return loss(a, estimator.fit_transform(a), estimator.components_)


def best_of_starts(tokens: np.ndarray, counts: Sequence[int]) -> None:
    """Print whether more starts are ever worse, on one photo's tokens and on random problems."""
    tokens = np.ascontiguousarray(tokens)
    problems = [(SemiNMF, tokens, k) for k in counts]
    problems += [(NMF, np.maximum(tokens, 0), k) for k in counts]
    for signed in (False, True):
        estimator = SemiNMF if signed else NMF
        problems += [(estimator, problem(i, signed=signed), COMPONENTS) for i in range(PROBLEMS)]
    ratios = np.array([
        fitted_loss(estimator(k, n_init=STARTS), a) / fitted_loss(estimator(k, n_init=1), a)
        for estimator, a, k in problems
    ])  # fmt: skip
    print(f"\nbest of {STARTS} starts against the first alone, tokens (k) and random problems")
    for index in np.flatnonzero(ratios > 1 + 1e-6):
        estimator, a, k = problems[index]
        shape = " x ".join(map(str, a.shape))
        print(f"{estimator.__name__}, {shape}, k = {k}: {100 * (ratios[index] - 1):+.4f} %")
    print(
        f"worse in {(ratios > 1 + 1e-6).sum()} of {len(problems)}, on average "
        f"{100 * (ratios.mean() - 1):+.3f} %"
    )
