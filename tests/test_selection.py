"""How many concepts: planted numbers are found, and the sweep says what a plot needs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dff.concepts import choose_components, matched_cosine
from dff.demo import creatures, model
from dff.errors import FactorizationError, UsageError


def planted(seed):
    """Return (k, A): k sparse concepts, with rectified noise of 5 to 30% of A's spread."""
    generator = np.random.default_rng(seed)
    k = int(generator.integers(2, 9))
    w = generator.gamma(1.0, size=(400, k)) * (generator.random((400, k)) < 0.4)
    h = generator.gamma(1.0, size=(k, 60)) * (generator.random((k, 60)) < 0.3)
    a = w @ h
    noise = generator.uniform(0.05, 0.3) * a.std() * generator.standard_normal(a.shape)
    return k, np.abs(a + noise).astype(np.float32)


def test_planted_numbers_are_found():
    hits = 0
    for seed in range(1002, 1008):
        k, a = planted(seed)
        hits += choose_components(a, range(max(1, k - 2), k + 3)).chosen == k
    assert hits >= 5


@pytest.mark.parametrize(("species", "given"), [("zebra", [range(2, 7)]), ("eagle", [])])
def test_the_number_is_near_that_of_the_parts_of_an_animal(species, given):
    scenes = [creatures.render(50_000 + seed, species=species) for seed in range(4)]
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes]))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.MEAN, model.STD))
    with torch.inference_mode():
        maps = model.load().maps((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    parts = {name for scene in scenes for name in scene.parts}
    chosen = choose_components(maps.permute(0, 2, 3, 1).flatten(0, 2).clone(), *given).chosen
    assert abs(chosen - len(parts)) <= 1


def test_sweep_holds_what_a_plot_needs():
    k, a = planted(9)
    sweep = choose_components(torch.from_numpy(a), range(2, 9), splits=2)
    assert sweep.counts == tuple(range(2, 9))
    assert sweep.chosen == k
    assert str(k) in sweep.reason
    assert (np.diff(sweep.explained) > -1e-4).all()
    np.testing.assert_allclose(np.cumsum(sweep.gains), sweep.explained)
    for values in (sweep.explained, sweep.stability, sweep.spread):
        assert values.shape == (7,)
        assert ((values >= 0) & (values <= 1 + 1e-9)).all()
    for count, components, shares in zip(sweep.counts, sweep.components, sweep.shares, strict=True):
        assert components.shape == (count, 60)
        assert (np.diff(shares) <= 0).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        sweep.chosen = 3


def test_tree_follows_a_split():
    generator = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 100)
    centres = np.zeros((3, 30))
    centres[0, :10], centres[1, 10:20], centres[2, 18:28] = 3, 2, 2  # the last two are alike
    a = centres[group] * generator.uniform(0.5, 1.5, (300, 1))
    a += 0.02 * generator.random(a.shape)
    (branch,) = choose_components(a, [2, 3], splits=1).branches
    assert branch.overlap.shape == (3, 2)
    assert sorted(np.bincount(branch.parents, minlength=2)) == [1, 2]
    assert branch.parents == tuple(branch.overlap.argmax(1))


def test_signed_data_and_determinism():
    _, a = planted(1)
    signed = a - a.mean(0)
    copy = signed.copy()
    one = choose_components(signed, [2, 4], splits=2)
    other = choose_components(signed, [4, 2, 2], splits=2)
    np.testing.assert_array_equal(one.stability, other.stability)
    np.testing.assert_array_equal(signed, copy)
    assert (one.components[0] < 0).any()


def test_many_rows_are_sampled():
    _, a = planted(2)
    tall = np.tile(a, (25, 1))
    assert choose_components(tall, [2, 3], splits=1).counts == (2, 3)


def test_matched_cosine_ignores_order_and_scale():
    h = np.eye(4)[:3] + 0.1
    np.testing.assert_allclose(matched_cosine(h, 5 * h[[2, 0, 1]]), 1.0)
    assert matched_cosine(np.eye(2), np.zeros((2, 2))).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("data", "counts", "error", "message"),
    [
        (np.ones((50, 8)), [], UsageError, "pass for example"),
        (np.ones((50, 8)), [0, 2], UsageError, "from 1"),
        (np.ones((50, 8)), [9], FactorizationError, "pass 8 or fewer"),
        (np.ones((10, 8)), [6], FactorizationError, "half of 10 rows"),
        (np.full((10, 8), np.nan), [2], FactorizationError, "NaN"),
        (np.ones(10), [2], FactorizationError, "expected a matrix"),
    ],
)
def test_wrong_use(data, counts, error, message):
    with pytest.raises(error, match=message):
        choose_components(data, counts)


def test_constant_and_zero_data_are_defined():
    for value in (0.0, 2.0):
        sweep = choose_components(np.full((40, 8), value), [1, 2], splits=1)
        assert np.isfinite(sweep.stability).all()
        assert np.isfinite(sweep.explained).all()
