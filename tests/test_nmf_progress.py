"""How far a fit has come: passes made, and how many are expected."""

import numpy as np
import pytest

from dff.colocalization.stages.job import CHOOSING, FITTING
from dff.concepts import choose_components
from dff.nmf import NMF, SemiNMF
from dff.nmf.descent import expected_passes
from tests.colocalized import colocalize, photos, toy


@pytest.fixture
def a():
    generator = np.random.default_rng(0)
    w, h = generator.random((6000, 4)), generator.random((4, 30))
    return (w @ h + 0.2 * generator.random((6000, 30))).astype(np.float32)


@pytest.mark.parametrize("kind", [NMF, SemiNMF])
def test_every_pass_is_told_and_the_last_one_is_known(a, kind):
    calls = []
    told = kind(4, tol=1e-9)
    told.progress = lambda *call: calls.append(call)
    told.fit(a)
    made, expected = np.array(calls).T
    assert made.tolist() == list(range(1, told.n_iter_ + 1))
    assert tuple(calls[-1]) == (told.n_iter_, told.n_iter_)
    assert told.n_iter_ > 5
    assert all(total == 0 or done < total <= 200 for done, total in calls[:-1])
    assert (expected[len(expected) // 2 :] > 0).any(), "halfway something can be said"
    np.testing.assert_array_equal(told.components_, kind(4, tol=1e-9).fit(a).components_)


def test_the_last_pass_is_known_where_max_iter_ends_the_fit(a):
    calls = []
    model = NMF(4, tol=0.0, max_iter=3)
    model.progress = lambda *call: calls.append(call)
    with pytest.warns(match="stopped at max_iter=3"):
        model.fit(a)
    assert calls[-1] == (3, 3)


def test_what_is_expected_of_gains_that_fall_evenly():
    gains = [0.1 * 0.5**i for i in range(8)]
    for seen in range(2, 8):
        assert expected_passes(gains[:seen], tol=0.1 * 0.5**9.5, most=200) == 11
    assert expected_passes(gains, tol=0.1 * 0.5**9.5, most=9) == 9
    assert expected_passes([*gains, 0.0], tol=0.1 * 0.5**9.5, most=200) == 11


@pytest.mark.parametrize("gains", [[], [0.1], [0.1, 0.2], [0.1, 0.0], [0.0, 0.0]])
def test_nothing_is_said_before_gains_have_fallen(gains):
    assert expected_passes(gains, tol=1e-4, most=200) == 0


def test_fits_that_choose_a_number_are_counted(a):
    calls = []
    choose_components(a[:200], range(2, 4), splits=2, progress=lambda *call: calls.append(call))
    assert calls == [(done, 10) for done in range(1, 11)]


def test_a_run_tells_of_both(tmp_path):
    calls = []
    colocalize(photos(tmp_path / "data", 6), tmp_path / "run", model=toy(), concepts=range(2, 4),
               progress=lambda *call: calls.append(call))  # fmt: skip
    assert calls[-1][1:] != (0, 0)
    assert [call[1:] for call in calls if call[0] == CHOOSING] == [(i, 18) for i in range(1, 19)]
    fitting = [call[1:] for call in calls if call[0] == FITTING]
    assert fitting[0] == (0, 0)
    assert fitting[-1][0] == fitting[-1][1] > 0
