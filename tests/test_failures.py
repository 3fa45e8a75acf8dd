"""Every failure of a model says what it met, where, and what to do about it."""

import pytest
import torch
from torch import nn

import dff
from dff.activations.failures import model_errors
from dff.errors import ModelError
from tests.toys import ConvNet, images, seeded


class Lenet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 5), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5))
        self.fc = nn.Linear(16 * 10 * 10, 10)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


class Viewing(Lenet):
    def forward(self, x):
        return self.fc(self.features(x).view(-1, 1600))


class Questioned(ConvNet):
    def forward(self, image, question, *, scale=1.0):
        return super().forward(image) + question * scale


class Listed(ConvNet):
    def forward(self, images):
        if not isinstance(images, list):
            raise TypeError("expected a list of tensors")
        return super().forward(torch.stack(images))


class Clips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.images = nn.Conv2d(3, 8, 1)  # so that it seems to take images
        self.stem = nn.Conv3d(3, 8, (1, 3, 3))
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.stem(x).mean((2, 3, 4)))


class Transposing(ConvNet):
    def forward(self, x):
        return self.fc(self.layer4(self.stem(x)).transpose(1, 2).view(len(x), -1)[:, :12])


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)

    def forward(self, x):
        return self.words(x)


def many_channels():
    return nn.Sequential(nn.Conv2d(7, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def half_a_layer():
    model = ConvNet()
    model.layer4.half()
    return model


def on_meta():
    return ConvNet().to("meta")


def fixed_positions():
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", depth=1)


def hugging_face():
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes))


def questions_in_words():
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    return transformers.ViltForQuestionAnswering(transformers.ViltConfig(**sizes))


def video():
    from torchvision.models.video import r3d_18

    return r3d_18()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        (many_channels, 32, r"layer '0' \(Conv2d\).*images of 7 channels, and was handed 3"),
        (Lenet, 64, r"layer 'fc'.*another size \(it runs at 32 pixels\).*size=32, fixed=True"),
        (Viewing, 64, r"it runs at 32 pixels"),
        (lambda: torch.jit.script(Lenet()), 64, r"cannot be multiplied.*it runs at 32 pixels"),
        (fixed_positions, 64, r"\(it runs at 224 pixels\)"),
        (hugging_face, 64, r"\(it runs at 224 pixels\)"),
        (Questioned, 32, r"takes \(image, question, scale\), and it is handed images alone"),
        (questions_in_words, 64, r"takes \(input_ids, .*it is handed images alone"),
        (Listed, 32, r"it wants a list of images, and was handed a batch"),
        (Clips, 32, r"layer 'stem' \(Conv3d\).*it takes clips or volumes \(n, channels, frames"),
        (half_a_layer, 32, r"layer 'layer4.0'.*its weights are float16 and float32.*float\(\)"),
        (on_meta, 32, r"on the meta device, which holds no numbers"),
        (Transposing, 32, r"a view\(\) in it met axes in another order"),
        (Words, 32, r"it takes whole numbers, as of words, and no images"),
        (lambda: Lenet().features, 8, r"too small for its strides"),
    ],
)
def test_what_was_met_and_what_to_do(make, size, message):
    prep = dff.Preprocessing(size=size, mean=(0.5, 0.5, 0.4), std=0.5)
    with pytest.raises(ModelError, match=message) as raised:
        dff.Explainer(seeded(make), preprocessing=prep)
    assert raised.value.__cause__ is not None
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("\"conv\" not implemented for 'Half'"),
            r"model.float\(\), or another device",
        ),
        (RuntimeError("Expected all tensors to be on the same device, but"), "bring them together"),
        (NotImplementedError("Could not run 'quantized::conv2d.new' with arguments"), "QuantStub"),
    ],
)
def test_what_only_other_machines_say(error, message):
    with (
        pytest.raises(ModelError, match=message),
        model_errors(seeded(ConvNet), images(1, 3, 8, 8)),
    ):
        raise error


def test_a_fault_of_the_models_own_gets_no_advice():
    model = seeded(ConvNet)
    model.fc = nn.Linear(7, 5)
    model.stem[0].forward = lambda: None
    with pytest.raises(ModelError, match="takes 0 positional") as raised:
        dff.Explainer(model)
    assert ";" not in str(raised.value)


def test_messages_cost_no_further_runs_after_the_first():
    """Photos are squashed where their proportions fail, at once and without trying sizes."""
    model = seeded(Lenet)
    runs = []
    model.features.register_forward_hook(lambda *_: runs.append(1))
    prep = dff.Preprocessing(size=32, mean=0.5, std=0.5)
    explainer = dff.Explainer(model, preprocessing=prep, layer="features.2")
    runs.clear()
    photo = (images(40, 80, 3) * 255).byte().numpy()
    explainer(photo, concepts=2)
    assert len(runs) <= 5
