"""From pixels to concepts: the bank's own encoding and its gradient; pixels that make a concept."""

from dataclasses import replace

import pytest
import torch

import dff
from dff.concepts import factorize
from dff.errors import BankError
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
