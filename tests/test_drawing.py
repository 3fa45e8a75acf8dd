"""What a photo's picture is drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dff.demo import creatures
from dff.explain import Explainer
from dff.maps import refine, sharpened
from dff.rendering import overlay


def test_pictures_follow_the_photos_edges_but_with_smooth(tmp_path: Path) -> None:
    pixels = creatures.render(3_000_005, size=128, species="dragon").image
    result = Explainer("demo")(pixels, concepts=3)
    photo, plain = result.photos[0], result.heatmaps()
    fitted = sharpened(plain, pixels, radius=round(128 / photo.grid.rows))
    for smooth, maps in ((False, fitted), (True, plain)):
        expected = overlay(pixels, maps, colors=result.bank.colors)
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
