"""Scores of heads that are no classifier's: regions, boxes, regressions, and texts as classes."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection

from dff.activations.outputs import BoxScore, RegressionScore, SegmentationScore
from dff.cli import main
from dff.demo import creatures, model
from dff.errors import ModelError, UsageError
from dff.explain import Explainer
from dff.images import Preprocessing, read_image
from dff.models import ImageTextSimilarity, load_model, with_all_boxes
from tests.test_detectors import DETR, RESNET, detector
from tests.test_headless import TOWERS, built
from tests.toys import ConvNet, images, seeded, untouched

hf = pytest.importorskip("transformers", reason="needs transformers (the test extra)")


class Segmenter(nn.Module):
    """The demo model with its head at every cell: trained, and sure of where animals are."""

    def __init__(self):
        super().__init__()
        self.net = model.load()

    def forward(self, x):
        maps = self.net.maps(x)
        return {"out": nn.functional.conv2d(maps, self.net.fc.weight[:, :, None, None])}


def _others(scene, animal):
    return [other for other in scene.animals if other is not animal]


DEMO = Preprocessing(size=model.INPUT_SIZE, mean=model.MEAN, std=model.STD)


def test_segmentation_scores_a_class_over_its_own_mask_or_a_region():
    scene = creatures.render(6_000_002, species=["zebra", "dragon"], count=2)
    network = Segmenter().eval()
    x = DEMO.to_tensor(read_image(scene.image))[None]
    with torch.no_grad():
        logits = network(x)["out"]
    own = SegmentationScore.of({"out": logits})
    best = logits[0].argmax(0)
    for label in best.unique().tolist():
        expected = logits[0, label][best == label].mean()
        torch.testing.assert_close(own(network(x))[0, label], expected)
    absent = next(label for label in range(12) if label not in best.unique())
    torch.testing.assert_close(own({"out": logits})[0, absent], logits[0, absent].mean())
    for animal in scene.animals:
        score = SegmentationScore(animal.mask)
        region = Explainer(network, layer="net.layer4", preprocessing=DEMO, score=score)
        result = region(scene.image, concepts=6)
        assert result.meaning.kind == "logits"
        split = result.contributions(animal.label)
        total = split.values.sum(1) + split.rest + split.gap
        torch.testing.assert_close(total, split.logit)
        lead = result.photos[0].masks()[int(split.values[0].argmax())]
        here, elsewhere = ((lead & other.mask).sum() for other in (animal, *_others(scene, animal)))
        assert here > elsewhere
    with pytest.raises(UsageError, match="something in it"):
        SegmentationScore(np.zeros((4, 4)))


def _boxed(network, box, **options):
    score = BoxScore(box, network, **options)
    explainer = Explainer(network, score=score)
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    return explainer, explainer(photo, concepts=2)


@pytest.mark.parametrize("name", ["FasterRCNN", "RetinaNet", "FCOS"])
def test_a_box_of_torchvisions_detectors(name):
    network = detector(name)
    x = (
        torch.from_numpy(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).permute(
            2, 0, 1
        )[None]
        / 255
    )
    with torch.no_grad():
        (found,) = with_all_boxes(network)(x)
    box, label, sure = (found[key][0] for key in ("boxes", "labels", "scores"))
    with untouched(network):
        _, result = _boxed(network, box.tolist(), least=0.99)
    assert result.meaning.kind == "boxes"
    assert result.photos[0].logits[label] == pytest.approx(float(sure), abs=1e-4)
    _, elsewhere = _boxed(network, [0, 0, 1, 1], least=0.9)
    assert float(elsewhere.photos[0].logits.max()) == 0
    assert float(result.evidence("gradient", int(label)).values.abs().max()) > 0


def test_a_box_of_a_single_shot_detector():
    network = with_all_boxes(
        seeded(
            lambda: detection.ssdlite320_mobilenet_v3_large(
                weights=None, weights_backbone=None, num_classes=4
            )
        )
    )
    with torch.no_grad():
        output = network(images(1, 3, 320, 320))
    box, label, sure = (output[0][key][0] for key in ("boxes", "labels", "scores"))
    scores = BoxScore(box.tolist(), network, least=0.999)(output)
    assert scores.shape == (1, 4)
    assert float(scores[0, label]) == pytest.approx(float(sure), rel=1e-3)


def test_a_box_of_queries():
    settings = {**DETR, "backbone_config": hf.ResNetConfig(**RESNET)}
    network = built("DetrForObjectDetection", "DetrConfig", settings)
    x = images(1, 3, 64, 96)
    with torch.no_grad():
        output = network(x)
    cx, cy, w, h = output["pred_boxes"][0, 3].tolist()
    box = [96 * (cx - w / 2), 64 * (cy - h / 2), 96 * (cx + w / 2), 64 * (cy + h / 2)]
    scores = BoxScore(box, network, size=(64, 96), least=0.999)(output)
    expected = output["logits"][0, 3].softmax(-1)[:-1]
    torch.testing.assert_close(scores[0], expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(UsageError, match="size="):
        BoxScore(box, network)(output)


@pytest.mark.parametrize("box", [[1, 2, 3], [5, 5, 5, 9]])
def test_what_is_no_box(box):
    with pytest.raises(UsageError, match="x0 < x1"):
        BoxScore(box, nn.Identity())


def test_regression_gives_its_numbers_as_they_are():
    network, x = seeded(ConvNet, classes=2), images(2, 3, 32, 32)
    ready = {"preprocessing": Preprocessing(size=32)}
    by_score = Explainer(network, score=RegressionScore(), class_names=["x", "y"], **ready)
    asked = Explainer(network, output="values", **ready)
    for explainer in (by_score, asked):
        result = explainer(x, concepts=3)
        assert result.meaning.kind == "values"
        torch.testing.assert_close(result.probabilities, network(x).detach())
        split = result.contributions("y" if explainer is by_score else 1)
        torch.testing.assert_close(split.values.sum(1) + split.rest + split.gap, split.logit)
    single = Explainer(seeded(ConvNet, classes=1), output="values", **ready)(x)
    assert single.meaning.predicted(torch.tensor([[0.1]]))[0].tolist() == [0]


TEXTS = {"input_ids": torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])}


@pytest.mark.parametrize(
    ("kind", "config"), [("CLIPModel", "CLIPConfig"), ("SiglipModel", "SiglipConfig")]
)
def test_texts_are_classes(kind, config):
    text = {**TOWERS["text_config"], "projection_size": 24}
    network = built(kind, config, {**TOWERS, "text_config": text})
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(pixel_values=x, **TEXTS).logits_per_image
    compared = ImageTextSimilarity(network, **TEXTS).eval()
    torch.testing.assert_close(compared(x), expected, rtol=1e-4, atol=1e-4)
    result = Explainer(compared, class_names=["a dog", "a cat"])(x, concepts=2)
    assert result.meaning.kind == ("logits" if kind == "CLIPModel" else "multilabel")
    assert {c.name for c in result[0].predictions()} == {"a dog", "a cat"}
    split = result[0].contributions("a cat")
    torch.testing.assert_close(split.values.sum(1) + split.rest + split.gap, split.logit)
    with pytest.raises(UsageError, match="no text"):
        ImageTextSimilarity(network)
    with pytest.raises(ModelError, match="does not compare"):
        ImageTextSimilarity(ConvNet(), **TEXTS)


@pytest.fixture
def clip(tmp_path):
    """A random CLIP with a tokenizer of a few words, as a folder."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers (of transformers)")
    words = {"[pad]": 0, "[start]": 1, "[end]": 2, "a": 3, "dog": 4, "cat": 5, "[unk]": 6}
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[unk]"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.post_processor = tokenizers.processors.TemplateProcessing(
        single="[start] $A [end]", special_tokens=[("[start]", 1), ("[end]", 2)]
    )
    folder = tmp_path / "clip"
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=own, pad_token="[pad]", unk_token="[unk]")
    built("CLIPModel", "CLIPConfig", TOWERS).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_texts_by_name_and_on_the_command_line(clip, tmp_path, capsys):
    loaded = load_model(f"hf:{clip}", texts=["a dog", "a cat"])
    assert loaded.class_names == ("a dog", "a cat")
    from PIL import Image

    Image.fromarray(creatures.render(3).image).save(tmp_path / "x.png")
    words = ["analyze", str(tmp_path / "x.png"), "--model", f"hf:{clip}", "--text", "a dog",
             "--text", "a cat", "-k", "2", "--json", "--out", str(tmp_path / "out")]  # fmt: skip
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert "a dog" in json.dumps(report)
    with pytest.raises(UsageError, match="models of images and texts"):
        load_model("demo", texts=["a dog"])
