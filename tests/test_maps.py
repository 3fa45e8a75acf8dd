import cv2
import numpy as np
import pytest
import torch

from dff.errors import UsageError
from dff.maps import Grid, binarize, box_of, minimum_error, otsu, presence, rescale, upsample


def test_presence_keeps_absence():
    coefficients = np.array([[[0.0, 1.0], [2.0, 8.0]], [[0.0, 0.1], [0.0, 0.0]]])
    maps = presence(coefficients, np.array([4.0, 10.0]))
    np.testing.assert_allclose(maps[0], [[0, 0.25], [0.5, 1]])
    assert maps[1].max() == pytest.approx(0.01)
    torch.testing.assert_close(
        presence(torch.tensor(coefficients), torch.tensor([4.0, 10.0])), torch.tensor(maps)
    )


def test_presence_of_a_concept_that_never_occurs_is_zero():
    assert presence(np.ones((1, 2, 2)), np.zeros(1)).max() == 0
    assert presence(torch.ones(1, 2, 2), torch.zeros(1)).max() == 0


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_rescale_stretches_and_zeroes_constants(kind):
    maps = rescale(kind([[[1.0, 3.0]], [[5.0, 5.0]]]))
    assert maps.tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]


@pytest.mark.parametrize(("shape", "size"), [((7, 7), (224, 224)), ((5, 9), (113, 331))])
def test_tiled_upsampling_equals_opencv(shape, size):
    maps = np.random.default_rng(0).random(shape, dtype=np.float32)
    expected = cv2.resize(maps, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(upsample(maps, size), expected, atol=1e-5)
    torch.testing.assert_close(upsample(torch.tensor(maps), size).numpy(), upsample(maps, size))


def test_tiled_upsampling_equals_torch():
    maps = torch.rand(2, 3, 5, 4)
    expected = torch.nn.functional.interpolate(maps, (31, 17), mode="bilinear")
    torch.testing.assert_close(upsample(maps, (31, 17)), expected)


def test_anchored_cells_peak_over_their_own_pixels():
    maps = np.zeros((8, 8))
    maps[2, 5] = 1
    grid = Grid.anchored(8, 8, 225, 225, (32.0, 32.0))
    full = upsample(maps, (225, 225), grid)
    assert np.unravel_index(full.argmax(), full.shape) == (64, 160)
    assert full[64, 160] == pytest.approx(1)
    doubled = upsample(maps, (450, 450), grid)
    peak = np.unravel_index(doubled.argmax(), doubled.shape)
    assert abs(peak[0] - 129) <= 1
    assert abs(peak[1] - 321) <= 1


def test_upsampling_to_its_own_size_is_the_identity():
    maps = np.random.default_rng(1).random((2, 9, 13))
    np.testing.assert_array_equal(upsample(maps, (9, 13)), maps)


def test_upsampling_one_cell_is_constant():
    assert (upsample(np.full((1, 1), 0.3), (5, 6)) == 0.3).all()


def test_upsampling_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="grid is"):
        upsample(np.zeros((3, 3)), (9, 9), Grid.tiled(4, 4, 9, 9))
    with pytest.raises(UsageError, match="0 x 9 pixels"):
        upsample(np.zeros((3, 3)), (0, 9))


def test_otsu_splits_two_levels():
    heatmap = np.full((10, 10), 0.2)
    heatmap[2:4, 3:9] = 0.9
    assert 0.2 <= otsu(heatmap) < 0.9
    assert binarize(heatmap).sum() == 12


def log_likelihood(values, threshold):
    """That of two levels with noise of 0.06 of the peak and as many pixels as on each side."""
    total = 0.0
    for side in (values[values <= threshold], values[values > threshold]):
        if len(side):
            distance = (side - side.mean()) / (0.06 * values.max())
            total += float(len(side) * np.log(len(side) / len(values)) - (distance**2).sum() / 2)
    return total


def test_the_minimum_error_is_at_the_most_likely_threshold():
    rng = np.random.default_rng(0)
    maps = np.clip(rng.normal(0.2, 0.1, (5, 12, 12)), 0, 1)
    for size, one in enumerate(maps, 1):
        one[:size, :size] += rng.normal(0.5, 0.1, (size, size))
    maps = np.round(np.clip(maps, 0, 1) * 255) / 255
    maps[:, 0, 0] = 1  # levels are of the peak
    found = minimum_error(maps)
    for one, threshold in zip(maps, found, strict=True):
        best = max(log_likelihood(one.ravel(), level) for level in np.unique(one))
        assert log_likelihood(one.ravel(), threshold + 1e-6) == pytest.approx(best)
    np.testing.assert_allclose(minimum_error(maps / 4), found / 4)
    assert minimum_error(maps[0]).shape == ()
    assert not minimum_error(np.stack([np.zeros((4, 4)), np.full((4, 4), 0.7)])).any()


def test_the_mask_of_a_small_thing_is_small():
    rows, cols = np.mgrid[:64, :64] / 63 - 0.5
    ground = 0.25 * np.exp(-8 * (rows**2 + cols**2))
    thing = np.exp(-400 * (rows**2 + cols**2))
    heatmap = np.maximum(ground, thing)
    core = thing > 0.5
    tight, wide = heatmap > minimum_error(heatmap), heatmap > otsu(heatmap)
    assert core.sum() <= tight.sum() < wide.sum()


def test_a_zero_map_has_an_empty_mask_and_no_box():
    mask = binarize(np.zeros((4, 4)))
    assert not mask.any()
    assert box_of(mask) is None


def test_boxes_are_half_open_and_largest_component_first():
    mask = np.zeros((10, 12), bool)
    mask[1, 1] = True
    mask[4:7, 5:11] = True
    assert box_of(mask) == (5, 4, 11, 7)
    assert box_of(mask, largest=False) == (1, 1, 11, 7)


def test_unknown_threshold():
    with pytest.raises(UsageError, match="'otsu'"):
        binarize(np.zeros((2, 2)), "mean")
