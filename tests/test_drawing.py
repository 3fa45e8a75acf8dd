"""What a photo's picture is drawn from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dff.demo import creatures
from dff.explain import Explainer
from dff.maps import refine, sharpened
from dff.rendering import number_concepts, overlay


def test_pictures_follow_the_photos_edges_but_with_smooth(tmp_path: Path) -> None:
    pixels = creatures.render(3_000_005, size=128, species="dragon").image
    result = Explainer("demo")(pixels, concepts=3)
    photo, plain = result.photos[0], result.heatmaps()
    fitted = sharpened(plain, pixels, radius=round(128 / photo.grid.rows))
    for smooth, maps in ((False, fitted), (True, plain)):
        colors = result.bank.colors
        expected = number_concepts(overlay(pixels, maps, colors=colors), maps, colors=colors)
        drawn = np.asarray(result.overlay(with_legend=False, smooth=smooth))
        np.testing.assert_array_equal(drawn, expected)
    assert result.panel() != result.panel(smooth=True)
    for smooth in (False, True):
        result.save(tmp_path / str(smooth), formats=["png"], smooth=smooth)
    first, second = (tmp_path / str(smooth) / "image_concepts.png" for smooth in (False, True))
    assert first.read_bytes() != second.read_bytes()


def test_a_map_to_be_drawn_is_as_strong_as_before_and_ends_at_the_edge() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[:, 30:] = 255
    across = np.clip((np.arange(60) - 20) / 20, 0, 1).astype(np.float32)
    maps = np.stack([np.tile(0.5 * across, (60, 1)), np.zeros((60, 60), np.float32)])
    drawn = sharpened(maps, picture, radius=12)
    assert np.quantile(drawn[0], 0.99) == np.quantile(maps[0], 0.99)
    assert drawn[0, :, 28].mean() < 0.3 * drawn[0, :, 31].mean(), (
        "an edge where the picture has one"
    )
    assert maps[0, :, 28].mean() > 0.7 * maps[0, :, 31].mean()
    assert not drawn[1].any(), "nothing is made stronger than nothing"
    assert drawn.max() <= 1
    assert refine(maps, picture, radius=12)[0].max() <= drawn[0].max()


def halves(height: int = 200, width: int = 300) -> np.ndarray:
    """Maps of two concepts, left and right, of one in the corner, and of a faint one."""
    maps = np.zeros((4, height, width), np.float32)
    maps[0, :, : width // 2] = 0.9
    maps[1, :, width // 2 :] = 0.8
    maps[2, :20, :20] = 1.0
    maps[3] = 0.05
    return maps


def test_each_concept_has_its_number_where_it_is_the_strongest() -> None:
    picture, maps = np.full((200, 300, 3), 40, np.uint8), halves()
    drawn = number_concepts(picture, maps)
    changed = (drawn != picture).any(2)
    count, _, boxes, centres = cv2.connectedComponentsWithStats(changed.astype(np.uint8))
    assert count - 1 == 3, "the faint one has none"
    places = sorted((x, y) for x, y in centres[1:])
    assert places[0][0] < 30, "in its corner"
    assert 40 < places[1][0] < 130
    assert places[2][0] > 170
    for left, top, width, height, _ in boxes[1:].tolist():
        assert left > 0
        assert top > 0
        assert left + width < 300
        assert top + height < 200
        assert width == height, "a whole disc"
    assert (drawn[changed] > 240).any()
    assert (drawn[changed] < 60).any()


def test_small_pictures_and_no_concepts_have_no_numbers() -> None:
    small = np.full((100, 300, 3), 40, np.uint8)
    assert number_concepts(small, halves(100)) is small
    large = np.full((200, 300, 3), 40, np.uint8)
    assert np.array_equal(number_concepts(large, np.zeros((0, 200, 300), np.float32)), large)
    assert np.array_equal(number_concepts(large, 0 * halves()), large)
