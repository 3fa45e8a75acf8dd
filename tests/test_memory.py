"""What a model is handed lies in memory as what it would have met by itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import dff
from dff.activations.memory import input_format, stored_like
from dff.compat import DeepFeatureFactorization
from gradcam import GradCAM
from tests.toys import ConvNet, images, seeded


class Tutorial(nn.Module):
    """The network of PyTorch's CIFAR tutorial, which flattens with ``view``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        x = x.view(-1, 16 * 5 * 5)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


@pytest.fixture(scope="module")
def model():
    return seeded(Tutorial)


@pytest.fixture(scope="module")
def explainer(model):
    prep = dff.Preprocessing(size=32, mean=0.5, std=0.5, fixed=True)
    return dff.Explainer(model, preprocessing=prep)


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def result(explainer, photo):
    return explainer([photo, photo[::-1], photo[:, ::-1]], concepts=3)


@pytest.mark.parametrize(
    "ask",
    [
        lambda result: result.contributions().values,
        lambda result: result.concept_module()(result.photos[0].layer_coefficients[None]),
        lambda result: result.evidence("ablation").values,
        lambda result: result.evidence("sobol").values,
        lambda result: result.evidence("blur").values,
        lambda result: result.evidence("gradient").values,
        lambda result: torch.tensor(result.check().deletion.auc),
        lambda result: torch.from_numpy(result.cam()),
    ],
)
def test_the_tutorials_network_answers_everything(result, ask):
    assert ask(result).isfinite().all()


def test_the_tutorials_network_scores_as_by_itself(model, explainer, photo, result):
    x = explainer.preprocessing.to_tensor(dff.read_image(photo))[None].contiguous()
    assert torch.allclose(result.logits[:1], model(x), atol=1e-5)
    assert result.contributions().relative_gap.max() < 0.01


def test_the_tutorials_network_is_swept_and_made_finer(explainer, photo):
    assert len(explainer.sweep(photo, concepts=range(2, 4)).explanations) == 2
    assert explainer.finer(2)(photo, concepts=2).contributions().values.isfinite().all()


def test_the_tutorials_network_takes_a_dataset(explainer, photo, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(np.roll(photo, 9 * i, 0)).save(tmp_path / f"in/{i}.png")
    run = dff.colocalize(tmp_path / "in", tmp_path / "out", model=explainer, concepts=2)
    assert run.table("images")["error"].null_count == 3


def test_the_tutorials_network_in_the_drop_in_calls(model):
    x = images(2, 3, 32, 32)
    assert len(DeepFeatureFactorization(model, model.conv2)(x, 2)) == 2
    assert np.isfinite(GradCAM(model, [model.conv2])(x)).all()
    assert np.isfinite(GradCAM(model, [model.conv1, model.conv2])(x, 3)).all()


def test_the_layers_output_keeps_its_order(model):
    met = []
    handle = model.pool.register_forward_pre_hook(lambda module, args: met.append(args[0].stride()))
    prep = dff.Preprocessing(size=32, mean=0.5, std=0.5, fixed=True)
    dff.Explainer(model, layer="conv2", preprocessing=prep)(images(1, 3, 32, 32), concepts=2)
    handle.remove()
    assert all(stride[1] > stride[2] > stride[3] for stride in met)


def test_channels_last_models_get_channels_last_images():
    model = seeded(ConvNet)
    assert input_format(model) is torch.contiguous_format
    assert input_format(model.to(memory_format=torch.channels_last)) is torch.channels_last


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3)])
@pytest.mark.parametrize("count", [1, 3])
def test_stored_like_takes_the_order_of_axes(order, count):
    places = [order.index(axis) for axis in range(4)]
    shape = (count, 4, 5, 6)
    model = images(*(shape[axis] for axis in order)).permute(places)
    tensor = images(3, 4, 5, 6)
    stored = stored_like(tensor, model)
    assert torch.equal(stored, tensor)
    if count > 1:
        assert stored.stride() == model.stride()
    else:
        assert stored[:1].stride()[1:] == model.stride()[1:]


def test_stored_like_parts_items_that_share_memory():
    image = images(1, 3, 4, 4)
    stored = stored_like(image.expand(2, -1, -1, -1), image)
    assert stored.view(2, -1).shape == (2, 48)
