"""Heatmaps fitted to the edges of a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dff.errors import UsageError
from dff.maps import concept_masks, near_peak, refine


def disc(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on green, with a little noise, and the truth."""
    y, x = np.mgrid[:size, :size]
    truth = (x - 30) ** 2 + (y - 34) ** 2 < 17**2
    noise = np.random.default_rng(0).integers(-8, 9, (size, size, 3))
    picture = np.where(truth[..., None], [200, 60, 50], [60, 160, 70]) + noise
    return picture.astype(np.uint8), truth


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_blurred_map_finds_the_edges_again() -> None:
    picture, truth = disc()
    coarse = cv2.resize(truth.astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA)
    blurred = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_LINEAR)
    refined = refine(blurred, picture, radius=10)
    assert iou(refined > 0.5, truth) > 0.95 > 0.87 > iou(blurred > 0.5, truth)


def test_constant_maps_and_constant_pictures() -> None:
    picture, _ = disc()
    np.testing.assert_allclose(refine(np.full((64, 64), 0.3), picture, radius=6), 0.3, atol=1e-3)
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    plain = np.full((64, 64, 3), 90, np.uint8)
    side = (9, 9)
    twice = cv2.blur(cv2.blur(ramp, side, borderType=2), side, borderType=2)
    np.testing.assert_allclose(refine(ramp, plain, radius=4), twice, atol=1e-4)


def test_stack_equals_single_maps_and_nothing_is_changed() -> None:
    picture, truth = disc()
    maps = np.stack([truth, ~truth, np.zeros_like(truth)]).astype(np.float32)
    before = maps.copy(), picture.copy()
    together = refine(maps, picture, radius=5)
    for one, map_ in zip(together, maps, strict=True):
        np.testing.assert_allclose(one, refine(map_, picture, radius=5), atol=1e-6)
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 1
    np.testing.assert_array_equal(maps, before[0])
    np.testing.assert_array_equal(picture, before[1])


def test_masks_are_near_the_peak_of_what_is_present() -> None:
    picture, truth = disc()
    coarse = cv2.resize(truth.astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA)
    blurred = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_LINEAR)
    maps = np.stack([blurred, 0.3 * blurred, 0.05 * blurred, np.zeros_like(blurred)])
    masks = concept_masks(maps, picture, radius=10)
    assert masks.dtype == bool
    assert masks.shape == maps.shape
    assert iou(masks[0], truth) > 0.9
    np.testing.assert_array_equal(masks[1], masks[0], "the same share of its own peak")
    assert not masks[2:].any(), "below a tenth of full presence: absent"
    by_default = near_peak(refine(maps, picture, radius=7), 0.45, 0.1)  # 64 / 9
    np.testing.assert_array_equal(concept_masks(maps, picture), by_default)
    with pytest.raises(UsageError, match="upsample the maps"):
        concept_masks(maps[:, :8], picture)


def test_messages() -> None:
    with pytest.raises(UsageError, match="upsample the maps to the picture first"):
        refine(np.zeros((4, 4)), np.zeros((8, 8, 3), np.uint8), radius=2)
    with pytest.raises(UsageError, match="radius must be 1 or more"):
        refine(np.zeros((8, 8)), np.zeros((8, 8, 3), np.uint8), radius=0)
