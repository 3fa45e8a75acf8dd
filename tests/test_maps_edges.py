"""Heatmaps fitted to the edges of a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dff.errors import UsageError
from dff.maps import Grid, MaskOptions, masks_of, refine
from dff.maps.masks import window_radius


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


def on_a_grid() -> tuple[np.ndarray, np.ndarray, np.ndarray, Grid]:
    """A disc's picture and mask, maps of 4 x 4 cells of it, strong to absent, and their grid."""
    picture, truth = disc()
    coarse = cv2.resize(truth.astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA)
    maps = np.stack([coarse, 0.5 * coarse, 0.05 * coarse, 0 * coarse])
    return picture, truth, maps, Grid.tiled(4, 4, 64, 64)


@pytest.mark.parametrize("threshold", ["auto", "otsu", "peak"])
def test_masks_follow_edges_and_are_empty_where_nothing_is(threshold) -> None:
    picture, truth, maps, grid = on_a_grid()
    options = MaskOptions(threshold=threshold)
    runs, thresholds = masks_of(maps, grid, (64, 64), options, guide=picture)
    masks = [mask.drawn() for mask in runs]
    assert iou(masks[0], truth) > 0.9
    np.testing.assert_array_equal(masks[1], masks[0], "each map has a threshold of its own")
    assert not masks[2].any(), "its peak does not reach the least presence"
    assert not masks[3].any()
    assert thresholds[1] == pytest.approx(thresholds[0] / 2, abs=0.01)
    coarse, _ = masks_of(maps, grid, (64, 64), MaskOptions(threshold=threshold, refine=False))
    assert iou(coarse[0].drawn(), truth) < iou(masks[0], truth)


def test_the_window_is_what_a_cell_sees_and_at_least_some_cells() -> None:
    assert window_radius(Grid.tiled(4, 4, 64, 64), (64, 64)) == 24
    assert window_radius(Grid.tiled(4, 4, 64, 64, field=16), (64, 64)) == 40
    assert window_radius(Grid.tiled(4, 4, 64, 64, field=16), (128, 128)) == 80


def test_messages() -> None:
    with pytest.raises(UsageError, match="upsample the maps to the picture first"):
        refine(np.zeros((4, 4)), np.zeros((8, 8, 3), np.uint8), radius=2)
    with pytest.raises(UsageError, match="radius must be 1 or more"):
        refine(np.zeros((8, 8)), np.zeros((8, 8, 3), np.uint8), radius=0)
