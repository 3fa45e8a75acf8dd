"""Semi-NMF: no worse than k-means, no dead component, the same each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from dff.errors import UsageError
from dff.nmf import NMF, SemiNMF
from dff.nmf.clusters import centres


def tokens(rows: int = 600, channels: int = 24, kinds: int = 12, seed: int = 0) -> np.ndarray:
    """Rows like a transformer's: a large common mean, kinds around it, some long outliers."""
    random = np.random.default_rng(seed)
    mean = 2 * random.normal(size=channels)
    kind = random.normal(size=(kinds, channels))
    rows_ = (
        mean + kind[random.integers(kinds, size=rows)] + 0.3 * random.normal(size=(rows, channels))
    )
    rows_[::97] *= 6
    return rows_.astype(np.float32)


@pytest.mark.parametrize("k", range(2, 13))
def test_every_component_lives_and_k_means_is_an_upper_bound(k):
    a = tokens()
    model = SemiNMF(k)
    codes = model.fit_transform(a)
    assert (codes.max(0) > 0).all()
    assert (np.linalg.norm(model.components_, axis=1) > 0.99).all()
    clusters = KMeans(k, n_init=10, random_state=0).fit(a)
    assert model.reconstruction_err_**2 <= clusters.inertia_


def test_the_same_each_time_whatever_the_global_random_state():
    a = tokens(9000)  # enough rows for a sample
    fits = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        fits.append(SemiNMF(8).fit(a).components_)
    assert np.array_equal(*fits)


@pytest.mark.parametrize("kind", [NMF, SemiNMF])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_many_starts_is_no_worse_than_one(kind, seed):
    a = np.abs(tokens(seed=seed)) if kind is NMF else tokens(seed=seed)
    one, best = (kind(7, n_init=n).fit(a).reconstruction_err_ for n in (1, 20))
    assert best <= one * (1 + 1e-6)


def ridge_loss(a: np.ndarray, codes: np.ndarray, components: np.ndarray) -> tuple[float, float]:
    """Return ||A - W H||², and the sum of the ||WₖHₖ||²."""
    parts = np.square(codes).sum(0) * np.square(components).sum(1)
    return float(np.square(a - codes @ components).sum()), float(parts.sum())


@pytest.mark.parametrize("rows", [600, 9000])  # all of them in several starts, and a sample
@pytest.mark.parametrize("k", [2, 5])
def test_a_ridge_makes_components_cancel_less(rows, k):
    a, ridge = tokens(rows), 0.05
    found = {}
    for given in (0.0, ridge):
        model = SemiNMF(k, ridge=given, tol=1e-6)
        codes = model.fit_transform(a)
        found[given] = ridge_loss(a, codes, model.components_)
    (free, large), (held, small) = found[0.0], found[ridge]
    assert small < large
    assert held + ridge * small < free + ridge * large


def test_a_ridge_does_not_depend_on_the_scale():
    a = tokens()
    one, large = SemiNMF(4, ridge=0.01).fit(a), SemiNMF(4, ridge=0.01).fit(2.0**20 * a)
    assert np.array_equal(one.components_, large.components_)


def test_a_ridge_below_zero_is_refused():
    with pytest.raises(UsageError, match="ridge >= 0"):
        SemiNMF(2, ridge=-0.1).fit(tokens())


def test_rows_that_are_all_equal_are_one_concept():
    a = np.tile(np.array([[1.0, -2.0, 3.0, 0.5]]), (50, 1))
    model = SemiNMF(3)
    codes = model.fit_transform(a)
    np.testing.assert_allclose(model.inverse_transform(codes), a, atol=1e-5)
    np.testing.assert_allclose(model.explained_share_.sum() + model.rest_share_, 1, atol=1e-6)


def test_centres_are_those_of_clusters_that_lie_apart():
    random = np.random.default_rng(3)
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    points = np.repeat(middles, 50, 0) + random.normal(size=(200, 2)).astype(np.float32)
    found = centres(torch.from_numpy(points), 4, seed=0).numpy()
    nearest = np.linalg.norm(found[:, None] - middles, axis=2)
    assert sorted(nearest.argmin(1)) == [0, 1, 2, 3]
    assert nearest.min(1).max() < 0.6


def test_centres_repeat_where_points_are_fewer():
    found = centres(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 3, seed=0)
    assert {tuple(row) for row in found.tolist()} == {(1.0, 2.0), (3.0, 4.0)}
