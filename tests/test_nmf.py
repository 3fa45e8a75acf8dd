"""The factorization engine: what it finds, its contract, its errors."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn import decomposition
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA, FastICA, MiniBatchNMF
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from dff.errors import FactorizationError, UsageError
from dff.nmf import NMF, OffsetNMF, RowBlocks, SemiNMF, as_factorizer, rows, together
from dff.nmf.fitting import Settings
from dff.nmf.updates import encode, sweep


def planted(rows=300, columns=40, k=4, *, seed=0, noise=0.0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    w = generator.gamma(1.0, size=(rows, k)) * (generator.random((rows, k)) < 0.4)
    h = generator.gamma(1.0, size=(k, columns)) * (generator.random((k, columns)) < 0.4)
    a = w @ h
    return (a + noise * generator.random(a.shape)).astype(dtype), h


def matched(found, truth):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, truth)]
    return (unit[0] @ unit[1].T).max(0)


def loss(a, codes, components):
    return float(((np.float64(a) - np.float64(codes) @ np.float64(components)) ** 2).sum())


def test_planted_factors_are_recovered():
    a, h = planted()
    model = NMF(4, tol=1e-8, max_iter=2000)
    codes = model.fit_transform(a)
    assert matched(model.components_, h).min() > 0.999
    assert loss(a, codes, model.components_) < 1e-4 * (a**2).sum()
    assert (codes >= 0).all()
    assert (model.components_ >= 0).all()


@pytest.mark.parametrize("k", [2, 5, 7])
def test_loss_is_within_a_thousandth_of_scikit_learn(k):
    a, _ = planted(rows=500, columns=80, k=7, noise=0.5, seed=k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        peer = decomposition.NMF(k, init="nndsvda", random_state=0)
        theirs = loss(a, peer.fit_transform(a), peer.components_)
    model = NMF(k)
    assert loss(a, model.fit_transform(a), model.components_) <= 1.001 * theirs


def test_reported_figures_are_those_of_the_result():
    a, _ = planted(noise=0.3)
    model = NMF(3)
    codes = model.fit_transform(a)
    energy, left = (a**2).sum(), loss(a, codes, model.components_)
    assert model.reconstruction_err_ == pytest.approx(left**0.5, rel=1e-6)
    assert model.rest_share_ == pytest.approx(left / energy, rel=1e-6)
    assert model.explained_share_.sum() + model.rest_share_ == pytest.approx(1.0)
    assert (np.diff(model.explained_share_) <= 0).all()
    parts = [(a * np.outer(codes[:, j], model.components_[j])).sum() / energy for j in range(3)]
    assert model.explained_share_ == pytest.approx(parts, rel=1e-2)
    assert np.linalg.norm(model.components_, axis=1) == pytest.approx(1.0)
    assert len(model.loss_curve_) == model.n_iter_


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([NMF, SemiNMF]))
def test_loss_never_rises(seed, k, kind):
    a, _ = planted(rows=30, columns=12, seed=seed, noise=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = kind(k, tol=0.0, max_iter=30).fit(a)
    assert (np.diff(model.loss_curve_) <= 1e-12 * (a**2).sum()).all()
    assert model.reconstruction_err_**2 <= model.loss_curve_[-1] + 1e-9 * (a**2).sum()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_a_sweep_never_raises_the_loss(seed, k):
    generator = torch.Generator().manual_seed(seed)
    y, b = torch.rand(k, 9, generator=generator).double(), torch.rand(9, 7, generator=generator)
    b = b.double()
    x = torch.rand(k, 7, generator=generator).double()
    before = float((b - y.T @ x).square().sum())
    after = float((b - y.T @ sweep(x, y @ y.T, y @ b, times=2)).square().sum())
    assert after <= before + 1e-12


def test_encoding_meets_the_optimality_conditions():
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(6, 30, generator=generator).double()
    b = torch.rand(30, 50, generator=generator).double()
    gram, cross = y @ y.T, y @ b
    x = torch.zeros(6, 50).double()
    encode(x, gram, cross)
    gradient = gram @ x - cross
    assert float(gradient.min()) > -1e-6
    assert float((gradient * x).abs().max()) < 1e-6


@pytest.mark.parametrize("kind", [NMF, SemiNMF])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_and_numpy_give_the_same(kind, dtype):
    a, _ = planted(noise=0.2, dtype=dtype)
    one, other = kind(3), kind(3)
    codes = one.fit_transform(a)
    tensor = other.fit_transform(torch.from_numpy(a))
    assert isinstance(tensor, torch.Tensor)
    assert isinstance(other.components_, torch.Tensor)
    assert isinstance(codes, np.ndarray)
    assert codes.dtype == one.components_.dtype == dtype
    np.testing.assert_array_equal(codes, tensor.numpy())
    assert isinstance(other.inverse_transform(tensor), torch.Tensor)
    np.testing.assert_allclose(one.transform(a), codes, atol=1e-4)


@pytest.mark.parametrize("init", ["nndsvda", "random"])
def test_deterministic_and_leaves_global_random_state_alone(init):
    a, _ = planted(noise=0.2)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = NMF(3, init=init).fit_transform(a), NMF(3, init=init).fit_transform(a)
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_given_start_is_taken_and_checked():
    a, h = planted()
    assert NMF(4, init=h).fit(a).n_iter_ <= 6
    with pytest.raises(UsageError, match=r"components of shape \(4, 40\), got shape \(3, 40\)"):
        NMF(4, init=h[:3]).fit(a)
    with pytest.raises(UsageError, match="negative entries"):
        NMF(4, init=-h).fit(a)


def views(a):
    read_only = a.copy()
    read_only.setflags(write=False)
    return {
        "transposed": np.asfortranarray(a),
        "strided": np.repeat(a, 2, axis=1)[:, ::2],
        "reversed": np.ascontiguousarray(a[::-1])[::-1],
        "read-only": read_only,
    }


@pytest.mark.parametrize("name", ["transposed", "strided", "reversed", "read-only"])
def test_memory_layouts_give_the_same_and_stay_unchanged(name):
    a, _ = planted(noise=0.2)
    view = views(a)[name]
    copy = view.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = NMF(3)
        codes = model.fit_transform(view)
        model.transform(view)
    np.testing.assert_array_equal(view, copy)
    np.testing.assert_allclose(codes, NMF(3).fit_transform(a), rtol=1e-4, atol=1e-4)


def test_integers_booleans_and_half_precision():
    counts = np.random.default_rng(0).integers(0, 9, (40, 12))
    for a in (counts, counts > 4, counts.astype(np.uint8), counts.astype(np.float16)):
        assert NMF(2).fit_transform(a).dtype == np.float32
        assert NMF(2).fit_transform(torch.from_numpy(a)).dtype == torch.float32


@pytest.mark.parametrize("kind", [NMF, SemiNMF, OffsetNMF])
def test_zeros_and_constants_have_a_defined_result(kind):
    zero = kind(3).fit(np.zeros((20, 8)))
    assert (zero.components_ == 0).all()
    assert (zero.transform(np.zeros((20, 8))) == 0).all()
    assert zero.reconstruction_err_ == 0 == zero.rest_share_
    constant = NMF(2)
    codes = constant.fit_transform(np.full((20, 8), 3.0))
    np.testing.assert_allclose(codes @ constant.components_, 3.0, rtol=1e-5)


def test_empty_rows_and_columns_stay_empty():
    a, _ = planted(noise=0.2)
    a[7], a[:, 5] = 0, 0
    model = NMF(3)
    codes = model.fit_transform(a)
    assert (codes[7] == 0).all()
    assert (model.components_[:, 5] == 0).all()


def test_bad_entries_are_counted_and_placed():
    a, _ = planted()
    a[3, 2], a[9, 1] = -1, -2
    with pytest.raises(FactorizationError, match=r"2 of 12000 .* row 3, column 2; use SemiNMF"):
        NMF(2).fit(a)
    with pytest.raises(FactorizationError, match="Negative values"):
        NMF(2).fit(np.abs(a)).transform(a)
    SemiNMF(2).fit(a)
    a[5, 6] = np.nan
    with pytest.raises(FactorizationError, match=r"NaN .* 1 of 12000 .* row 5, column 6"):
        SemiNMF(2).fit(a)
    a[5, 6] = np.inf
    with pytest.raises(FactorizationError, match=r"inf.* row 5, column 6"):
        NMF(2).fit(a)


def test_bad_entry_outside_the_sample_is_found():
    a = np.ones((20_000, 3), np.float32)
    a[19_999, 1] = -1
    for source in (a, RowBlocks([a[:9000], a[9000:]])):
        with pytest.raises(FactorizationError, match="row 19999, column 1"):
            NMF(1).fit(source)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 9}, "n_components=9 is more than .* 30 x 8"),
        ({"n_components": 0}, "n_components of 1 or more, got 0"),
        ({"n_components": 2.5}, "got 2.5"),
        ({"precision": "float8"}, "precision in"),
        ({"init": "svd"}, "init in"),
        ({"max_iter": 0}, "max_iter >= 1"),
        ({"n_init": 0}, "integer of 1 or more"),
        ({"n_init": "four"}, "integer of 1 or more"),
        ({"n_init": 2, "init": np.ones((2, 8))}, "only 1 with components given as init, got 2"),
        ({"distributed": True}, "init_process_group"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises((UsageError, FactorizationError), match=message):
        NMF(**options).fit(np.ones((30, 8)))


@pytest.mark.parametrize("data", [np.ones(5), np.ones((0, 4)), torch.ones(5), torch.ones(0, 4)])
def test_not_a_matrix(data):
    with pytest.raises(FactorizationError):
        NMF(1).fit(data)


def test_other_width_and_wrong_codes():
    model = NMF(2).fit(torch.rand(30, 8))
    with pytest.raises(FactorizationError, match="X has 5 features, but NMF is expecting 8"):
        model.transform(torch.rand(30, 5))
    with pytest.raises(FactorizationError, match=r"codes of shape \(n, 2\)"):
        model.inverse_transform(torch.rand(30, 3))


def test_unsettled_fit_warns_with_a_remedy():
    a, _ = planted(noise=1.0)
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        NMF(4, max_iter=2, n_init=1).fit(a)


def test_bfloat16_is_close_and_recorded():
    a, _ = planted(rows=600, columns=100, k=6, noise=0.3, dtype=np.float32)
    exact, rounded = NMF(4, precision="float32"), NMF(4, precision="bfloat16")
    exact.fit(a)
    codes = rounded.fit_transform(a)
    assert (exact.precision_, rounded.precision_) == ("float32", "bfloat16")
    assert rounded.reconstruction_err_ <= 1.005 * exact.reconstruction_err_
    np.testing.assert_allclose(codes, rounded.transform(a), rtol=1e-3, atol=1e-4)


def test_sampled_start_reaches_the_loss_of_a_full_start():
    a, _ = planted(rows=20_000, columns=20, k=5, noise=0.5, dtype=np.float32)
    sampled = NMF(4).fit(a)
    full = NMF(4, init=NMF(4).fit(a[:8000]).components_, tol=1e-7, max_iter=500).fit(a)
    assert sampled.reconstruction_err_**2 <= 1.002 * full.reconstruction_err_**2


def test_semi_nmf_fits_signed_data():
    a, _ = planted()
    signed = a - a.mean(0)
    model = SemiNMF(4)
    codes = model.fit_transform(signed)
    assert (codes >= 0).all()
    assert (model.components_ < 0).any()
    assert loss(signed, codes, model.components_) < 0.05 * (signed**2).sum()


def test_offset_is_kept_apart():
    a, h = planted()
    offset = np.linspace(-1, 0, a.shape[1])
    model = OffsetNMF(4, tol=1e-8, max_iter=2000)
    codes = model.fit_transform(a + offset)
    np.testing.assert_allclose(model.offset_, offset, atol=1e-6)
    assert matched(model.components_, h).min() > 0.99
    np.testing.assert_allclose(model.inverse_transform(codes), a + offset, atol=0.2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [NMF, SemiNMF, OffsetNMF])
def test_scikit_learn_checks(kind):
    results = check_estimator(kind(2), on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert len(results) > 30
    assert failed == []


@pytest.mark.parametrize("kind", [NMF, SemiNMF, OffsetNMF])
def test_they_are_estimators_of_scikit_learn(kind):
    model = kind(2).set_output(transform="pandas")
    codes = model.fit_transform(np.random.default_rng(0).random((9, 4)))
    assert isinstance(model, BaseEstimator)
    assert list(codes.columns) == list(model.get_feature_names_out())
    assert repr(model) == f"{kind.__name__}(n_components=2)"
    assert "A ~= " in kind.__doc__


def test_pipeline_and_clone():
    a, _ = planted()
    pipeline = make_pipeline(MinMaxScaler(), NMF(3, tol=1e-3))
    assert pipeline.fit_transform(a).shape == (300, 3)
    copy = clone(NMF(7, precision="float32", tol=0.1))
    assert (copy.n_components, copy.precision, copy.tol) == (7, "float32", 0.1)
    assert list(NMF(2).fit(a).get_feature_names_out()) == ["nmf0", "nmf1"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        PCA(4),
        PCA(4, whiten=True),
        FastICA(4, random_state=0),
        MiniBatchNMF(4, random_state=0),
        KMeans(4, random_state=0),
        decomposition.NMF(4),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_any_estimator_as_factorizer(estimator):
    a, _ = planted(noise=0.2)
    model = as_factorizer(estimator)
    codes = model.fit_transform(a)
    assert codes.shape == (300, 4)
    assert model.components_.shape == (4, 40)
    rebuilt = model.inverse_transform(codes)
    np.testing.assert_allclose(rebuilt, model.offset_ + codes @ model.components_)
    left = ((a - rebuilt) ** 2).sum() / ((a - model.offset_) ** 2).sum()
    assert model.rest_share_ == pytest.approx(left, abs=1e-6)
    assert model.codes_are_nonnegative_ == bool((codes >= 0).all())
    if hasattr(estimator, "inverse_transform"):
        own = model.estimator_.inverse_transform(model.estimator_.transform(a))
        np.testing.assert_allclose(rebuilt, own, atol=1e-6)
    assert (np.diff(model.explained_share_) <= 0).all(), "largest share first"
    assert isinstance(model.transform(torch.from_numpy(a)), torch.Tensor)


def test_what_cannot_factorize_is_refused():
    assert isinstance(as_factorizer(NMF(2)), NMF)
    for estimator in (TSNE(2), DBSCAN(), 5):
        with pytest.raises(UsageError, match="use NMF, SemiNMF"):
            as_factorizer(estimator)
    with pytest.raises(UsageError, match=r"pass KMeans\(...\)"):
        as_factorizer(KMeans)


@pytest.mark.parametrize("kind", [NMF, SemiNMF, OffsetNMF])
def test_workers_side_by_side_give_what_one_gives(kind, monkeypatch):
    a, _ = planted(rows=900, noise=0.3)
    one = kind(4)
    codes = one.fit_transform(a)
    monkeypatch.setattr(rows, "workers", lambda entries: 3)
    several = kind(4)
    found = several.fit_transform(a)
    np.testing.assert_allclose(found, codes, atol=1e-9)
    np.testing.assert_array_equal(kind(4).fit_transform(a), found)
    np.testing.assert_allclose(several.transform(a), one.transform(a), atol=1e-9)
    bad = a.copy()
    bad[850, 7] = np.nan
    with pytest.raises(FactorizationError, match="row 850, column 7"):
        kind(4).fit(bad)


def test_more_starts_end_lower_on_few_rows():
    errors = []
    for seed in range(4):
        a, _ = planted(rows=40, columns=200, k=9, noise=0.5, seed=seed)
        errors.append([NMF(9, n_init=n).fit(a).reconstruction_err_ for n in (1, 8, 24)])
    one, _, many = np.mean(errors, axis=0)
    assert many < one
    assert NMF(9).fit(a).reconstruction_err_ == errors[-1][1]  # eight, where rows are few


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_by_default_a_fit_of_few_rows_ends_near_its_minimum(seed):
    rng = np.random.default_rng(seed)
    noise = 0.3 * rng.standard_normal((400, 60))
    a = np.maximum(rng.gamma(0.5, size=(400, 6)) @ abs(rng.standard_normal((6, 60))) + noise, 0)
    default = NMF(6).fit(a)
    further = NMF(6, init=default.components_, tol=1e-9, max_iter=2000).fit(a)
    assert default.reconstruction_err_**2 <= further.reconstruction_err_**2 * 1.0005


@pytest.mark.parametrize("kind", [NMF, SemiNMF])
@pytest.mark.parametrize("race", [20, 1000])
def test_of_several_starts_the_one_that_ends_lowest_is_taken(kind, race, monkeypatch):
    monkeypatch.setattr(together, "RACE", race)
    monkeypatch.setattr(together, "LEADERS", 2)
    monkeypatch.setattr(together, "LEAD", 0.0)
    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.random((40, 200)))  # noise has many local minima
    a = a - a.mean(0) if kind is SemiNMF else a
    settings, energy = Settings(kind._constraint, a.dtype, 500, 1e-9), float(a.square().sum())
    begins = [a[rng.permutation(40)[:9]] for _ in range(3)]
    alone = [together.best_of(a, energy, [begin], settings) for begin in begins]
    won = together.best_of(a, energy, begins, settings)
    *errors, ended = (
        sum(nnls(h.T.numpy(), row)[1] ** 2 for row in a.numpy()) for h in (*alone, won)
    )
    assert max(errors) > min(errors) * 1.001
    assert ended <= min(errors) * (1 + 1e-4)
    same = together.best_of(a, energy, [begins[1]] * 2, settings)
    torch.testing.assert_close(same, alone[1], rtol=0, atol=1e-6)  # rounding, over many passes


@pytest.mark.parametrize("bad", [False, True])
def test_small_data_runs_on_one_thread_and_the_setting_is_given_back(bad, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    a = np.random.default_rng(0).random((30, 20))
    if bad:
        a[3, 3] = -1
        with pytest.raises(FactorizationError, match="row 3, column 3"):
            NMF(2).fit(a)
    else:
        NMF(2).fit(a)
    assert seen == [1, 2]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [NMF, SemiNMF])
def test_powers_of_two_change_nothing_else(kind, precision):
    rng = np.random.default_rng(0)
    x = torch.from_numpy((rng.random((60, 5)) @ rng.random((5, 40))).astype(np.float32))
    x = x + 0.1 * torch.from_numpy(rng.random((60, 40), np.float32))
    x = x if kind is NMF else x - x.mean()
    plain = kind(4, precision=precision)
    codes = plain.fit_transform(x)
    for power in (*range(-120, 121, 40), *range(-9, 10, 6), 16):
        scaled = kind(4, precision=precision)
        found = scaled.fit_transform(torch.ldexp(x, torch.tensor(power)))
        assert torch.equal(scaled.components_, plain.components_), power
        assert torch.equal(found, torch.ldexp(codes, torch.tensor(power))), power
        assert scaled.reconstruction_err_ == math.ldexp(plain.reconstruction_err_, power)
        again = scaled.transform(torch.ldexp(x, torch.tensor(power)))
        assert torch.equal(again, torch.ldexp(plain.transform(x), torch.tensor(power))), power


@pytest.mark.parametrize("scale", [1e-43, 1e-30, 1e10, 1e18, 1e25, 1e37])
@pytest.mark.parametrize("kind", [NMF, SemiNMF])
def test_entries_of_any_size_have_a_result(kind, scale):
    x = (np.random.default_rng(0).random((12, 8)) * scale).astype(np.float32)
    for k in (1, 8):
        model = kind(k)
        codes = model.fit_transform(x)
        assert np.isfinite(codes).all()
        assert np.isfinite(model.components_).all()
        assert model.rest_share_ < 0.5
