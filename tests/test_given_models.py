"""What an explainer may be given: pipelines, and models of images and texts."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dff.errors import ModelError, UsageError
from dff.explain import Explainer
from dff.images import Preprocessing
from dff.models import describe
from tests.test_headless import FED, TOWERS, built, check_wordless
from tests.toys import images, untouched

hf = pytest.importorskip("transformers", reason="needs transformers (the test extra)")

NAMES = {0: "ant", 1: "bee", 2: "cat"}


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def pipeline(task, model, **options):
    """A pipeline as transformers builds it, with a processor that changes no size."""
    processor = hf.ViTImageProcessor(size={"height": 64, "width": 64}, **options)
    return hf.pipeline(task, model=model, image_processor=processor)


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_a_pipeline_is_its_model_and_its_processor(problem, photo):
    settings = {**FED, "id2label": NAMES, "problem_type": problem}
    model = built("ViTForImageClassification", "ViTConfig", settings)
    statistics = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.3]}
    pipe = pipeline("image-classification", model, **statistics)
    with untouched(pipe.model):
        explainer = Explainer(pipe)
        result = explainer(photo, concepts=2)
    assert explainer.preprocessing.mean == (0.4, 0.5, 0.6)
    assert explainer.preprocessing.std == (0.2, 0.2, 0.3)
    said = {found["label"]: found["score"] for found in pipe(Image.fromarray(photo))}
    ours = {found.name: found.probability for found in result.predictions()}
    assert ours == pytest.approx(said, abs=1e-5)
    assert result.meaning.kind == ("multilabel" if problem else "logits")


def test_a_pipeline_without_normalisation_and_a_device_for_it():
    model = built("ViTForImageClassification", "ViTConfig", FED)
    pipe = pipeline("image-classification", model, do_normalize=False)
    assert Explainer(pipe).preprocessing == Preprocessing(size=64, mean=0.0, std=1.0)
    with pytest.raises(UsageError, match="move your module yourself"):
        Explainer(pipe, device="cpu")


@pytest.mark.parametrize(
    ("kind", "config", "tower", "layer"),
    [
        ("CLIPModel", "CLIPConfig", "CLIPVisionModel", "encoder"),
        ("SiglipModel", "SiglipConfig", "SiglipVisionModel", "post_layernorm"),
        ("CLIPSegForImageSegmentation", "CLIPSegConfig", "CLIPSegVisionModel", "encoder"),
    ],
)
def test_of_images_and_texts_the_part_for_images_is_taken(
    kind, config, tower, layer, photo, tmp_path
):
    model = built(kind, config, TOWERS)
    with untouched(model):
        explainer = Explainer(model)
        result = explainer(photo, concepts=3)
    assert type(explainer.model).__name__ == tower
    assert explainer.layer == layer
    assert explainer.name == kind
    assert result.meaning.kind == "embeddings"
    assert f"of a {kind}, which compares images with texts" in result.unscored
    assert result.maps().shape == (3, 4, 4)
    check_wordless(result, tmp_path)


def test_likeness_to_texts_scores_the_part_for_images(photo):
    model = built("CLIPModel", "CLIPConfig", TOWERS)
    texts = images(2, model.config.projection_dim) - 0.5

    def likeness(output):
        return model.visual_projection(output.pooler_output) @ texts.T

    result = Explainer(model, score=likeness, class_names=["horse", "meadow"])(photo, concepts=2)
    assert result.meaning.kind == "logits"
    expected = likeness(model.vision_model(result.photos[0].image[None])).detach()
    torch.testing.assert_close(result.logits, expected, rtol=0, atol=1e-5)
    assert {c.name for c in result.top_classes(0)} == {"horse", "meadow"}


def test_classifiers_on_such_a_model_are_taken_whole(photo):
    settings = {**TOWERS, "num_labels": 3}
    model = built("CLIPForImageClassification", "CLIPConfig", settings)
    explainer = Explainer(model, preprocessing=Preprocessing(size=64))
    assert explainer.model is model
    assert len(explainer(photo, concepts=2).predictions()) == 3


def test_what_has_no_part_for_images_is_refused_in_one_line():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = hf.CLIPConfig(**TOWERS)

        def forward(self, input_ids, pixel_values):
            return input_ids

    with pytest.raises(ModelError, match="has no part for images alone") as error:
        describe(Reader())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [None, 7, [1, 2]])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(UsageError, match=r"expected a model: a name, .* not a (NoneType|int|list)"):
        Explainer(given)
