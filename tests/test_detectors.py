"""Detectors: of each class the score of its best box, or a score= of one's own."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import detection

from dff.activations.layers import probe_input, survey
from dff.activations.outputs.boxes import best_boxes, best_queries
from dff.errors import ModelError, UsageError
from dff.explain import Explainer
from dff.images import Preprocessing
from dff.models import describe, with_all_boxes
from tests.test_headless import FED, built
from tests.toys import seeded, untouched

hf = pytest.importorskip("transformers", reason="needs transformers (the test extra)")

SMALL = {"min_size": 64, "max_size": 96, "weights": None, "weights_backbone": None,
         "num_classes": 4}  # fmt: skip
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic",
          "out_features": ["stage2"]}  # fmt: skip
DETR = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "num_queries": 7, "num_labels": 5}  # fmt: skip


class Backbone(nn.Sequential):
    """Two strided convolutions, where the named models have a ResNet-50 and a pyramid."""

    out_channels = 32

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )


def detector(name):
    """A detector of a class of torchvision's."""
    if name == "FasterRCNN":
        return seeded(lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(**SMALL))
    sizes = ((16, 32),) if name == "RetinaNet" else ((8,),)
    ratios = ((0.5, 1.0),) if name == "RetinaNet" else ((1.0,),)
    anchors = detection.anchor_utils.AnchorGenerator(sizes, ratios)
    options = {"num_classes": 4, "min_size": 64, "max_size": 96, "anchor_generator": anchors}
    return seeded(lambda: getattr(detection, name)(Backbone(), **options))


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)


@pytest.mark.parametrize("name", ["FasterRCNN", "RetinaNet", "FCOS"])
def test_torchvision_detectors(name, photo):
    model = detector(name)
    with untouched(model):
        explainer = Explainer(model)
        result = explainer(photo, concepts=3)
        cam = result.cam()
    assert explainer.preprocessing == Preprocessing(size=64, mean=0.0, std=1.0)
    assert result.meaning.kind == "boxes"
    assert "of each class the score of its best box" in repr(result)
    assert result.scores.shape == (3, 4)
    assert cam.shape == photo.shape[:2]
    assert float(result.evidence("gradient").values.abs().max()) > 0
    # Where the model itself returns a box, it is the one that is scored.
    with torch.no_grad():
        (found,) = model(result.photos[0].image[None])
    assert len(found["labels"]) or name != "FasterRCNN"
    for label in set(found["labels"].tolist()):
        score = found["scores"][found["labels"] == label].max()
        torch.testing.assert_close(result.probabilities[0, label], score, rtol=0, atol=1e-5)
    best = result.predictions()[0]
    assert best.probability == pytest.approx(best.logit)
    assert best.probability > 0
    split = result.contributions()
    torch.testing.assert_close(split.values.sum(1) + split.rest + split.gap, split.logit)


def test_a_single_shot_detector(photo):
    model = seeded(
        lambda: detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=4
        )
    )
    explainer = Explainer(model, layer="backbone.features.1")
    assert explainer.preprocessing == Preprocessing(size=320, mean=0.0, std=1.0, fixed=True)
    result = explainer(photo, concepts=2, cam=False)
    assert result.meaning.kind == "boxes"
    assert result.probabilities.shape == (1, 4)


def test_a_detector_by_a_score_of_ones_own(photo):
    model = detector("RetinaNet")
    model.score_thresh = 0.0
    result = Explainer(
        model,
        score=lambda output: torch.stack([found["scores"].amax() for found in output]),
        output="probabilities",
        class_names=["an object"],
    )(photo, concepts=2)
    whole = Explainer(model)(photo, concepts=2)
    assert result.meaning.kind == "binary"
    torch.testing.assert_close(
        result.probabilities[0, 0], whole.probabilities[0].max(), rtol=0, atol=1e-6
    )


def test_thresholds_are_left_aside_without_a_touch_of_the_model():
    for name, holder in (
        ("FasterRCNN", lambda m: m.roi_heads),
        ("RetinaNet", lambda m: m),
    ):
        model = detector(name)
        before = holder(model).score_thresh
        view = with_all_boxes(model)
        assert holder(view).score_thresh == 0
        assert holder(model).score_thresh == before == 0.05
        assert view.backbone is model.backbone
        assert [id(p) for p in view.parameters()] == [id(p) for p in model.parameters()]
    plain = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert with_all_boxes(plain) is plain


def test_the_best_box_of_each_class():
    def found(scores, labels):
        return {"scores": torch.tensor(scores, requires_grad=True), "labels": torch.tensor(labels),
                "boxes": torch.zeros(len(scores), 4)}  # fmt: skip

    none = found([], [])
    none["labels"] = none["labels"].long()
    output = [found([0.3, 0.9, 0.5], [1, 1, 3]), none]
    scores = best_boxes(output, classes=4)
    assert scores.tolist() == [[0, pytest.approx(0.9), 0, 0.5], [0] * 4]
    scores[0, 1].backward()
    assert output[0]["scores"].grad.tolist() == [0, 1, 0]


def test_the_best_query_of_each_class():
    logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]])
    expected = logits.softmax(-1)[0]
    scores = best_queries({"logits": logits}, name="logits", empty=True)
    torch.testing.assert_close(scores, torch.stack([expected[0, 0], expected[1, 1]])[None])
    scores = best_queries({"logits": logits}, name="logits", empty=False)
    torch.testing.assert_close(scores, torch.tensor([[2.0, 3.0, 1.0]]).sigmoid())


def detr():
    return built("DetrForObjectDetection", "DetrConfig",
                 {**DETR, "backbone_config": hf.ResNetConfig(**RESNET)})  # fmt: skip


def yolos():
    settings = {**FED, "image_size": [64, 64], "num_detection_tokens": 7, "num_labels": 5}
    return built("YolosForObjectDetection", "YolosConfig", settings)


@pytest.mark.parametrize(
    ("build", "layer"), [(detr, "model.backbone"), (yolos, "vit.embeddings.patch_embeddings")]
)
def test_queries_are_no_positions(build, layer, photo):
    model = build()
    layer = next(name for name, _ in model.named_modules() if name.startswith(layer))
    prep = Preprocessing(size=64, fixed=True)
    with untouched(model):
        explainer = Explainer(model, preprocessing=prep)
    assert explainer.meaning.kind == "boxes"
    assert explainer.meaning.classes == 5
    result = explainer(photo, concepts=2)
    with torch.no_grad():
        logits = model(result.photos[0].image[None]).logits
    assert logits.shape == (1, 7, 6)
    expected = logits.softmax(-1)[..., :-1].amax(1)
    torch.testing.assert_close(result.probabilities, expected, rtol=0, atol=1e-6)


def test_what_is_no_score_of_boxes_is_refused(photo):
    with pytest.raises(UsageError, match="cannot be read as multilabel: it is boxes"):
        Explainer(yolos(), preprocessing=Preprocessing(size=64, fixed=True), output="multilabel")

    class Mute(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            scores = self.conv(x).mean((2, 3))
            return [{"boxes": s, "labels": s.long(), "scores": s} for s in scores]

    with pytest.raises(ModelError, match="nothing says of how many classes: give a score="):
        Explainer(seeded(Mute), preprocessing=Preprocessing(size=32))


def test_a_photo_without_a_box_has_no_gradient():
    class Edgy(nn.Module):
        """Finds one box of class 1 in all that is not flat."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.num_classes = 3

        def forward(self, x):
            scores = self.conv(x).mean((1, 2, 3)).sigmoid()
            kept = [
                scores[i][None] if image.std() > 0.5 else scores.new_zeros(0)
                for i, image in enumerate(x)
            ]
            return [{"boxes": s, "labels": torch.ones_like(s).long(), "scores": s} for s in kept]

    explainer = Explainer(seeded(Edgy), preprocessing=Preprocessing(size=32, mean=0, std=1))
    assert explainer.unscored is None
    result = explainer(np.full((32, 32, 3), 99, np.uint8), concepts=1)
    assert result.probabilities.tolist() == [[0, 0, 0]]
    with pytest.raises(ModelError, match=r"no gradient passes .* found no box"):
        result.cam(1)


def test_detectors_normalise_by_themselves():
    assert describe(detector("FCOS")).preprocessing.mean == (0, 0, 0)


def test_of_a_pyramid_of_features_the_end_of_the_backbone_is_taken():
    from torchvision.models.detection import retinanet_resnet50_fpn

    model = seeded(retinanet_resnet50_fpn, weights=None, weights_backbone=None, min_size=64)
    found = survey(model, probe_input((64, 64), model))
    assert found.default().name == "backbone.body.layer4"
