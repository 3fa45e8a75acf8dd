"""Curves, agreement and randomisation: analytic values, outside references, whole checks."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

import dff
from dff.errors import LayerError, UsageError
from dff.metrics import Curve, pixel_curve
from dff.scoring.faithfulness import (
    agreement,
    concept_curve,
    randomized,
    similarity,
)
from tests.toys import ConvNet, TokenNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)


def log_odds(presence):
    """Logits whose softmax is (presence, 1 - presence)."""
    p = presence.clamp(1e-6, 1 - 1e-6)
    return torch.stack([p.log(), (1 - p).log()], 1)


def test_curves_of_concepts_step_down_and_up_in_order():
    w = torch.tensor([0.2, 0.5, 0.1])[:, None, None]

    def forward(x):
        return log_odds(x.sum((1, 2, 3)))

    out = concept_curve(forward, w, [1, 0, 2], 0)
    np.testing.assert_allclose(out.shares, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(out.values, [0.8, 0.3, 0.1, 0], atol=1e-5)
    assert out.auc == pytest.approx((0.4 + 0.3 + 0.1) / 3, abs=1e-5)
    into = concept_curve(forward, w, [1, 0, 2], 0, mode="insertion")
    np.testing.assert_allclose(into.values, [0, 0.5, 0.7, 0.8], atol=1e-5)
    worse = concept_curve(forward, w, [2, 0, 1], 0)
    assert worse.auc > out.auc


def test_the_area_of_a_curve_is_that_of_its_trapezoids():
    shares, values = np.linspace(0, 1, 7), np.random.default_rng(0).random(7)
    assert Curve(shares, values).auc == pytest.approx(sum((values[1:] + values[:-1]) / 12))


def test_curves_of_pixels_take_the_hottest_first():
    image = torch.zeros(3, 8, 8)
    image[:, 2:4, 2:6] = 1.0
    hot = image[0].numpy()

    def score(x):
        return log_odds(x[:, 0].sum((1, 2)) / 16)

    good = pixel_curve(score, image, hot, 0, steps=8)
    np.testing.assert_allclose(good.values, [0.5] + [0] * 8, atol=1e-5)
    bad = pixel_curve(score, image, -hot, 0, steps=8)
    np.testing.assert_allclose(bad.values, [0.5] * 8 + [0], atol=1e-5)
    put = pixel_curve(score, image, hot, 0, steps=8, mode="insertion", batch=2)
    assert put.values[-1] == pytest.approx(0.5, abs=1e-5)
    assert put.values[1] > 0.5, "the object is whole, over what is left of its blur"
    kept = image.clone()
    pixel_curve(score, image, hot, 0, steps=3, mode="insertion")
    assert torch.equal(image, kept)


def test_agreement_is_the_mean_correlation_and_the_share_of_equal_classes():
    a, b = images(5, 7), images(5, 7, seed=1)
    found = agreement(a, b)
    expected = np.mean(
        [pearsonr(x, y).statistic for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    )
    assert found.correlation == pytest.approx(expected)
    assert found.top1 == float((a.argmax(1) == b.argmax(1)).double().mean())
    same = agreement(a, 3 * a + 1)
    assert same.correlation == pytest.approx(1)
    assert same.top1 == 1


def test_similarity_matches_concepts_whatever_their_order():
    maps = images(3, 4, 5).numpy()
    assert similarity(maps, 2 * maps[[2, 0, 1]] + 1) == pytest.approx(1)
    assert abs(similarity(maps, images(3, 4, 5, seed=8).numpy())) < 0.6
    assert similarity(maps, np.ones_like(maps)) == 0


def test_randomized_models_keep_their_values_but_not_their_places():
    model = seeded(ConvNet)
    state = torch.random.get_rng_state()
    with untouched(model):
        other = randomized(model, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours.flatten().sort().values, theirs.flatten().sort().values)
        assert torch.equal(ours, theirs) == (ours.dim() < 2), name
    again = randomized(model, seed=3)
    assert torch.equal(other.fc.weight, again.fc.weight)


@pytest.mark.parametrize("kind", [ConvNet, TokenNet])
def test_a_whole_check(kind):
    ready = dff.Explainer(seeded(kind), preprocessing=PREP, class_names=list("abcde"))
    result = ready(images(2, 3, 32, 32), concepts=3)
    with untouched(ready.model):
        check = result[1].check("b")
    assert check.target == "b"
    assert check.deletion.values[0] == pytest.approx(float(result.probabilities[1, 1]), abs=1e-5)
    assert check.insertion.values[-1] == pytest.approx(float(result.probabilities[1, 1]), abs=1e-5)
    assert check.pixel_deletion.values[0] == pytest.approx(
        float(result.probabilities[1, 1]), abs=1e-4
    )
    assert check.deletion.values[-1] == pytest.approx(check.insertion.values[0], abs=1e-5)
    assert -1 <= check.agreement.correlation <= 1
    assert check.gap < 0.01
    assert check.plot().size == (720, 400)
    figures = check.as_dict()
    assert figures["concept_deletion_auc"] == check.deletion.auc
    assert result[1].check("b").as_dict() == figures, "the same figures every time"


def test_contributions_order_concepts_better_than_chance():
    ready = dff.Explainer(seeded(ConvNet), preprocessing=PREP)
    for seed in range(5):
        check = ready(images(1, 3, 32, 32, seed=seed) * 6 - 3, concepts=5).check()
        assert check.deletion.auc < check.random_deletion
        assert check.insertion.auc > check.random_insertion


def test_concepts_of_a_shuffled_model_that_cannot_be_factorized_are_no_figure():
    class Particular(ConvNet):
        """Its activations are zero as soon as the weights are not those that it began with."""

        def __init__(self):
            super().__init__()
            self.first = self.fc.weight.detach().clone()
            self.gate = nn.ReLU()

        def forward(self, x):
            same = torch.equal(self.fc.weight, self.first)
            maps = self.gate(self.layer4(self.stem(x)) * same)
            return self.fc(maps.mean((2, 3)))

    model = seeded(Particular)
    result = dff.Explainer(model, layer="gate", preprocessing=PREP)(
        images(1, 3, 32, 32), concepts=2
    )
    assert result.check().as_dict()["randomized_similarity"] is None


def test_wrong_arguments():
    w = torch.ones(2, 1, 1)
    with pytest.raises(UsageError, match=r"all 2 concepts in some order, got \[0, 0\]"):
        concept_curve(lambda x: x, w, [0, 0], 0)
    with pytest.raises(UsageError, match="mode is one of deletion, insertion, not 'delete'"):
        concept_curve(lambda x: x, w, [0, 1], 0, mode="delete")
    with pytest.raises(UsageError, match=r"expected a heatmap 8 x 8, got \(4, 4\)"):
        pixel_curve(lambda x: x, torch.zeros(3, 8, 8), np.zeros((4, 4)), 0)
    with pytest.raises(UsageError, match=r"expected two tensors \(images, classes\)"):
        agreement(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(UsageError, match="do not compare"):
        similarity(np.zeros((2, 3, 3)), np.zeros((2, 4, 4)))
    ready = dff.Explainer(seeded(TokenNet), layer="blocks.2", preprocessing=PREP)
    with pytest.raises(LayerError, match="has no say"):
        ready(images(1, 3, 32, 32), concepts=2).check()
