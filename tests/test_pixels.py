"""From pixels to concepts: the bank's own encoding and its gradient; pixels that make a concept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import dff
from dff.attributions import METHODS, TargetLayer, why_not
from dff.concepts import factorize
from dff.errors import BankError, ModelError, UsageError
from dff.maps import upsample
from dff.scoring import ConceptEncoder, encoded
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)


def rows_of(signed: bool, count: int = 40, channels: int = 7, seed: int = 0) -> torch.Tensor:
    rows = images(count, channels, seed=seed)
    return rows - 0.5 if signed else rows


@pytest.fixture(params=[False, True], ids=["nmf", "semi-nmf"])
def bank(request) -> dff.ConceptBank:
    return factorize(rows_of(request.param), 4)[0]


def with_offset(bank):
    return replace(bank, offset=torch.linspace(0, 0.1, bank.components.shape[1]))


# The encoding.


@pytest.mark.parametrize("change", [lambda bank: bank, with_offset], ids=["plain", "offset"])
def test_values_are_those_of_the_bank(bank, change):
    bank = change(bank)
    rows = rows_of(bank.signed, seed=3)
    expected = bank.encode(rows)
    assert bool((expected == 0).any()), "some concepts are absent"
    assert torch.equal(encoded(bank, rows.requires_grad_()), expected)


@pytest.mark.parametrize("change", [lambda bank: bank, with_offset], ids=["plain", "offset"])
def test_the_gradient_is_that_of_finite_differences(bank, change):
    bank = change(bank)
    rows = rows_of(bank.signed, count=6, seed=4).double().requires_grad_()
    # The encoding is linear piece by piece: any step is exact that crosses no edge.
    assert torch.autograd.gradcheck(lambda a: encoded(bank, a), rows, eps=1e-4, atol=1e-4)


def test_gradients_can_be_differentiated_again(bank):
    rows = rows_of(bank.signed, count=3, seed=4).double().requires_grad_()

    def squares(a):
        (gradient,) = torch.autograd.grad(encoded(bank, a).square().sum(), a, create_graph=True)
        return gradient

    assert torch.autograd.gradcheck(squares, rows, eps=1e-4, atol=1e-4)


def test_concepts_that_are_the_same_twice_have_a_gradient(bank):
    twice = replace(bank, components=bank.components[[0, 0, 1, 2]])
    rows = rows_of(bank.signed, count=5).requires_grad_()
    encoded(twice, rows).sum().backward()
    assert bool(torch.isfinite(rows.grad).all())


# The module.


@pytest.mark.parametrize(("kind", "layer"), [(ConvNet, "layer4"), (TokenNet, "blocks.1")])
def test_the_module_gives_what_the_explanation_shows(kind, layer):
    ready = dff.Explainer(seeded(kind), layer=layer, preprocessing=PREP)
    x = images(2, 3, 32, 32)
    found = ready(x, concepts=3)
    encoder = ConceptEncoder(ready.model, layer, found.bank)
    again = ready(x, bank=found.bank)
    with untouched(ready.model):
        batch = torch.stack([photo.image for photo in again.photos])
        maps = encoder.maps(batch)
        strengths = encoder(batch)
    shown = torch.stack([photo.coefficients for photo in again.photos])
    torch.testing.assert_close(maps, shown, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(strengths, maps.mean((2, 3)))


def test_the_gradient_reaches_the_pixels():
    """Of activations that are the pixels themselves, it is that of the encoding."""
    x = images(2, 3, 4, 5).double()
    bank, _ = factorize(x.float().permute(0, 2, 3, 1).reshape(-1, 3), 2)
    encoder = ConceptEncoder(PixelNet().double(), "body", bank)
    assert torch.autograd.gradcheck(encoder, x.requires_grad_(), eps=1e-4, atol=1e-5)
    assert torch.autograd.gradcheck(encoder.maps, x, eps=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [ConvNet, TokenNet])
def test_the_gradient_through_a_network_is_that_of_finite_differences(kind):
    model = seeded(kind).double()
    layer = "layer4" if kind is ConvNet else "blocks.1"
    x = images(1, 3, 32, 32).double()
    maps: list[torch.Tensor] = []
    dff.activations.intercept(model, layer, maps.append, x)
    bank, _ = factorize(maps[0].permute(0, 2, 3, 1).flatten(0, 2).float(), 3)
    encoder = ConceptEncoder(model, layer, bank)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(leaf)[0, 1], leaf)
    along = images(*x.shape, seed=2).double() - 0.5
    step = 1e-5
    with torch.no_grad():
        change = (encoder(x + step * along) - encoder(x - step * along))[0, 1] / (2 * step)
    assert float((gradient * along).sum()) == pytest.approx(float(change), rel=1e-3)
    assert float(change) != 0


def test_the_model_is_given_back_and_modes_do_not_matter():
    model = seeded(ConvNet).train()
    ready = dff.Explainer(model, layer="layer4", preprocessing=PREP)
    result = ready(images(1, 3, 32, 32), concepts=2)
    encoder = ConceptEncoder(model, "layer4", result.bank)
    x = images(1, 3, 32, 32).requires_grad_()
    with untouched(model):
        expected = encoder(x)
        (gradient,) = torch.autograd.grad(expected.sum(), x)
        with torch.inference_mode():
            torch.testing.assert_close(encoder(x.detach()), expected.detach())
        with torch.no_grad():
            assert not encoder(x).requires_grad
    assert float(gradient.abs().sum()) > 0


def test_wrong_banks():
    model = seeded(ConvNet)
    bank = dff.Explainer(model, layer="layer4", preprocessing=PREP)(
        images(1, 3, 32, 32), concepts=2
    ).bank
    with pytest.raises(BankError, match="'layer4'"):
        ConceptEncoder(model, "stem", bank)
    with pytest.raises(BankError, match="12 channels"):
        ConceptEncoder(model, "stem", replace(bank, layer=""))(images(1, 3, 32, 32))


# What a photo is asked.


@pytest.fixture(scope="module")
def two() -> dff.Explanation:
    ready = dff.Explainer(seeded(ConvNet), layer="layer4", preprocessing=PREP)
    return ready(images(2, 3, 32, 32), concepts=3)


def encoder_of(result: dff.Explanation) -> ConceptEncoder:
    tail = result.photos[0].tail
    return ConceptEncoder(tail.model, tail.layer, result.bank)


def test_integrated_gradients_add_up_to_the_strength(two):
    x = torch.stack([photo.image for photo in two.photos])
    encoder = encoder_of(two)
    for concept in range(3):
        with untouched(two.photos[0].tail.model):
            found = two.pixels(concept, settings={"n_steps": 300})
        with torch.no_grad():
            there, nothing = encoder(x)[:, concept], encoder(torch.zeros_like(x))[:, concept]
        torch.testing.assert_close(found.scores, there)
        total = found.values.sum((1, 2, 3))
        torch.testing.assert_close(total - (there - nothing), found.delta, atol=1e-5, rtol=1e-3)
        assert float(found.delta.abs().max()) < 0.02 * float((there - nothing).abs().max())


def test_pixels_of_a_batch_are_those_of_each_photo(two):
    both = two.pixels("Concept 2", "saliency")
    assert both.values.shape == (2, 3, 32, 32)
    for i, alone in enumerate(two):
        torch.testing.assert_close(
            alone.pixels(1, "saliency").values[0], both.values[i], atol=1e-6, rtol=1e-4
        )


@pytest.mark.parametrize("method", ["saliency", "occlusion"])
def test_several_concepts_of_a_photo_take_a_row_each(two, method):
    found = two[0].pixels([2, "Concept 1"], method)
    assert found.values.shape[0] == 2
    for row, concept in enumerate((2, 0)):
        alone = two[0].pixels(concept, method)
        torch.testing.assert_close(found.values[row], alone.values[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize(("kind", "layer"), [(ConvNet, "layer4"), (TokenNet, "blocks.1")])
def test_every_method_answers(kind, layer, method):
    ready = dff.Explainer(seeded(kind), layer=layer, preprocessing=PREP)
    result = ready(images(1, 3, 32, 32), concepts=2)
    if reason := why_not(method, ready.model, TargetLayer(layer)):
        with pytest.raises(ModelError, match=reason[:20]):
            result.pixels(0, method)
        return
    with untouched(ready.model):
        found = result.pixels(0, method)
    assert bool(torch.isfinite(found.values).all())
    assert float(found.values.abs().max()) > 0


@pytest.mark.parametrize(("kind", "layer"), [(ConvNet, "layer4"), (TokenNet, "blocks.1")])
def test_gradient_times_activation_is_the_concept_s_own_map(kind, layer):
    """The encoding doubles where activations do, so that it is the sum of the two's product."""
    ready = dff.Explainer(seeded(kind), layer=layer, preprocessing=PREP)
    result = ready(images(1, 3, 32, 32), concepts=2)
    photo = result.photos[0]
    cells = photo.coefficients / photo.coefficients[0].numel()
    expected = upsample(cells, (32, 32), photo.layer_grid)[0]
    found = result.pixels(0, "gradient-x-activation").values[0, 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_pixels_in_the_concepts_of_another_photo(two):
    ready = dff.Explainer(seeded(ConvNet), layer="layer4", preprocessing=PREP)
    other = ready(images(1, 3, 32, 32, seed=9), bank=two.bank)
    found = other.pixels(0, "saliency")
    mean = float(other.photos[0].coefficients[0].mean())
    assert float(found.scores[0]) == pytest.approx(mean, rel=1e-4)


def test_wrong_questions(two):
    with pytest.raises(UsageError, match="no concept 3: in Python they count from 0 to 2"):
        two.pixels(3)
    with pytest.raises(UsageError, match="no concept named 'sky', but Concept 1"):
        two.pixels("sky")
    with pytest.raises(UsageError, match="no method 'salience'; did you mean 'saliency'"):
        two.pixels(0, "salience")
    free = dff.Explainer(
        seeded(ConvNet), layer="layer4", preprocessing=dff.Preprocessing(size=32, mean=0, std=1)
    )
    photos = [np.zeros((32, 40, 3), np.uint8) + 9, np.zeros((32, 64, 3), np.uint8) + 90]
    with pytest.raises(UsageError, match="ask each alone"):
        free(photos, concepts=2).pixels(0)
