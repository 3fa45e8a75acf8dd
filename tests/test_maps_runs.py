"""Masks without drawing them, and COCO's run-length encoding."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from dff.errors import UsageError
from dff.maps import Grid, binarize, box_of, otsu, upsample
from dff.maps.masks import MaskOptions, masks_of
from dff.maps.rle import counts_of, drawn, to_rle
from dff.maps.runs import largest_component, runs_above, runs_of


def draw(runs):
    return drawn(to_rle(runs))


def grids(rows, cols, anchored):
    if anchored:
        return Grid.anchored(rows, cols, 64, 64, (64 / rows, 64 / cols))
    return Grid.tiled(rows, cols, 64, 64)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), rows=st.integers(1, 12), cols=st.integers(1, 12),
    height=st.integers(2, 90), width=st.integers(2, 90), anchored=st.booleans(),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
)  # fmt: skip
def test_runs_are_the_pixels_above_the_threshold(
    seed, rows, cols, height, width, anchored, threshold
):
    rng = np.random.default_rng(seed)
    maps = (rng.random((2, rows, cols)) * (rng.random((2, rows, cols)) > 0.4)).astype(np.float32)
    grid = grids(rows, cols, anchored)
    found = runs_above(maps, np.full(2, threshold), grid, (height, width))
    shown = upsample(maps.astype(np.float64), (height, width), grid)
    for runs, one in zip(found, shown, strict=True):
        mask = draw(runs)
        assert mask.shape == (height, width)
        differ = mask != (one > threshold)
        assert np.abs(one[differ] - threshold).max(initial=0) < 1e-6
        assert runs.area == mask.sum()
        assert runs.box == box_of(mask, largest=False)
        again = runs_of(mask)
        assert np.array_equal(again.starts, runs.starts)
        assert np.array_equal(again.ends, runs.ends)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), height=st.integers(1, 30),
       width=st.integers(1, 30))  # fmt: skip
def test_components_and_encoding_of_any_mask(seed, share, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = runs_of(mask)
    assert np.array_equal(draw(runs), mask)
    plain = {"size": [height, width], "counts": counts_of(runs).tolist()}
    assert np.array_equal(drawn(plain), mask)
    largest = largest_component(runs)
    if mask.any():
        areas = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2]
        assert largest.area == areas[1:, cv2.CC_STAT_AREA].max()
        assert cv2.connectedComponents(draw(largest).astype(np.uint8), connectivity=8)[0] == 2
        assert not (draw(largest) & ~mask).any()
    else:
        assert largest.box is None


def test_encoding_equals_that_of_pycocotools():
    rng = np.random.default_rng(0)
    for share in (0, 0.1, 0.5, 1):
        mask = cv2.blur(rng.random((130, 90)), (9, 9)) < 0.4 + 0.2 * share
        theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        ours = to_rle(runs_of(mask))
        assert ours["counts"].encode() == theirs["counts"]
        assert ours["size"] == list(theirs["size"])


def test_encodings_that_are_none():
    with pytest.raises(UsageError, match="do not add up to 4 x 4"):
        drawn({"size": [4, 4], "counts": [3, 4]})
    with pytest.raises(UsageError, match="not COCO's compressed"):
        drawn({"size": [4, 4], "counts": "\x01"})
    with pytest.raises(UsageError, match="not COCO's run-length encoding"):
        drawn({"counts": [3]})


def test_otsu_of_many_maps_is_that_of_each():
    rng = np.random.default_rng(1)
    grid = Grid.anchored(7, 7, 224, 224, (32, 32))
    maps = np.clip(rng.normal(0.3, 0.3, (20, 7, 7)), 0, 1).astype(np.float32)
    maps[0] = 0
    _, ours = masks_of(maps, grid, (100, 80), MaskOptions("otsu", least=1e-6, refine=False))
    shown = np.stack([upsample(one, (28, 28), grid) for one in maps])
    levels = np.clip(shown * 255 + 0.5, 0, 255).astype(np.uint8)
    theirs = [cv2.threshold(one, 0, 255, cv2.THRESH_OTSU)[0] / 255 for one in levels]
    assert otsu(shown[3]).shape == ()
    np.testing.assert_array_equal([float(otsu(one)) for one in shown], otsu(shown))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_large_photo_is_as_cheap_and_exact():
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 1:3, 1:3] = 1
    grid = Grid.tiled(4, 4, 64, 64)
    (runs,) = runs_above(maps, np.array([0.5]), grid, (1200, 1600))
    shown = upsample(maps[0].astype(np.float64), (1200, 1600), grid)
    assert np.array_equal(draw(runs), binarize(shown, 0.5))
