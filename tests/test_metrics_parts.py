"""Agreement with known parts, on masks whose numbers can be worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dff.errors import UsageError
from dff.metrics import box_iou, corloc, part_agreement


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two images of 4 x 6; part 0 in both, part 1 in the first alone."""
    parts = np.zeros((2, 2, 4, 6), bool)
    parts[0, 0, :2, :3] = parts[1, 0, 2:, 3:] = True
    parts[0, 1, 3, :4] = True
    concepts = np.zeros((2, 2, 4, 6), bool)
    concepts[0, 1, :2, :2] = concepts[1, 1, 2:, 3:] = True  # 4 of 6, then 6 of 6 pixels of part 0
    concepts[0, 0, 3, :] = True  # the 4 of part 1 and 2 more
    return concepts, parts


def test_by_hand() -> None:
    result = part_agreement(*scene(), part_names=("head", "tail"))
    assert result.concepts.tolist() == [1, 0]
    np.testing.assert_allclose(result.part_iou, [10 / 12, 4 / 6])
    np.testing.assert_allclose(result.purity, [1, 4 / 6])
    np.testing.assert_allclose(result.coverage, [10 / 12, 1])
    np.testing.assert_allclose(result.corloc, [1, 1])
    np.testing.assert_allclose(result.iou, [[0, 4 / 6], [10 / 12, 0]])
    assert result.mean_iou == pytest.approx(0.75)
    assert result.mean_purity == pytest.approx(5 / 6)
    assert result.mean_coverage == pytest.approx(11 / 12)


def test_higher_threshold_of_boxes() -> None:
    strict = part_agreement(*scene(), threshold=0.67)
    np.testing.assert_allclose(strict.corloc, [0.5, 0])


def test_fewer_concepts_than_parts_count_as_misses() -> None:
    concepts, parts = scene()
    result = part_agreement(concepts[:, 1:], parts)
    assert result.concepts.tolist() == [0, -1]
    np.testing.assert_allclose(result.part_iou, [10 / 12, 0])
    assert result.mean_iou == pytest.approx(5 / 12)
    assert result.mean_corloc == pytest.approx(0.5)
    assert result.mean_purity == pytest.approx(1)


def test_concept_in_images_without_the_part_counts_against_it() -> None:
    concepts, parts = scene()
    concepts[1, 0, 0, :] = True
    result = part_agreement(concepts, parts)
    assert result.part_iou[1] == pytest.approx(4 / 12)
    assert result.corloc[1] == 1


def test_part_that_never_occurs() -> None:
    concepts, parts = scene()
    parts[:, 1] = False
    result = part_agreement(concepts, parts)
    assert np.isnan(result.corloc[1])
    assert result.mean_corloc == 1
    assert result.part_iou[1] == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5))
def test_matching_is_the_best_of_all(seed: int, k: int, p: int) -> None:
    rng = np.random.default_rng(seed)
    concepts, parts = rng.random((3, k, 4, 5)) < 0.4, rng.random((3, p, 4, 5)) < 0.4
    before = concepts.copy(), parts.copy()
    result = part_agreement(concepts, parts)
    small, iou = (k, result.iou.T) if k < p else (p, result.iou)
    best = max(
        sum(iou[row, column] for column, row in enumerate(rows))
        for rows in itertools.permutations(range(max(k, p)), small)
    )
    assert result.part_iou.sum() == pytest.approx(best)
    assert all((values >= 0).all() and (values <= 1).all() for values in (result.iou,))
    np.testing.assert_array_equal(concepts, before[0])
    np.testing.assert_array_equal(parts, before[1])


def test_perfect_concepts() -> None:
    _, parts = scene()
    result = part_agreement(parts[:, ::-1].copy(), parts)
    assert result.concepts.tolist() == [1, 0]
    assert result.mean_iou == result.mean_corloc == result.mean_purity == result.mean_coverage == 1


def test_box_iou_and_corloc() -> None:
    first = np.array([[0, 0, 4, 4], [0, 0, 2, 2], [0, 0, 0, 0], [1, 1, 3, 3]])
    second = np.array([[2, 0, 6, 4], [2, 2, 4, 4], [0, 0, 2, 2], [1, 1, 3, 3]])
    np.testing.assert_allclose(box_iou(first, second), [1 / 3, 0, 0, 1])
    assert corloc(first, second) == pytest.approx(0.25)
    assert corloc(first, second, threshold=1 / 3) == pytest.approx(0.5)
    assert np.isnan(corloc(first[:1], np.zeros((1, 4))))


def test_messages() -> None:
    concepts, parts = scene()
    with pytest.raises(UsageError, match="not float64 of shape"):
        part_agreement(concepts.astype(float), parts)
    with pytest.raises(UsageError, match="masks of the same images"):
        part_agreement(concepts[:1], parts)
    with pytest.raises(UsageError, match="expected 2 part names, not 1"):
        part_agreement(concepts, parts, part_names=("head",))
    with pytest.raises(UsageError, match="expected boxes"):
        box_iou(np.zeros((2, 3)), np.zeros((2, 3)))
