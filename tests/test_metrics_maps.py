"""How good maps are: values to compute by hand, and pytorch-grad-cam's metrics on the same maps."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics import arcc as their_arcc
from pytorch_grad_cam.metrics import cam_mult_image as theirs
from pytorch_grad_cam.metrics import road as their_road
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
)
from torch import nn

from dff.errors import UsageError
from dff.maps import upsample
from dff.metrics import (
    METRICS,
    Trial,
    average_drop,
    coherency,
    complexity,
    deletion,
    drop,
    harmonic_mean,
    imputed,
    increase,
    insertion,
    pixel_curve,
    road,
    score_maps,
)
from tests.toys import ConvNet, images, seeded, untouched

TARGETS = [1, 3, 0]


@pytest.fixture
def model() -> nn.Module:
    """A toy whose classes differ: random weights alone hardly tell pictures apart."""
    net = seeded(ConvNet)
    with torch.no_grad():
        net.fc.weight.mul_(8)
    return net


@pytest.fixture
def inputs() -> torch.Tensor:
    return images(3, 3, 32, 32) * 6 - 3


@pytest.fixture
def maps() -> np.ndarray:
    """Smooth maps from 0 to 1, of few equal values, as a CAM's are."""
    cells = images(3, 4, 4, seed=5).numpy()
    grown = upsample(cells, (32, 32))
    low, high = (f(grown, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (grown - low) / (high - low)


def soft(targets=TARGETS):
    return [ClassifierOutputSoftmaxTarget(t) for t in targets]


def quiet(metric):
    """Their metric without noise: theirs is drawn from the global generator."""
    metric.perturbation.imputer.noise = 0
    return metric


# Parity.


def test_drop_and_increase_are_theirs(model, inputs, maps):
    trial = Trial(model, inputs, maps, TARGETS)
    np.testing.assert_allclose(
        drop(trial), theirs.DropInConfidence()(inputs, maps, soft(), model), atol=1e-4
    )
    np.testing.assert_array_equal(
        increase(trial), theirs.IncreaseInConfidence()(inputs, maps, soft(), model)
    )
    assert drop(trial).max() > 0


def test_drop_of_logits_is_theirs(model, inputs, maps):
    trial = Trial(model, inputs, maps, TARGETS, probabilities=lambda logits: logits)
    targets = [ClassifierOutputTarget(t) for t in TARGETS]
    expected = theirs.DropInConfidence()(inputs, maps, targets, model)
    np.testing.assert_allclose(drop(trial), expected, atol=1e-4)


@pytest.mark.parametrize("percentile", [10, 50, 80])
def test_road_without_noise_is_theirs(model, inputs, maps, percentile):
    ours = road(Trial(model, inputs, maps, TARGETS), percentiles=[percentile], noise=0)
    most = quiet(their_road.ROADMostRelevantFirst(percentile))(inputs, maps, soft(), model)
    least = quiet(their_road.ROADLeastRelevantFirst(percentile))(inputs, maps, soft(), model)
    np.testing.assert_allclose(ours.most[0], most, atol=1e-4)
    np.testing.assert_allclose(ours.least[0], least, atol=1e-4)
    assert np.abs(most).max() > 1e-3


def test_road_over_percentiles_is_theirs_with_the_same_noise(model, inputs, maps):
    for i in range(len(inputs)):
        one = slice(i, i + 1)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            expected = their_road.ROADCombined()(inputs[one], maps[one], soft(TARGETS[one]), model)
        ours = road(Trial(model, inputs[one], maps[one], TARGETS[one]), seed=7)
        np.testing.assert_allclose(ours.combined, expected, atol=1e-4)


def test_the_parts_of_arcc_are_theirs(model, inputs, maps):
    with GradCAM(model=model, target_layers=[model.layer4]) as cam:

        def explain(x, targets):
            return cam(input_tensor=x, targets=soft(targets))

        trial = Trial(model, inputs, maps, TARGETS)
        np.testing.assert_allclose(complexity(trial), their_arcc.Complexity()(maps), atol=1e-4)
        ours = coherency(trial, explain)
        expected = their_arcc.Coherency()(inputs, maps, soft(), model, cam)
        np.testing.assert_allclose(ours, expected, atol=1e-4)

        whole = their_arcc.ARCC(cam)
        for averager in (whole.road.morf_averager, whole.road.lerf_averager):
            make = averager.imputer
            averager.imputer = lambda percentile, make=make: quiet(make(percentile))
        found = road(trial, percentiles=[20, 40, 60, 80], noise=0)
        arcc = harmonic_mean(ours, 1 - complexity(trial), (2 * found.combined).clip(0, 1))
        np.testing.assert_allclose(arcc, whole(inputs, maps, soft(), model), atol=1e-4)


# Values to compute by hand.


def bright(x):
    """Logits whose softmax is (mean brightness of the first channel, the rest)."""
    p = x[:, 0].mean((1, 2)).clamp(1e-6, 1 - 1e-6)
    return torch.stack([p.log(), (1 - p).log()], 1)


def halves() -> tuple[torch.Tensor, np.ndarray]:
    """A picture whose left half is white, and the map that says so."""
    image = torch.zeros(1, 3, 8, 8)
    image[..., :4] = 1
    return image, image[:, 0].numpy()


def test_confidence_by_hand():
    image, there = halves()
    good, half, bad = (Trial(bright, image, m, [0]) for m in (there, 0.5 + 0.5 * there, 1 - there))
    assert drop(good) == pytest.approx(0, abs=1e-5)
    assert drop(half) == pytest.approx(0, abs=1e-5), "the white half is kept whole"
    assert drop(bad) == pytest.approx(0.5, abs=1e-5)
    assert average_drop(bad) == pytest.approx(1, abs=1e-5)
    assert increase(Trial(bright, image, 1 - there, [1])) == 1
    assert complexity(good) == pytest.approx(0.5)
    assert complexity(half) == pytest.approx(0.75)


def test_deletion_and_insertion_are_the_curves_of_pixels():
    image, there = halves()
    trial = Trial(bright, image, there, [0])
    assert deletion(trial)[0] == pixel_curve(bright, image[0], there[0], 0).auc
    assert insertion(trial)[0] == pixel_curve(bright, image[0], there[0], 0, mode="insertion").auc
    worse = Trial(bright, image, -there, [0])
    assert deletion(trial) < deletion(worse)
    assert insertion(trial) > insertion(worse)


def test_imputed_pixels_are_the_mean_of_their_neighbours():
    image = images(2, 5, 6)
    kept = image.clone()
    hole = np.zeros((5, 6), bool)
    hole[2, 3] = hole[0, 0] = True
    filled = imputed(image, hole, noise=0)
    around = image[:, 1:4, 2:5]
    sides = around[:, [0, 1, 1, 2], [1, 0, 2, 1]].sum(1)
    corners = around[:, [0, 0, 2, 2], [0, 2, 0, 2]].sum(1)
    torch.testing.assert_close(filled[:, 2, 3], sides / 6 + corners / 12)
    corner = (2 * image[:, 0, 1] + 2 * image[:, 1, 0] + image[:, 1, 1]) / 5
    torch.testing.assert_close(filled[:, 0, 0], corner, msg="outside the picture is nothing")
    assert torch.equal(filled[:, ~hole], image[:, ~hole])
    assert torch.equal(image, kept)
    noisy = imputed(image, hole, generator=torch.Generator().manual_seed(1))
    assert 0 < float((noisy - filled).abs().max()) < 0.1


def test_imputation_continues_a_slope():
    slope = torch.linspace(0, 1, 12).expand(1, 12, 12)
    hole = np.zeros((12, 12), bool)
    hole[3:8, 3:9] = True
    torch.testing.assert_close(imputed(slope, hole, noise=0), slope)


def test_the_harmonic_mean_is_zero_where_a_part_is():
    parts = np.array([1.0, 0.5, 0.0]), np.array([1.0, 1.0, 1.0])
    np.testing.assert_allclose(harmonic_mean(*parts), [1, 2 / 3, 0])


# What maps may be.


def test_maps_of_any_range_rank_alike(model, inputs, maps):
    first = score_maps(model, inputs, maps, TARGETS, metrics=["insertion", "deletion", "road"])
    other = score_maps(
        model, inputs, 300 * maps - 100, TARGETS, metrics=["insertion", "deletion", "road"]
    )
    for name, values in first.items():
        np.testing.assert_allclose(values, other[name], atol=1e-5, err_msg=name)


def test_masks_are_the_positive_part_over_its_maximum(model, inputs, maps):
    ours = drop(Trial(model, inputs, 40 * maps, TARGETS))
    np.testing.assert_allclose(ours, drop(Trial(model, inputs, maps, TARGETS)), atol=1e-6)
    signed = np.where(maps > 0.5, maps, -7)
    positive = np.where(maps > 0.5, maps, 0)
    np.testing.assert_array_equal(
        complexity(Trial(model, inputs, signed, TARGETS)),
        complexity(Trial(model, inputs, positive, TARGETS)),
    )


@pytest.mark.parametrize("value", [0.0, 2.0, -1.0])
def test_constant_maps_are_defined(model, inputs, value):
    maps = np.full((3, 32, 32), value)
    found = score_maps(model, inputs, maps, TARGETS, explain=lambda x, t: np.zeros((3, 32, 32)))
    assert list(found) == list(METRICS)
    assert all(np.isfinite(values).all() for values in found.values())
    assert not found["road"].any(), "no pixel comes before another"
    assert not found["road-most-relevant"].any()
    np.testing.assert_allclose(found["coherency"], 0.5)
    assert (found["complexity"] == float(value > 0)).all()
    if value > 0:
        assert not found["drop"].any(), "nothing is masked"


def test_road_of_maps_with_many_zeros_keeps_them_where_theirs_keeps_nothing(model, inputs):
    maps = np.zeros((3, 32, 32), np.float32)
    maps[:, 10:16, 10:16] = images(3, 6, 6).numpy() + 0.1
    trial = Trial(model, inputs, maps, TARGETS)
    found = road(trial, percentiles=[50], noise=0)
    hole = maps[0] > 0
    filled = torch.stack([imputed(image, hole, noise=0) for image in inputs])
    np.testing.assert_allclose(
        found.most[0], trial.confidence(filled, TARGETS) - trial.before, atol=1e-6
    )
    metric = quiet(their_road.ROADMostRelevantFirst(50))
    _, removed = metric(inputs, maps, soft(), model, return_visualization=True)
    assert removed.std((2, 3)).max() == 0, "not one pixel is left of the picture"


def test_a_score_does_not_depend_on_the_batch(model, inputs, maps):
    whole = score_maps(model, inputs, maps, TARGETS)
    small = score_maps(model, inputs, maps, TARGETS, batch=2)
    for i in range(3):
        alone = score_maps(model, inputs[i : i + 1], maps[i : i + 1], TARGETS[i : i + 1])
        for name, values in alone.items():
            np.testing.assert_allclose(values[0], whole[name][i], atol=1e-5, err_msg=name)
            np.testing.assert_allclose(small[name][i], whole[name][i], atol=1e-5, err_msg=name)


def test_nothing_is_left_behind(model, inputs, maps):
    kept = inputs.clone(), maps.copy()
    with untouched(model):
        found = score_maps(model, inputs, torch.from_numpy(maps), torch.tensor(TARGETS))
    assert torch.equal(inputs, kept[0])
    np.testing.assert_array_equal(maps, kept[1])
    explained_again = {name for name, metric in METRICS.items() if metric.explains_again}
    assert set(found) == set(METRICS) - explained_again == set(METRICS) - {
        "coherency", "adcc", "arcc",
    }  # fmt: skip
    assert all(values.shape == (3,) for values in found.values())


def test_wrong_arguments(model, inputs, maps):
    def scored(maps=maps, targets=TARGETS, **options):
        return score_maps(model, inputs, maps, targets, **options)

    broken = maps.copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(UsageError, match=r"map 1 holds NaN or infinite values"):
        scored(broken)
    with pytest.raises(UsageError, match=r"expected a map \(32, 32\) for each of 3 images"):
        scored(maps[:, :16])
    with pytest.raises(UsageError, match="expected a class for each of 3 images, got 2"):
        scored(targets=[1, 2])
    with pytest.raises(UsageError, match="the model has 5 classes, so there is no class 9"):
        scored(targets=[1, 2, 9])
    with pytest.raises(UsageError, match="no metric 'insert'; did you mean 'insertion'"):
        scored(metrics=["insert"])
    with pytest.raises(UsageError, match="'coherency' explains the masked images again"):
        scored(metrics=["coherency"])
    with pytest.raises(UsageError, match="percentiles are above 0 and below 100, not 100"):
        road(Trial(model, inputs, maps, TARGETS), percentiles=[50, 100])
    with pytest.raises(UsageError, match="all pixels are removed"):
        imputed(inputs[0], np.ones((32, 32), bool))
