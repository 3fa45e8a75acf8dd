import dataclasses
from collections import namedtuple

import pytest
import torch
from torch import nn

from dff.activations import STOP, Appended, intercept, observe, record, resolve_layer
from dff.activations.borrowing import borrowed
from dff.errors import LayerError, UsageError
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched


def test_capture_returns_the_layer_output_and_the_logits():
    model, x = seeded(ConvNet), images(2, 3, 32, 24)
    kept = []
    with untouched(model):
        logits = intercept(model, "layer4", kept.append, x)
    assert torch.equal(logits, model(x).detach())
    assert torch.equal(kept[0], model.layer4(model.stem(x)).detach())
    assert not logits.requires_grad


def test_stop_ends_the_pass_at_the_layer():
    model = seeded(ConvNet)
    ran = []
    handle = model.avgpool.register_forward_hook(lambda *_: ran.append(True))
    assert intercept(model, model.layer4, lambda maps: STOP, images(1, 3, 16, 16)) is None
    handle.remove()
    assert not ran


def test_replace_makes_the_model_go_on_with_other_maps():
    model = seeded(ConvNet)
    logits = intercept(model, "layer4", torch.zeros_like, images(1, 3, 16, 16))
    torch.testing.assert_close(logits, model.fc.bias[None].detach())


@pytest.mark.parametrize(("kind", "layer"), [(ConvNet, "layer4"), (TokenNet, "blocks.1")])
def test_appended_items_are_classified_beside_the_batch(kind, layer):
    model, x = seeded(kind), images(3, 3, 32, 32)
    plain = model(x).detach()

    def append_reversed(maps):
        return Appended(maps.flip(0), torch.tensor([2, 1, 0]))

    with untouched(model):
        logits = intercept(model, layer, append_reversed, x)
    torch.testing.assert_close(logits, torch.cat([plain, plain.flip(0)]))


def test_appended_items_carry_the_class_token_of_image_0_by_default():
    model, x = seeded(TokenNet), images(2, 3, 32, 32)
    logits = intercept(model, "blocks.1", lambda maps: Appended(maps[:1]), x)
    torch.testing.assert_close(logits[2], logits[0])
    other = intercept(model, "blocks.1", lambda maps: Appended(maps[:1], torch.tensor([1])), x)
    assert not torch.allclose(other[2], logits[0], atol=1e-4)


@pytest.mark.parametrize(("kind", "layer"), [(ConvNet, "layer4"), (TokenNet, "blocks.1")])
def test_gradients_start_at_the_layer(kind, layer):
    model, x = seeded(kind), images(2, 3, 32, 32)
    kept = []
    with untouched(model):
        logits = intercept(model, layer, kept.append, x, grad=True)
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), kept)
    assert kept[0].requires_grad
    assert gradient.shape == kept[0].shape
    if kind is ConvNet:
        expected = (model.fc.weight[1] / 48).detach()[None, :, None, None]
        rows, cols = gradient.shape[2:]
        torch.testing.assert_close(gradient, (expected * 48 / (rows * cols)).expand_as(gradient))
    assert kept[0].grad_fn is None or kind is TokenNet, "recorded before the layer"


def test_gradients_of_several_layers():
    model, x = seeded(ConvNet), images(1, 3, 16, 16)
    kept = []
    logits = intercept(model, ["layer4", "stem"], kept.append, x, grad=True)
    early, late = torch.autograd.grad(logits[0, 0], kept)
    assert early.shape == (1, 8, 8, 8)
    assert late.shape == (1, 12, 4, 4)
    full = model.stem(x).detach().requires_grad_()
    reference = model.fc(model.avgpool(model.layer4(full)).flatten(1))
    torch.testing.assert_close(early, torch.autograd.grad(reference[0, 0], full)[0])


@pytest.mark.parametrize("grad", [False, True])
def test_what_is_kept_survives_in_place_operations_further_on(grad):
    model, x = seeded(ConvNet), images(1, 3, 16, 16)
    kept = []
    intercept(model, "layer4.1", kept.append, x, grad=grad)
    assert (kept[0] < 0).any()


def test_a_model_in_train_mode_is_analysed_in_eval_mode_and_given_back():
    model, x = seeded(ConvNet), images(2, 3, 16, 16)
    expected = model(x).detach()
    model.train()
    model.stem[1].eval()
    with untouched(model):
        torch.testing.assert_close(intercept(model, "layer4", lambda maps: None, x), expected)
    assert model.training
    assert not model.stem[1].training


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind_after_a_failure(error):
    model = seeded(ConvNet).train()

    def fail(maps):
        raise error("on the way")

    with untouched(model), pytest.raises(error, match="on the way"):
        intercept(model, "layer4", fail, images(1, 3, 16, 16), grad=True)


def test_frozen_parameters_stay_frozen():
    model = seeded(ConvNet).requires_grad_(False)
    kept = []
    with untouched(model):
        logits = intercept(model, "layer4", kept.append, images(1, 3, 16, 16), grad=True)
    assert torch.autograd.grad(logits[0, 0], kept)[0].abs().sum() > 0


class _Wrapped(nn.Module):
    def __init__(self, wrap, unwrap):
        super().__init__()
        self.net = PixelNet()
        self.wrap = _Wrap(wrap)
        self.unwrap = unwrap

    def forward(self, x):
        return self.net.fc(self.unwrap(self.wrap(x)).mean((2, 3)))


class _Wrap(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(x)


@dataclasses.dataclass
class _Output:
    state: torch.Tensor
    note: str = "kept"


_Pair = namedtuple("_Pair", "size state")


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda x: (x, "kept"), lambda out: out[0]),
        (lambda x: {"size": 3, "state": x}, lambda out: out["state"]),
        (_Output, lambda out: out.state if out.note == "kept" else None),
        (lambda x: _Pair(torch.tensor([1]), x), lambda out: out.state),
    ],
    ids=["tuple", "dict", "dataclass", "namedtuple"],
)
def test_wrapped_outputs_are_written_back_wrapped(wrap, unwrap):
    model = seeded(_Wrapped, wrap, unwrap)
    logits = intercept(model, "wrap", lambda maps: Appended(maps * 0), images(1, 3, 8, 8))
    torch.testing.assert_close(logits[1], model.net.fc.bias.detach())


def test_an_output_without_a_tensor():
    model = seeded(_Wrapped, lambda x: ("no", x.shape), lambda out: torch.zeros(1, 3, 1, 1))
    with pytest.raises(LayerError, match="without a floating-point tensor"):
        intercept(model, "wrap", lambda maps: None, images(1, 3, 8, 8))


def test_reshape_transform_callables_are_read_and_written_back():
    model, x = seeded(TokenNet), images(2, 3, 32, 32)

    def transform(tokens):
        return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

    kept = []
    logits = intercept(
        model, "blocks.1", lambda m: kept.append(m) or Appended(m, torch.arange(2)), x,
        grad=True, layout=transform,
    )  # fmt: skip
    plain = []
    reference = intercept(model, "blocks.1", plain.append, x, grad=True)
    torch.testing.assert_close(kept[0], plain[0])
    torch.testing.assert_close(logits, torch.cat([reference, reference]))
    traced, recognised = (
        torch.autograd.grad(out[0, 0], maps)[0]
        for out, maps in ((logits, kept), (reference, plain))
    )
    torch.testing.assert_close(traced, recognised)


@pytest.mark.parametrize(
    ("transform", "message"),
    [(lambda t: t[:, 0], "must return maps"), (lambda t: t[..., None] * 2 + 0.5, "only rearrange")],
)
def test_reshape_transforms_that_are_none(transform, message):
    with pytest.raises(LayerError, match=message):
        intercept(
            seeded(TokenNet), "blocks.0", lambda m: None, images(1, 3, 32, 32), layout=transform
        )


def test_layer_names():
    model = seeded(ConvNet)
    assert resolve_layer(model, model.layer4[0]) == ("layer4.0", model.layer4[0])
    with pytest.raises(LayerError, match="no layer 'layer5'; did you mean 'layer4'"):
        resolve_layer(model, "layer5")
    with pytest.raises(LayerError, match="not part of the ConvNet"):
        resolve_layer(model, nn.ReLU())
    with untouched(model), pytest.raises(LayerError, match="did you mean"):
        intercept(model, ["layer4", "layr4"], lambda m: None, images(1, 3, 8, 8))


def test_layers_that_cannot_be_intercepted():
    model = seeded(ConvNet)
    with untouched(model), pytest.raises(LayerError, match=r"'fc' has no grid.*\(1, 5\)"):
        intercept(model, "fc", lambda m: None, images(1, 3, 16, 16))
    model.unused = nn.Conv2d(3, 3, 1)
    with untouched(model), pytest.raises(LayerError, match="'unused' did not run"):
        intercept(model, "unused", lambda m: None, images(1, 3, 16, 16))
    model.stem[2] = model.layer4[2]
    with untouched(model), pytest.raises(LayerError, match="more than once"):
        intercept(model, "stem.2", lambda m: None, images(1, 3, 16, 16))


def test_inputs_may_be_arguments():
    model, x = seeded(ConvNet), images(1, 3, 16, 16)
    for inputs in ({"x": x}, (x,)):
        torch.testing.assert_close(intercept(model, "layer4", lambda m: None, inputs), model(x))
    with pytest.raises(UsageError, match="no input is an image"):
        intercept(model, "layer4", lambda m: None, {"x": 3})


def test_observe_visits_modules_as_they_finish():
    model, seen = seeded(ConvNet).train(), []
    with untouched(model):
        observe(model, lambda name, module, out: seen.append(name), images(1, 3, 16, 16))
    assert seen[:4] == ["stem.0", "stem.1", "stem.2", "stem"]
    assert seen[-1] == "fc"


def test_borrowed_restores_after_an_error():
    model = seeded(ConvNet).train()

    def work():
        assert not model.fc.training
        raise ValueError("x")

    with untouched(model), pytest.raises(ValueError, match="x"):
        borrowed(model, work)


def test_tokens_of_no_grid_say_what_was_tried():
    tokens = nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 33, 1))  # (1, 33, 48)
    with pytest.raises(LayerError, match=r"\(as tokens, with 0 to 16 class and register tokens"):
        intercept(tokens, "1", lambda maps: None, images(1, 3, 6, 8))


@pytest.mark.parametrize("train", [False, True])
def test_record_keeps_what_layers_put_out_of_any_shape(train):
    model, x = seeded(ConvNet).train(train), images(2, 3, 16, 16)
    with untouched(model), torch.no_grad():
        output, (pooled, stem) = record(model, ["avgpool", "stem"], x)
    (stem_gradient,) = torch.autograd.grad(output[:, 1].sum(), stem)
    assert pooled.shape == (2, 12, 1, 1)
    assert stem.is_leaf
    assert stem.min() >= 0
    later = model.eval().fc(model.avgpool(model.layer4(stem)).flatten(1))
    torch.testing.assert_close(later, output)
    assert stem_gradient.abs().sum() > 0


def test_record_keeps_what_an_inplace_layer_was_handed():
    model, x = seeded(ConvNet), images(1, 3, 16, 16)
    with untouched(model):
        _, ((taken,),) = record(model, ["layer4.2"], x, taken_in=True)
        _, (put_out,) = record(model, ["layer4.2"], x, grad=False)
    assert taken.min() < 0
    assert not put_out.requires_grad
    torch.testing.assert_close(taken.relu(), put_out)
    with pytest.raises(LayerError, match="did you mean 'layer4'"):
        record(model, ["layer44"], x)
