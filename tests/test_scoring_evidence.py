"""Ablation, blur ablation, Sobol indices, gradient x coefficient: analytic values and models."""

import pytest
import torch

import dff
from dff.errors import LayerError, UsageError
from dff.explain.questions.evidence import EVIDENCE
from dff.scoring import ablation, blur_ablation, gradient_times_coefficient, sobol
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0, std=1, fixed=True)
ONE = torch.ones(1, 1)


def totals(w):
    """The sum of each concept's coefficients, (m, k)."""
    return w.sum((2, 3))


def test_ablation_takes_one_concept_out_at_a_time():
    w = images(3, 2, 2)
    values = ablation(lambda x: totals(x).prod(1, keepdim=True) + 5, w, ONE)
    torch.testing.assert_close(values, w.sum((1, 2)).prod().expand(1, 3), msg="all needed")
    weights = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    values = ablation(lambda x: totals(x)[:, :2], w, weights)
    own = w.sum((1, 2))
    expected = torch.stack([own * torch.tensor([1, 0, 0]), 2 * own * torch.tensor([0, 1, 0])])
    torch.testing.assert_close(values, expected)


def test_gradient_times_coefficient_is_analytic():
    w = images(3, 2, 2)
    own = w.sum((1, 2))
    values = gradient_times_coefficient(lambda x: totals(x).square().sum(1, keepdim=True), w, ONE)
    torch.testing.assert_close(values[0], 2 * own**2)
    with torch.no_grad():
        again = gradient_times_coefficient(lambda x: totals(x)[:, :1], w, ONE)
    torch.testing.assert_close(again[0], own * torch.tensor([1.0, 0, 0]))
    flat = gradient_times_coefficient(lambda x: torch.ones(len(x), 1), w, ONE)
    assert torch.equal(flat, torch.zeros(1, 3))


def test_sobol_indices_of_the_ishigami_function():
    """Its total indices are known: 0.5576, 0.4424, 0.2437 (Ishigami & Homma 1990)."""

    def ishigami(x):
        x = (2 * totals(x) - 1) * torch.pi
        return (x[:, 0].sin() * (1 + 0.1 * x[:, 2] ** 4) + 7 * x[:, 1].sin() ** 2)[:, None]

    values = sobol(ishigami, torch.ones(3, 1, 1), ONE, designs=4096)
    torch.testing.assert_close(values, torch.tensor([[0.5576, 0.4424, 0.2437]]), atol=0.02, rtol=0)


def test_sobol_indices_of_a_sum_are_its_variances_and_repeat():
    w = torch.tensor([1.0, 2.0, 0.0])[:, None, None]
    state = torch.random.get_rng_state()
    values = sobol(lambda x: totals(x).sum(1, keepdim=True), w, ONE, designs=1024)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(values, torch.tensor([[0.2, 0.8, 0.0]]), atol=0.02, rtol=0)
    again = sobol(lambda x: totals(x).sum(1, keepdim=True), w, ONE, designs=1024)
    other = sobol(lambda x: totals(x).sum(1, keepdim=True), w, ONE, designs=1024, seed=1)
    assert torch.equal(values, again)
    assert not torch.equal(values, other)
    assert torch.equal(sobol(lambda x: torch.ones(len(x), 1), w, ONE), torch.zeros(1, 3))
    with pytest.raises(UsageError, match="designs is a power of 2 from 2 on, not 30"):
        sobol(lambda x: totals(x), w, ONE, designs=30)


def test_blur_ablation_measures_what_a_region_was_worth():
    image = torch.zeros(3, 32, 32)
    image[:, 8, 8] = 30.0
    masks = torch.zeros(2, 32, 32)
    masks[0, :16] = 1
    masks[1, 16:] = 1

    def peak(x):
        return x.amax((1, 2, 3))[:, None]

    kept = image.clone()
    values = blur_ablation(peak, image, masks, ONE)
    assert torch.equal(image, kept)
    assert values[0, 0] > 25, "blurring the dot takes nearly all of its height"
    assert values[0, 1] == 0
    even = blur_ablation(peak, torch.ones(3, 32, 32), masks, ONE)
    torch.testing.assert_close(even, torch.zeros(1, 2), msg="an even picture has nothing to blur")
    with pytest.raises(UsageError, match=r"expected masks \(k, 32, 32\), got \(2, 8, 8\)"):
        blur_ablation(peak, image, masks[:, :8, :8], ONE)


@pytest.mark.parametrize("kind", EVIDENCE)
@pytest.mark.parametrize("model", [ConvNet, TokenNet])
def test_each_is_one_line_to_call(kind, model):
    ready = dff.Explainer(seeded(model), preprocessing=PREP, class_names=list("abcde"))
    result = ready(images(2, 3, 32, 32), concepts=3)
    with untouched(ready.model):
        found = result[1].evidence(kind, ["a", "c"])
    assert found.kind == kind
    assert found.targets == ("a", "c")
    assert found.values.shape == (2, 3)
    assert found.values.isfinite().all()
    versus = result[1].evidence(kind, "a", versus="c")
    assert versus.targets == ("a - c",)
    if kind not in ("sobol", "contributions"):
        torch.testing.assert_close(
            versus.values[0], found.values[0] - found.values[1], rtol=1e-3, atol=1e-5
        )


def test_linear_heads_make_three_kinds_of_evidence_agree():
    result = dff.Explainer(seeded(ConvNet), preprocessing=PREP)(images(1, 3, 32, 32), concepts=4)
    exact = result.contributions(range(5)).values
    for kind in ("ablation", "gradient"):
        torch.testing.assert_close(
            result.evidence(kind, range(5)).values, exact, rtol=1e-3, atol=1e-5
        )
    weights = exact**2 / (exact**2).sum(1, keepdim=True)
    found = result.evidence("sobol", range(5)).values
    torch.testing.assert_close(found, weights, atol=0.1, rtol=0)


def test_blur_finds_the_region_of_the_concept():
    ready = dff.Explainer(seeded(PixelNet), preprocessing=PREP)
    x = torch.zeros(1, 3, 32, 32)
    x[0, 0, 4:12, 4:12] = 1.0
    x[0, 2, 18:30, 14:28] = 1.0
    result = ready(x, concepts=2)
    values = result.evidence("blur", 0).values
    assert values.abs().max() < 0.05, "a mean over the picture hardly changes when it is blurred"


def test_refusals():
    ready = dff.Explainer(seeded(TokenNet), layer="blocks.2", preprocessing=PREP)
    with pytest.raises(LayerError, match="has no say"):
        ready(images(1, 3, 32, 32), concepts=2).evidence("ablation")
    result = dff.Explainer(seeded(ConvNet), preprocessing=PREP)(images(1, 3, 32, 32), concepts=2)
    with pytest.raises(UsageError, match="no evidence 'ablate'; did you mean 'ablation'"):
        result.evidence("ablate")
