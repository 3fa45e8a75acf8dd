"""What a photo's picture is drawn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dff.demo import creatures
from dff.explain import Explainer
from dff.maps import refine
from dff.maps.masks import window_radius
from dff.rendering import overlay


def test_pictures_follow_the_photos_edges_but_with_smooth(tmp_path: Path) -> None:
    pixels = creatures.render(3_000_005, size=128, species="dragon").image
    result = Explainer("demo")(pixels, concepts=3)
    photo, plain = result.photos[0], result.heatmaps()
    fitted = refine(plain, pixels, radius=window_radius(photo.grid, (128, 128)))
    for smooth, maps in ((False, fitted), (True, plain)):
        expected = overlay(pixels, maps, colors=result.bank.colors)
        drawn = np.asarray(result.overlay(with_legend=False, smooth=smooth))
        np.testing.assert_array_equal(drawn, expected)
    assert result.panel() != result.panel(smooth=True)
    for smooth in (False, True):
        result.save(tmp_path / str(smooth), formats=["png"], smooth=smooth)
    first, second = (tmp_path / str(smooth) / "image_concepts.png" for smooth in (False, True))
    assert first.read_bytes() != second.read_bytes()
