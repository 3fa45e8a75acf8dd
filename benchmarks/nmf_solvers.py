"""The solvers that benchmarks/nmf.py compares, each run as its users would run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import matplotlib.cm
import numpy as np
import torch
from sklearn.decomposition import NMF as PeerNMF  # noqa: N811
from sklearn.decomposition import MiniBatchNMF
from torch import Tensor

from dff.nmf import NMF

Factors = tuple[Any, Any]  # W (n, k), H (k, c)
Solver = Callable[..., Factors]  # solve(a, k) or solve(a, k, tol=...)

TOLERANCES = {  # from loose to tight, for the losses over time
    "ours": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6],
    "scikit-learn NMF": [3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5],
    "overcomplete HALS": [1e-1, 1e-2, 3e-3, 1e-3, 3e-4],
    "torchnmf": [3e-2, 1e-2, 1e-3, 1e-4, 1e-5],
}


def ours(precision: str = "auto", device: str = "cpu", **options: Any) -> Solver:
    """Return our solver in a precision, on a device."""
    place = on(device)

    def solve(a: np.ndarray, k: int, tol: float = 1e-4) -> Factors:
        model = NMF(k, precision=precision, tol=tol, **options)
        return model.fit_transform(place(a)), model.components_

    return solve


def scikit_learn(a: np.ndarray, k: int, tol: float = 1e-4) -> Factors:
    """scikit-learn's NMF: coordinate descent, NNDSVDa, its own tolerance and iterations."""
    options = {} if tol >= 1e-4 else {"max_iter": 2000}
    model = PeerNMF(k, init="nndsvda", solver="cd", random_state=0, tol=tol, **options)
    return model.fit_transform(a), model.components_


def mini_batch(a: np.ndarray, k: int) -> Factors:
    """scikit-learn's MiniBatchNMF."""
    model = MiniBatchNMF(k, random_state=0)
    return model.fit_transform(a), model.components_


def optional(device: str = "cpu") -> dict[str, Solver]:
    """Return the solvers of overcomplete and torchnmf, where they are installed."""
    found = {"overcomplete HALS": _overcomplete, "torchnmf": _torchnmf}
    made = {}
    for name, make in found.items():
        try:
            made[name] = make(device)
        except ImportError as error:
            print(f"without {name}: {error}")
    return made


def overcomplete() -> Any:
    """Return the package's module of factorizations.

    Raises:
        ImportError: it is not installed.
    """
    # overcomplete 0.3.0 calls a function that matplotlib 3.9 removed, on import: given back here.
    matplotlib.cm.get_cmap = mpl.colormaps.get_cmap
    import overcomplete.optimization

    return overcomplete.optimization


def _overcomplete(device: str) -> Solver:
    peer, place = overcomplete(), on(device)

    def solve(a: np.ndarray, k: int, tol: float = 1e-4) -> Factors:
        w, h = peer.NMF(k, solver="hals", device=device, tol=tol).fit(place(a))
        return w.detach(), h.detach()

    return solve


def _torchnmf(device: str) -> Solver:
    from torchnmf.nmf import NMF as TorchNMF  # noqa: N811

    place = on(device)

    def solve(a: np.ndarray, k: int, tol: float = 1e-4) -> Factors:
        torch.manual_seed(0)  # it starts at random
        model = TorchNMF(a.shape, rank=k).to(device)
        model.fit(place(a), beta=2, tol=tol)
        return model.H.detach(), model.W.detach().T

    return solve


def on(device: str) -> Callable[[np.ndarray], Tensor]:
    """Return a function that gives a matrix on the device, moved there once only."""
    kept: dict[int, tuple[np.ndarray, Tensor]] = {}

    def place(a: np.ndarray) -> Tensor:
        if id(a) not in kept:
            kept.clear()
            kept[id(a)] = (a, torch.from_numpy(a).to(device))
        return kept[id(a)][1]

    return place
