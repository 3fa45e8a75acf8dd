"""Peers' concepts of one layer's activations, each called as its users call it.

A peer takes activations A (..., channels) and k, and gives coefficients (..., m), 0 or more: how
much of each of m concepts a cell has. m is k, or 2 k where either sign counts.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from nmf_solvers import overcomplete
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff as peer_dff
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF, PCA

__all__ = ["Peer", "k_means", "on_unit_cells", "peers_of", "principal_scores"]

Peer = Callable[[np.ndarray, int], np.ndarray]


def grad_cam_dff(a: np.ndarray, k: int) -> np.ndarray:
    """pytorch-grad-cam's: scikit-learn's NMF from random, each channel's least value taken off."""
    _, maps = peer_dff(np.moveaxis(a, -1, 1).copy(), k)
    return np.moveaxis(maps, 1, -1)


def grad_cam_dff_clipped(a: np.ndarray, k: int) -> np.ndarray:
    """The same call of scikit-learn, on A clipped at 0 instead."""
    model = NMF(k, init="random", random_state=0)
    model.fit(np.maximum(_matrix(a), 0).T)  # channels are the samples, as in the peer
    return model.components_.T.reshape(*a.shape[:-1], k)


def k_means(a: np.ndarray, k: int, *, n_init: int = 4) -> np.ndarray:
    """Return 1 for the cluster of scikit-learn's k-means that a cell belongs to, else 0."""
    labels = KMeans(k, n_init=n_init, random_state=0).fit_predict(_matrix(a))
    return np.eye(k, dtype=np.float32)[labels].reshape(*a.shape[:-1], k)


def principal_scores(a: np.ndarray, k: int) -> np.ndarray:
    """Return the scores (..., k), of both signs, of scikit-learn's PCA."""
    return PCA(k, random_state=0).fit_transform(_matrix(a)).reshape(*a.shape[:-1], k)


def pca(a: np.ndarray, k: int) -> np.ndarray:
    """Either side of each principal component."""
    scores = principal_scores(a, k)
    return np.maximum(np.concatenate([scores, -scores], -1), 0)


def overcomplete_nmf(a: np.ndarray, k: int) -> np.ndarray:
    """overcomplete's NMF by HALS from NNDSVDa, its defaults, on A clipped at 0."""
    torch.manual_seed(0)
    clipped = torch.from_numpy(np.maximum(_matrix(a), 0))
    codes, _ = overcomplete().NMF(k).fit(clipped)
    return codes.detach().numpy().reshape(*a.shape[:-1], k)


def overcomplete_semi_nmf(a: np.ndarray, k: int) -> np.ndarray:
    """overcomplete's semi-NMF by multiplicative updates from random, its defaults."""
    torch.manual_seed(0)
    codes, _ = overcomplete().SemiNMF(k).fit(torch.from_numpy(_matrix(a)))
    return codes.detach().numpy().reshape(*a.shape[:-1], k)


def holistic_craft(a: np.ndarray, k: int) -> np.ndarray:
    """xplique 2's Holistic CRAFT: its default factorizer; of signed A overcomplete's semi-NMF."""
    from xplique.concepts import HolisticCraftTorch
    from xplique.concepts.torch.factorizer import OvercompleteFactorizer

    np.random.seed(0)  # noqa: NPY002 - its default factorizer has no seed of its own
    torch.manual_seed(0)
    factorizer = None
    if a.min() < 0:
        factorizer = OvercompleteFactorizer(overcomplete().SemiNMF, k, device="cpu")
    craft = HolisticCraftTorch(_Latents(), k, device="cpu", factorizer=factorizer)
    craft.fit(a)
    return craft.transform()


class _Latents:
    """A latent extractor of Holistic CRAFT whose inputs are activations already."""

    batch_size = 1

    def input_to_latent_generator(self, inputs: np.ndarray) -> Any:
        yield _Latent(inputs)


class _Latent:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def get_activations(self, as_numpy: bool = True, keep_gradients: bool = False) -> np.ndarray:
        return self.values


def on_unit_cells(peer: Peer) -> Peer:
    """Return the peer on cells of unit norm; coefficients are those of the cells as they were."""

    def fit(a: np.ndarray, k: int) -> np.ndarray:
        norms = np.linalg.norm(a, axis=-1, keepdims=True)
        unit = np.divide(a, norms, out=np.zeros_like(a), where=norms > 0)
        return peer(unit, k) * norms

    return fit


def peers_of(a: np.ndarray) -> dict[str, Peer]:
    """Return the peers that are installed, plain and on cells of unit norm; print who is missing.

    What needs A >= 0 is also tried on A clipped, where A has both signs.
    """
    peers: dict[str, Peer] = {"grad-cam dff": grad_cam_dff}
    if a.min() < 0:
        peers["grad-cam dff, clipped"] = grad_cam_dff_clipped
    peers |= {"k-means": k_means, "PCA": pca}
    if _installed("overcomplete"):
        peers |= {"overcomplete NMF": overcomplete_nmf}
        peers |= {"overcomplete SemiNMF": overcomplete_semi_nmf}
    if _installed("xplique"):
        peers["Holistic CRAFT"] = holistic_craft
    return {
        name: peer
        for plain, fit in peers.items()
        for name, peer in ((plain, fit), (f"{plain}, unit cells", on_unit_cells(fit)))
    }


def _installed(package: str) -> bool:
    """Return whether a peer can be imported; print why it cannot."""
    try:
        version(package)
        import_module(f"{package}.concepts.torch") if package == "xplique" else overcomplete()
    except (ImportError, PackageNotFoundError) as error:
        print(f"without {package}: {error}")
        return False
    return True


def _matrix(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.reshape(-1, a.shape[-1]))
