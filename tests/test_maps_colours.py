"""What colours say of where a concept is."""

import numpy as np
import pytest

from dff.maps import Grid
from dff.maps.colours import weighed
from dff.maps.masks import MaskOptions, masks_of
from dff.maps.rle import drawn, to_rle


@pytest.fixture
def horse():
    """A brown block with a brown leg on noisy green, and the block's coarse map."""
    noise = np.random.default_rng(0).integers(-12, 12, (160, 160, 3))
    picture = np.array([60, 140, 60]) + noise
    inside = np.zeros((160, 160), bool)
    inside[40:90, 40:120] = True
    inside[90:140, 100:112] = True
    picture[inside] = np.array([120, 70, 30]) + noise[inside]
    return np.clip(picture, 0, 255).astype(np.uint8), inside


def test_what_has_the_concepts_colour_is_inside_though_its_map_hardly_reaches_there(horse):
    picture, _ = horse
    block = np.full((160, 160), 0.05, np.float32)
    block[40:90, 40:120] = 0.9
    block[90:140, 90:122] = 0.42
    likely = weighed(block[None], np.array([0.5]), picture)[0]
    assert likely[95:135, 102:110].min() > 0.5
    assert likely[95:135, 91:97].max() < 0.5
    assert likely[45:85, 45:115].min() > 0.5
    assert likely[:30].max() < 0.5


def test_colours_do_not_overrule_a_map_that_is_sure(horse):
    picture, _ = horse
    sure = np.zeros((160, 160), np.float32)
    sure[:30] = 1  # grass that the map has wholly inside, of the colour of all grass
    likely = weighed(sure[None], np.array([0.5]), picture)[0]
    assert likely[:30].min() > 0.5
    assert likely[30:].max() < 0.5


def test_one_colour_says_nothing():
    maps = np.linspace(0, 1, 64, dtype=np.float32)[None, None].repeat(32, 1)
    likely = weighed(maps, np.array([0.3]), np.full((32, 64, 3), 90, np.uint8))
    np.testing.assert_array_equal(likely > 0.5, maps > 0.3)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_constant_map_is_defined(horse, level):
    likely = weighed(np.full((1, 160, 160), level, np.float32), np.array([0.0]), horse[0])
    assert np.isfinite(likely).all()


def test_arguments_are_left_alone(horse):
    maps, before = np.full((1, 160, 160), 0.3, np.float32), horse[0].copy()
    weighed(maps, np.array([0.2]), horse[0])
    assert (maps == np.float32(0.3)).all()
    np.testing.assert_array_equal(horse[0], before)


def test_masks_take_in_the_leg_that_the_grid_misses(horse):
    picture, inside = horse
    grid = Grid.tiled(8, 8, 160, 160)
    cells = inside.reshape(8, 20, 8, 20).mean((1, 3)).astype(np.float32)

    def iou(options):
        runs, _ = masks_of(cells[None], grid, (160, 160), options, guide=picture)
        mask = drawn(to_rle(runs[0]))
        return (mask & inside).sum() / (mask | inside).sum()

    assert iou(MaskOptions()) > 0.9
    assert iou(MaskOptions()) > iou(MaskOptions(refine=False)) + 0.1


def test_the_mask_of_a_photo_does_not_hang_on_its_size(horse):
    picture, inside = horse
    large = picture.repeat(6, 0).repeat(6, 1)
    grid = Grid.tiled(8, 8, 160, 160)
    cells = inside.reshape(8, 20, 8, 20).mean((1, 3)).astype(np.float32)
    masks = [
        drawn(to_rle(masks_of(cells[None], grid, p.shape[:2], MaskOptions(), guide=p)[0][0]))
        for p in (picture, large)
    ]
    assert (masks[1][::6, ::6] == masks[0]).mean() > 0.97
