"""Pictures of attributions: colours, scales, and maps that have nothing to show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dff.errors import UsageError
from dff.images import Preprocessing
from dff.rendering.attributions import (
    SIGNS,
    STYLES,
    Look,
    as_photo,
    attribution_panel,
    color_bar,
    draw_attribution,
    scale_of,
)

PHOTO = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


def ramp(low=-1.0, high=1.0):
    """Values that rise evenly from left to right."""
    return np.tile(np.linspace(low, high, 30), (20, 1))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    "values", [np.zeros((20, 30)), ramp(0, 1), ramp(-1, 0), ramp(), np.ones((1, 1)), ramp() * 1e-30]
)
def test_every_map_has_a_picture(style, sign, values):
    before = values.copy()
    picture = draw_attribution(values, PHOTO, Look(style, sign))
    assert picture.shape == PHOTO.shape
    assert picture.dtype == np.uint8
    assert np.array_equal(values, before)


def test_nothing_to_show_is_the_zero_of_each_style():
    zero, against = np.zeros((20, 30)), ramp(-1, -0.5)
    grey = draw_attribution(zero, PHOTO, Look("blended_heat_map"))
    assert (grey.max(2) - grey.min(2)).max() == 0
    for values, sign in ((zero, "all"), (against, "positive")):
        assert not draw_attribution(values, PHOTO, Look("masked_image", sign)).any()
        assert (draw_attribution(values, PHOTO, Look("alpha_scaling", sign)) == 255).all()
    heat = draw_attribution(against, PHOTO, Look("heat_map", "positive"))
    assert (heat == Look("heat_map", "positive").table[0]).all()


def test_colours_follow_the_sign():
    red, blue = (draw_attribution(ramp(), PHOTO, Look("heat_map"))[:, x] for x in (-1, 0))
    assert (red[:, 0] > red[:, 2]).all()
    assert (blue[:, 2] > blue[:, 0]).all()
    negative = draw_attribution(ramp(), PHOTO, Look("heat_map", "negative"))
    assert (negative[:, 15:] == Look(sign="negative").table[0]).all()
    absolute = draw_attribution(ramp(), PHOTO, Look("heat_map", "absolute")).astype(int)
    assert abs(absolute - absolute[:, ::-1]).max() <= 1


def test_the_photo_shows_where_the_map_is_strong():
    masked = draw_attribution(ramp(0, 1), PHOTO, Look("masked_image", outlier_percentile=0))
    assert np.array_equal(masked[:, -1], PHOTO[:, -1])
    assert not masked[:, 0].any()
    scaled = draw_attribution(ramp(0, 1), PHOTO, Look("alpha_scaling", outlier_percentile=0))
    assert np.array_equal(scaled[:, -1], PHOTO[:, -1])
    assert (scaled[:, 0] == 255).all()
    assert np.array_equal(draw_attribution(ramp(), PHOTO, Look("original")), PHOTO)


def test_scales_leave_out_what_holds_the_percentile():
    values = np.ones((10, 10))
    values[0, 0] = 1000.0  # 91 % of the sum
    assert scale_of([values], Look(outlier_percentile=0)) == 1000
    assert scale_of([values], Look(outlier_percentile=95)) == 1
    assert scale_of([values, -values], Look(sign="negative", outlier_percentile=0)) == 1000
    assert scale_of([np.zeros((3, 3))], Look()) == 0
    assert scale_of([values], Look(sign="negative")) == 0


def test_scales_equal_captum_s():
    visualization = pytest.importorskip("captum.attr._utils.visualization")
    values = np.random.default_rng(0).normal(size=(12, 9))
    for sign, theirs in (("all", "all"), ("positive", "positive"), ("absolute", "absolute_value")):
        look = Look(sign=sign, outlier_percentile=5)
        expected = visualization._normalize_attr(values, theirs, 5)
        assert np.allclose(look.scaled(values, scale_of([values], look)), expected, atol=1e-6)


def test_channels_are_added_up():
    values = np.stack([ramp(), -ramp(), ramp(0, 1)])
    one = draw_attribution(values, PHOTO)
    assert np.array_equal(one, draw_attribution(torch.tensor(ramp(0, 1)), PHOTO))


def test_colour_maps_of_one_s_own():
    import matplotlib

    look = Look("heat_map", "positive", colormap=[(0, 0, 0), (255, 0, 0)], outlier_percentile=0)
    picture = draw_attribution(ramp(0, 1), PHOTO, look)
    assert tuple(picture[0, 0]) == (0, 0, 0)
    assert tuple(picture[0, -1]) == (255, 0, 0)
    by_name, by_object = Look(colormap="viridis"), Look(colormap=matplotlib.colormaps["viridis"])
    assert np.array_equal(by_name.table, by_object.table)


def test_a_normalised_input_is_drawn_as_the_photo():
    prep = Preprocessing(size=20, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    x = prep.normalise(torch.from_numpy(PHOTO.copy())[None])[0].permute(2, 0, 1)
    assert np.array_equal(as_photo(x, prep), PHOTO)
    spread = as_photo(x)  # without the preprocessing: from its darkest to its brightest
    assert spread.shape == PHOTO.shape
    assert spread.min() == 0
    assert spread.max() == 255
    assert np.array_equal(as_photo(PHOTO / 255), PHOTO)


def test_a_colour_bar_has_its_ends():
    bar = color_bar(Look(), 2.5, 120)
    assert bar.shape[0] == 120
    assert np.array_equal(bar[1, 4], Look().colors(np.float32(1 - 2 / 119)))
    assert color_bar(Look(), 0.0, 120).shape[1] < bar.shape[1]


def test_several_side_by_side():
    looks = [Look(style) for style in STYLES]
    row = attribution_panel(ramp(), PHOTO, looks, titles=STYLES)
    assert row.width > 5 * 360
    pair = attribution_panel([ramp(), ramp() / 4], PHOTO, Look("heat_map"), bars=False)
    shared = attribution_panel(
        [ramp(), ramp() / 4], PHOTO, Look("heat_map"), bars=False, one_scale=True
    )
    assert pair.size == shared.size
    half = pair.width // 2
    assert np.array_equal(np.asarray(pair)[:, :half], np.asarray(shared)[:, :half])
    assert not np.array_equal(np.asarray(pair)[:, half:], np.asarray(shared)[:, half:])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"style": "heat"}, "no style 'heat'; did you mean 'heat_map'"),
        ({"sign": "postive"}, "did you mean 'positive'"),
        ({"colormap": "virids"}, "did you mean 'viridis'"),
        ({"colormap": [(0, 0, 0)]}, "two colours or more"),
        ({"outlier_percentile": 100}, "below 100"),
        ({"image_weight": 2}, r"lies in \[0, 1\]"),
    ],
)
def test_looks_that_cannot_be(words, match):
    with pytest.raises(UsageError, match=match):
        Look(**words)


def test_maps_that_cannot_be():
    with pytest.raises(UsageError, match="NaN"):
        draw_attribution(np.full((4, 4), np.nan), PHOTO)
    with pytest.raises(UsageError, match="shape"):
        draw_attribution(np.zeros((1, 2, 3, 4)), PHOTO)
    with pytest.raises(UsageError, match="as many, or one for all"):
        attribution_panel([ramp(), ramp()], PHOTO, [Look()] * 3)
    with pytest.raises(UsageError, match="image"):
        as_photo(np.zeros((4, 4, 2), np.uint8))
