"""What scikit-learn's published test cases of NMF ask of its behaviour, asked of ours."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from dff.errors import FactorizationError
from dff.nmf import NMF, SemiNMF, starts

KINDS = pytest.mark.parametrize("kind", [NMF, SemiNMF])


def positive(rows, columns, *, seed=42):
    return np.abs(np.random.default_rng(seed).standard_normal((rows, columns)))


@KINDS
def test_too_few_iterations_warn(kind):
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        kind(4, max_iter=1, tol=0.0).fit(np.ones((8, 8)) + positive(8, 8))


@KINDS
def test_a_settled_fit_does_not_warn(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        kind(2).fit(positive(20, 10))


@pytest.mark.parametrize("init", ["nndsvda", "random"])
def test_factors_are_not_negative(init):
    a = 5.0 * np.ones((5, 5)) - np.arange(1, 6)
    model = NMF(2, init=init)
    assert (model.fit_transform(a) >= 0).all()
    assert (model.components_ >= 0).all()


def test_start_is_not_negative_and_near_the_data():
    a = positive(10, 10)
    start = starts(torch.from_numpy(a), [7])[0]
    assert (start > 0).all()
    codes = NMF(7, init=start.numpy(), max_iter=1, tol=np.inf).fit_transform(a)
    assert (codes >= 0).all()
    model = NMF(7, init=start.numpy(), max_iter=1, tol=np.inf).fit(a)
    assert model.reconstruction_err_ <= np.linalg.norm(a - a.mean())


@KINDS
def test_fit_is_close(kind):
    model = kind(5, max_iter=600, n_init=4, tol=1e-7)
    model.fit(positive(6, 5))
    assert model.reconstruction_err_ < 0.1


@KINDS
def test_exact_products_are_rebuilt(kind):
    generator = np.random.default_rng(42)
    a = generator.random((15, 5)) @ generator.random((5, 10))
    model = kind(5, max_iter=5000, tol=1e-9)
    codes = model.fit_transform(a)
    assert model.reconstruction_err_ < 0.01 * np.linalg.norm(a)
    np.testing.assert_allclose(codes @ model.components_, a, atol=0.1)


@KINDS
def test_transform_gives_the_codes_of_the_fit(kind):
    a = positive(6, 5)
    model = kind(3, tol=1e-6)
    codes = model.fit_transform(a)
    np.testing.assert_allclose(model.transform(a), codes, atol=1e-6)


@KINDS
def test_inverse_transform_rebuilds(kind):
    a = positive(6, 4)
    model = kind(4, tol=1e-6, max_iter=1000, n_init=4)
    codes = model.fit_transform(a)
    np.testing.assert_allclose(model.inverse_transform(codes), a, atol=0.1)
    np.testing.assert_array_equal(model.inverse_transform(codes), codes @ model.components_)


def test_new_rows_are_encoded_against_the_components_as_they_are():
    model = NMF(3).fit(positive(20, 5))
    before = model.components_.copy()
    codes = model.transform(positive(7, 5, seed=1))
    assert codes.shape == (7, 3)
    np.testing.assert_array_equal(model.components_, before)


@KINDS
def test_what_is_not_fitted_says_so(kind):
    with pytest.raises(NotFittedError):
        kind(2).transform(positive(6, 5))


@pytest.mark.parametrize("step", ["fit", "transform"])
def test_negative_data_is_refused_at_each_step(step):
    model = NMF(1).fit(np.ones((2, 2)))
    with pytest.raises(FactorizationError, match="Negative values in data passed to NMF"):
        getattr(model, step)(-np.ones((2, 2)))


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", None, True])
def test_numbers_of_components_that_cannot_be(k):
    with pytest.raises(FactorizationError, match="n_components of 1 or more"):
        NMF(k).fit(np.ones((4, 4)))


@KINDS
@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_types_of_numbers_are_kept(kind, given):
    a = positive(20, 15).astype(given)
    model = kind(5)
    assert model.fit_transform(a).dtype == given
    assert model.transform(a).dtype == given
    assert model.components_.dtype == given
    assert model.inverse_transform(model.transform(a)).dtype == given


@KINDS
def test_single_and_double_precision_agree(kind):
    a = positive(50, 7)
    model = kind(5, tol=1e-6, n_init=1)
    # What they rebuild, as components that explain the same may come in either order.
    single, double = (
        model.inverse_transform(model.fit_transform(a.astype(t))) for t in (np.float32, np.float64)
    )
    np.testing.assert_allclose(single, double, atol=2e-2)


def test_loss_falls_with_every_further_iteration():
    a, start = positive(20, 15), positive(10, 15, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        losses = [
            NMF(10, init=start, max_iter=count, tol=0.0).fit(a).loss_curve_[-1]
            for count in range(1, 25)
        ]
    assert all(after <= before for before, after in pairwise(losses))
    assert losses[-1] < losses[0]


def test_tiny_numbers_do_not_vanish():
    a = positive(10, 2, seed=0) * 1e-12
    model = NMF(2, max_iter=500, tol=1e-8)
    codes = model.fit_transform(a)
    np.testing.assert_allclose(codes @ model.components_, a, rtol=0.1, atol=1e-14)


@KINDS
def test_feature_names(kind):
    model = kind(3).fit(positive(10, 4))
    names = [f"{kind.__name__.lower()}{number}" for number in range(3)]
    np.testing.assert_array_equal(model.get_feature_names_out(), names)
