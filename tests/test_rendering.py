"""Colours and overlays: what each pixel must be, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dff.compat import show_factorization_on_image
from dff.errors import UsageError
from dff.rendering import colors, heatmap_overlay, overlay
from dff.rendering.overlays import MEETING
from dff.rendering.palette import paled

# Machado, Oliveira and Fernandes 2009, severity 1.0, for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def linear(levels: np.ndarray) -> np.ndarray:
    share = np.asarray(levels) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB to OKLab (Ottosson 2020)."""
    cones = rgb @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def least_distance(palette: np.ndarray, vision: str) -> float:
    seen = oklab(np.clip(linear(palette) @ VISIONS[vision].T, 0, 1))
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    return float(distances[~np.eye(len(palette), dtype=bool)].min())


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_the_distance_measure_knows_what_is_confused() -> None:
    red_and_green = np.array([[200, 60, 0], [110, 110, 0]])
    assert least_distance(red_and_green, "normal") > 0.12
    assert least_distance(red_and_green, "deuteranopia") < 0.05
    assert oklab(np.ones((1, 3)))[0] == pytest.approx([1, 0, 0], abs=1e-3)


@pytest.mark.parametrize("vision", VISIONS)
def test_twelve_colours_differ_for_every_reader(vision: str) -> None:
    least = 0.18 if vision == "normal" else 0.1  # in OKLab black and white lie 1 apart
    assert least_distance(colors(12), vision) > least


def test_32_colours_differ_and_keep_their_order() -> None:
    assert len(np.unique(colors(32), axis=0)) == 32
    assert least_distance(colors(32), "normal") > 0.09
    for n in (0, 1, 7, 31):
        np.testing.assert_array_equal(colors(n), colors(32)[:n])
    np.testing.assert_array_equal(colors(40)[32:], colors(8))
    assert colors(5).dtype == np.uint8
    with pytest.raises(UsageError, match="0 or more, not -1"):
        colors(-1)


def test_colours_are_none_of_them_grey() -> None:
    assert (np.ptp(colors(32).astype(int), axis=1) > 40).all()


def test_the_palette_cannot_be_changed_by_its_users() -> None:
    colors(3)[:] = 0
    assert colors(3).any()


def test_no_concept_leaves_the_photo_as_it_is(photo: np.ndarray) -> None:
    np.testing.assert_array_equal(overlay(photo, np.zeros((3, 40, 60), np.float32)), photo)
    np.testing.assert_array_equal(overlay(photo, np.zeros((0, 40, 60))), photo)


def test_a_concept_at_full_presence_by_hand() -> None:
    """Grey photo of level 100, colour (200, 0, 100): half of each; a quarter at half presence."""
    image = np.full((9, 9, 3), 100, np.uint8)
    full = overlay(image, np.ones((1, 9, 9)), colors=[(200, 0, 100)])
    assert (full == (150, 50, 100)).all()
    half = overlay(image, np.full((1, 9, 9), 0.5), colors=[(200, 0, 100)])
    assert (half == (125, 75, 100)).all()


def test_image_weight_spans_from_colour_to_photo(photo: np.ndarray) -> None:
    maps = np.ones((1, 40, 60))
    alone = overlay(photo, maps, colors=[(7, 8, 9)], image_weight=0)
    assert (alone == (7, 8, 9)).all()
    np.testing.assert_array_equal(overlay(photo, maps, image_weight=1), photo)


def test_the_strongest_concept_gives_the_colour() -> None:
    image = np.full((12, 30, 3), 128, np.uint8)
    maps = np.zeros((3, 12, 30), np.float32)
    maps[0, :, :10], maps[1, :, :10] = 0.4, 0.9
    maps[2, :, 10:20] = 1
    maps[1, :, 20:] = 0.8
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    result = overlay(image, maps, colors=[red, green, blue], image_weight=0)
    inner = result[6, [5, 15, 25]].astype(int)  # away from the smoothed edges
    np.testing.assert_array_equal(inner.argmax(axis=1), [1, 2, 1])


def test_edges_between_concepts_are_smooth() -> None:
    image = np.full((20, 20, 3), 0, np.uint8)
    maps = np.zeros((2, 20, 20))
    maps[0, :, :10] = maps[1, :, 10:] = 1
    row = overlay(image, maps, colors=[(255, 0, 0), (0, 255, 0)], image_weight=0)[10, :, 0]
    assert (np.diff(row.astype(int)) <= 0).all()
    assert 0 < row[9] < 255


def test_concepts_mix_where_they_are_about_equally_strong_and_nowhere_else() -> None:
    """From left to right the second fades: half and half where equal, pure below the rule's bound.

    By hand, at 15% weaker: w = (1 - 0.15 / 0.3)^2 = 1/4 beside 1, so a fifth of the second one.
    """
    maps = np.empty((2, 5, 101), np.float32)
    for strength in (1.0, 0.4):
        maps[0] = strength
        maps[1] = strength * np.linspace(1, 0, 101)
        image = np.zeros((5, 101, 3), np.uint8)
        row = overlay(image, maps, colors=[(250, 0, 0), (0, 250, 0)], image_weight=0)[2] / strength
        assert row[0] == pytest.approx([125, 125, 0], abs=5)
        assert row[15] == pytest.approx([200, 50, 0], abs=5)
        assert (np.diff(row[:, 1]) <= 0).all()
        assert (row[round(100 * MEETING) + 2 :, 1] == 0).all()
        assert (row[round(100 * MEETING) + 2 :, 0] > 247).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 80), st.integers(1, 80), st.integers(0, 99))
def test_opacity_follows_the_greatest_strength(k: int, height: int, width: int, seed: int) -> None:
    """Block by block or at once, whatever the shape: white on black shows the maps' maximum."""
    maps = np.random.default_rng(seed).random((k, height, width)).astype(np.float32)
    image = np.zeros((height, width, 3), np.uint8)
    drawn = overlay(image, maps, colors=np.full((k, 3), 255), image_weight=0)
    assert np.abs(drawn[..., 0] - 255 * maps.max(axis=0)).max() <= 1


def test_concepts_that_stay_behind_are_less_opaque() -> None:
    image = np.full((9, 30, 3), 100, np.uint8)
    maps = np.zeros((2, 9, 30), np.float32)
    maps[0, :, :15] = maps[1, :, 15:] = 1
    both = [(200, 200, 200)] * 2
    row = overlay(image, maps, colors=both, image_weight=0, opacities=[1, 0.25])[4, :, 0]
    assert row[5] == 200
    assert row[25] == 125


def test_pale_colours_are_less_colourful_and_differ_still() -> None:
    table = colors(12)
    pale = paled(table)
    assert pale.dtype == np.uint8
    assert (np.ptp(pale.astype(int), axis=1) < 0.5 * np.ptp(table.astype(int), axis=1)).all()
    assert (oklab(linear(pale))[:, 0] > 0.6).all(), "light"
    assert len(np.unique(pale, axis=0)) == 12


def test_outlines_are_drawn_on_request_between_concepts_and_not_along_the_border() -> None:
    image = np.full((240, 320, 3), 120, np.uint8)
    maps = np.zeros((3, 240, 320), np.float32)
    maps[0, :, :160] = maps[1, :, 160:] = 1
    maps[:, 100:104, 50:54] = [[[0]], [[0]], [[1]]]  # a speck has none
    plain, lined = (overlay(image, maps, outline=outline) for outline in (False, True))
    changed = (plain != lined).any(axis=2)
    assert changed[:, 155:166].any(axis=1).all(), "from top to bottom"
    assert not changed[:, :150].any()
    assert not changed[:, 170:].any()
    assert lined[:, 155:166].min() < 60, "dark"
    assert lined[:, 155:166].max() > 230, "on light: seen on every ground"
    faint = overlay(image, 0.1 * maps, outline=True)
    np.testing.assert_array_equal(faint, overlay(image, 0.1 * maps))


def test_a_picture_of_many_blocks(photo: np.ndarray) -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (700, 400, 3), dtype=np.uint8)
    maps = random.random((3, 700, 400), dtype=np.float32)
    whole = overlay(image, maps, image_weight=0.3)
    np.testing.assert_array_equal(whole[:, :], overlay(image, maps.astype(float), image_weight=0.3))
    swapped = overlay(image[::-1].copy(), maps[:, ::-1], image_weight=0.3)
    np.testing.assert_array_equal(swapped[::-1], whole)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 2)])
def test_tiny_and_constant_maps_have_a_picture(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    for value in (0.0, 0.5, 1.0):
        maps = np.full((2, *size), value, np.float32)
        assert overlay(image, maps).shape == image.shape
        assert heatmap_overlay(image, maps[0]).shape == image.shape
        assert len(np.unique(overlay(image, maps).reshape(-1, 3), axis=0)) == 1


def test_half_precision_and_rounding_beyond_one(photo: np.ndarray) -> None:
    maps = np.random.default_rng(2).random((4, 40, 60))
    exact = overlay(photo, maps).astype(int)
    assert np.abs(overlay(photo, maps.astype(np.float16)).astype(int) - exact).max() <= 128
    assert np.abs(overlay(photo, maps.astype(np.float16)).astype(int) - exact).mean() < 0.5
    beyond = overlay(photo, np.full((1, 40, 60), 1 + 1e-6))
    np.testing.assert_array_equal(beyond, overlay(photo, np.ones((1, 40, 60))))


def test_heatmaps_grow_lighter_with_strength() -> None:
    image = np.full((4, 256, 3), 128, np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 1, 256), (4, 256))
    lightness = oklab(linear(heatmap_overlay(image, ramp)[0]))[:, 0]
    assert lightness[-1] - lightness[0] > 0.3
    assert (np.diff(lightness) > -0.004).all()
    np.testing.assert_array_equal(heatmap_overlay(image, ramp, image_weight=1), image)


def test_nothing_is_changed(photo: np.ndarray) -> None:
    maps = np.random.default_rng(3).random((3, 40, 60)).astype(np.float32)
    palette = np.random.default_rng(4).random((3, 4))
    copies = photo.copy(), maps.copy(), palette.copy()
    for array in (photo, maps, palette):
        array.flags.writeable = False
    overlay(photo, maps, colors=palette)
    heatmap_overlay(photo, maps[0])
    show_factorization_on_image(photo / 255, maps, colors=palette, concept_labels=["a", "b", "c"])
    for array, copy in zip((photo, maps, palette), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_colours_come_in_every_common_form(photo: np.ndarray) -> None:
    maps = np.ones((2, 40, 60))
    maps[1] = 0
    expected = overlay(photo, maps, colors=[(255, 0, 51), (1, 2, 3)])
    forms = [
        np.array([[255, 0, 51], [1, 2, 3]], np.uint8),
        np.array([[1.0, 0.0, 0.2], [0.0, 0.0, 0.0]]),
        [np.array([1.0, 0.0, 0.2, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])],
        [(255, 0, 51), (9, 9, 9), (4, 4, 4)],
    ]
    for form in forms:
        np.testing.assert_array_equal(overlay(photo, maps, colors=form), expected)


@pytest.mark.parametrize(
    ("image", "maps", "options", "message"),
    [
        (None, None, {"image_weight": 1.5}, "image_weight lies in [0, 1], not 1.5"),
        (None, None, {"image_weight": float("nan")}, "image_weight lies in [0, 1], not nan"),
        (None, np.full((2, 8, 8), np.nan), {}, "the maps hold NaN"),
        (None, np.full((2, 8, 8), 3.0), {}, "came in [3, 3]"),
        (None, np.full((2, 8, 8), -1.0), {}, "came in [-1, -1]"),
        (None, np.full((2, 8, 8), np.inf), {}, "came in [inf, inf]"),
        (None, np.zeros((2, 7, 8)), {}, "here (k, 8, 8), not (2, 7, 8); dff.maps.upsample"),
        (None, np.zeros((8, 8)), {}, "not (8, 8)"),
        (None, np.zeros((2, 8, 8), int), {}, "floating point in [0, 1], not int64"),
        (None, np.zeros((257, 8, 8)), {}, "at most 256 concepts"),
        (None, None, {"colors": [(0, 0, 0)]}, "must hold 2 colours"),
        (None, None, {"opacities": [1]}, "opacities must hold 2 numbers in [0, 1], not [1]"),
        (None, None, {"opacities": [1, 1.5]}, "opacities must hold 2 numbers in [0, 1]"),
        (None, None, {"colors": [(0, 0), (1, 1)]}, "must hold 2 colours"),
        (None, None, {"colors": ["red", "blue"]}, "must hold 2 colours"),
        (None, None, {"colors": [(0, 0, 300), (0, 0, 0)]}, "came in [0, 300]"),
        (None, None, {"colors": [(0.0, 0.0, 2.0), (0.0, 0.0, 0.0)]}, "came in [0, 2]"),
        (np.zeros((8, 8, 3)), None, {}, "an image is uint8, RGB, not float64"),
        (np.zeros((8, 8), np.uint8), None, {}, "shape (height, width, 3), not (8, 8)"),
        ([[1]], None, {}, "a NumPy array, not list"),
    ],
)
def test_what_overlay_refuses(
    image: object, maps: object, options: dict[str, object], message: str
) -> None:
    image = np.zeros((8, 8, 3), np.uint8) if image is None else image
    maps = np.zeros((2, 8, 8)) if maps is None else maps
    with pytest.raises(UsageError, match=re.escape(message)):
        overlay(image, maps, **options)  # type: ignore[arg-type]


def test_what_heatmap_overlay_refuses(photo: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"shape \(height, width\), not \(1, 40, 60\)"):
        heatmap_overlay(photo, np.zeros((1, 40, 60)))
    with pytest.raises(UsageError, match="NaN"):
        heatmap_overlay(photo, np.full((40, 60), np.nan))
    with pytest.raises(UsageError, match="image_weight"):
        heatmap_overlay(photo, np.zeros((40, 60)), image_weight=-1)
