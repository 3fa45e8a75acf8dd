"""Labels: what concepts speak for in a photo, and how sure that is."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import dff
from dff.activations.outputs import Meaning
from dff.colocalization.stages.scores import Tally, spoken
from dff.explain.questions.labels import photo_labels
from dff.explain.sheet import clear_where, spoken_in
from dff.scoring import confidences, label_probes
from tests.toys import ConvNet, PixelNet, TokenNet, images, seeded, untouched

PREP = dff.Preprocessing(size=32, mean=0, std=1, fixed=True)


def colour_net() -> PixelNet:
    """A model whose classes are "red", "green" and "dark": blue moves none of them."""
    model = PixelNet(classes=3)
    with torch.no_grad():
        model.fc.weight.copy_(torch.tensor([[40.0, -40, 0], [-40, 40, 0], [-40, -40, 0]]))
        model.fc.bias.copy_(torch.tensor([0.0, 0, 8]))
    return model.eval()


@pytest.fixture
def flag():
    """Red at the left, green at the right, a blue ground below."""
    pixels = np.zeros((32, 32, 3), np.float32)
    pixels[:12, :14, 0] = 1
    pixels[:12, 18:, 1] = 1
    pixels[20:, :, 2] = 1
    return pixels


def explained(model, pixels, **options):
    names = ("red", "green", "dark")
    return dff.Explainer(model, layer="body", preprocessing=PREP, class_names=names)(
        pixels, concepts=3, **options
    )


def test_a_concept_speaks_for_what_it_adds_where_it_is(flag):
    result = explained(colour_net(), flag)
    colours = result.bank.components.argmax(1).tolist()
    said = dict(zip(colours, result.labels(), strict=True))
    assert [said[0][0].name, said[1][0].name] == ["red", "green"]
    assert said[0][0].confidence > 0.5
    assert said[0][0].index == 0
    assert said[2] == [], "the ground moves no class"


def test_what_lies_around_a_concept_is_not_its_own():
    """Cells of a class all around do not make a concept that adds nothing to it speak for it."""
    maps = torch.zeros(2, 8, 8)
    maps[0, :, :5] = 1  # the class's feature, with a hole in it
    maps[0, 3, 2], maps[1, 3, 2] = 0, 1
    w = maps.clone()
    probes = label_probes(maps, w, torch.eye(2), torch.ones(2))
    head = torch.tensor([[5.0, 0], [0, 0]])
    logits = head @ maps.mean((1, 2))
    sure = confidences(logits, probes.mean((2, 3)) @ head.T, Meaning())
    assert sure[0, 0] > 0.5
    assert sure[1].max() == 0


def test_probes_take_a_concept_out_and_keep_its_surroundings():
    maps, w = images(4, 6, 6), torch.zeros(2, 6, 6)
    w[0, 0, 0], w[1, 5, 5] = 2, 1
    h = images(2, 4, seed=1)
    ablated, there = label_probes(maps, w, h, torch.tensor([2.0, 1])).chunk(2)
    torch.testing.assert_close(ablated[0], maps - w[0] * h[0][:, None, None])
    torch.testing.assert_close(there[0][:, 0, 0], maps[:, 0, 0], msg="the peak stays as it is")
    near, far = ((there[0] - maps)[:, i, i].abs().mean() for i in (1, 5))
    assert near < far
    # Where the rest of the model pools, nothing is left but the mean over the surroundings.
    at = torch.arange(6.0)
    weight = (-(at[:, None] ** 2 + at**2) / 18).exp()
    mean = (maps * weight).sum((1, 2)) / weight.sum()
    torch.testing.assert_close(there[0].mean((1, 2)), mean)


def test_grids_of_a_clip_do_not_reach_into_each_other():
    maps, w = images(3, 8, 4), torch.zeros(1, 8, 4)
    w[0, 3, 0] = 1  # the last row of the first of two grids
    _, there = label_probes(maps, w, images(1, 3), torch.ones(1), grids=2).chunk(2)
    inside = there[0][:, 4:]
    torch.testing.assert_close(inside, inside[:, :1, :1].expand_as(inside), msg="mean only")


def test_independent_classes_keep_their_own_confidence():
    logits = torch.tensor([3.0, 2.0, -4.0])
    probed = torch.tensor([[-1.0, -2, -4], [3, 2, -4], [5, 4, -4], [-5, -5, -4]])
    sure = confidences(logits, probed, Meaning("multilabel"))
    torch.testing.assert_close(sure[0, :2], torch.tensor([5.0, 4]).sigmoid())
    assert sure[1].max() == 0


@pytest.mark.parametrize(
    ("kind", "layer"), [(ConvNet, "layer4"), (ConvNet, "stem"), (TokenNet, "blocks.0")]
)
def test_asked_in_the_photos_own_pass_or_later_is_the_same(kind, layer):
    model = seeded(kind)
    explainer = dff.Explainer(model, layer=layer, preprocessing=PREP)
    with untouched(model):
        result = explainer(list(images(2, 32, 32, 3).numpy()), concepts=3)
        for photo in result.photos:
            assert photo.probed is not None
            later = photo_labels(replace(photo, probed=None), top_k=5)
            assert [[x.index for x in row] for row in photo_labels(photo, top_k=5)] == [
                [x.index for x in row] for row in later
            ]


def test_many_photos_are_asked_when_it_is_needed(flag):
    shots = [flag] * 12
    result = explained(colour_net(), shots)
    assert all(photo.probed is None for photo in result.photos)
    assert result[3].labels() == result[0].labels() != [[], [], []]


def test_concepts_without_scores_have_no_labels(flag):
    result = explained(colour_net(), flag)
    shared = replace(result.shared, unscored="no head")
    assert photo_labels(replace(result.photos[0], shared=shared)) == [[], [], []]


def test_contributions_of_a_linear_head_come_out_of_the_pass(flag, monkeypatch):
    explainer = dff.Explainer(seeded(ConvNet), layer="layer4", preprocessing=PREP)
    result = explainer(flag, concepts=4)
    photo = result.photos[0]
    with monkeypatch.context() as patch:
        patch.setattr(type(photo.tail), "__call__", None)  # the model does not run again
        split = result.contributions([0, 3], versus=1)
    assert split.linear
    again = dff.explain.Explanation((replace(photo, probed=None),)).contributions([0, 3], versus=1)
    for name in ("values", "rest", "maps", "logit"):
        torch.testing.assert_close(getattr(split, name), getattr(again, name), atol=1e-5, rtol=1e-5)


def test_contributions_of_other_heads_do_not(monkeypatch):
    explainer = dff.Explainer(seeded(ConvNet), layer="stem", preprocessing=PREP)
    photo = explainer(images(32, 32, 3).numpy(), concepts=3).photos[0]
    asked, gradient = [], type(photo).gradient
    monkeypatch.setattr(
        type(photo), "gradient", lambda self, index: asked.append(index) or gradient(self, index)
    )
    split = dff.explain.Explanation((photo,)).contributions([0, 1, 2])
    assert not split.linear
    assert split.relative_gap.max() < 0.01
    assert asked == [0]  # the first class has shown that the head is not linear
    later = dff.explain.Explanation((replace(photo, probed=None),)).contributions([0, 1, 2])
    assert split.steps < later.steps  # which tries for it
    torch.testing.assert_close(split.values, later.values)


def test_a_sweep_labels_each_number_of_concepts_by_itself(flag):
    sweep = dff.Explainer(
        colour_net(), layer="body", preprocessing=PREP, class_names=("red", "green", "dark")
    ).sweep(0.99 * flag + 0.01 * images(32, 32, 3).numpy(), concepts=range(2, 4))
    alone = sweep.explanations[1].photos[0]
    assert alone.probed is None or len(alone.probed) == 6
    assert photo_labels(alone) == photo_labels(replace(alone, probed=None))


def test_labels_on_a_zebra(shared):
    explainer = dff.Explainer(
        dff.load_model(
            "mobilenet_v2",
            weights=shared / "models/mobilenet_v2_imagenet.safetensors",
            labels=shared / "models/imagenet_labels.txt",
            mean=0.5,
            std=0.5,
            size=225,
        )
    )
    labels = explainer(shared / "data/photos/zebra.jpg").labels()
    assert labels[0][0].name.startswith("zebra")
    assert labels[0][0].confidence > 0.8
    assert labels[1:] == [[], [], [], []], "nothing else is in the photo"


def test_the_concepts_of_a_dataset_speak_for_what_they_add_in_its_images():
    """Grass lies around all horses, and alone around one ball: it speaks for neither."""
    tally = Tally(2)
    horse, ball = 0, 1
    mean = np.array([[0.4, 0.5]] * 30 + [[0.0, 0.9]])
    tally.add(pa.chunked_array([[horse] * 30, [ball]]), mean > 0, mean)
    at_full = torch.tensor([[9.0, -4, -5], [0.3, 0.2, -0.5]])
    empty = torch.zeros(1, 3)
    assert spoken((at_full, empty), tally, Meaning()) == [[horse], []]
    lawns = Tally(2)
    lawns.add(pa.chunked_array([[ball] * 9]), mean[:9] > 0, mean[-1:].repeat(9, 0))
    assert spoken((at_full, empty), lawns, Meaning()) == [[], [ball]]
    assert spoken((at_full, empty), Tally(2), Meaning()) == [[], []], "no image could be read"


def test_the_sheet_of_photos_that_share_concepts(flag, tmp_path):
    """A row a concept, its column a photo: what speaks for red in one photo of two says so."""
    other = np.ascontiguousarray(flag[..., [1, 0, 2]])
    result = explained(colour_net(), [flag, np.zeros_like(flag) + flag[:1, :1] * 0.2, other])
    result.save(tmp_path, formats=["png"])
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.height > 4 * 160
    red = result.bank.components.argmax(1).tolist().index(0)
    lines = spoken_in(result.photos, 3)
    assert ("red", "2 of 3") in lines[red] or ("red", "3 of 3") in lines[red]
    blue = result.bank.components.argmax(1).tolist().index(2)
    assert lines[blue] == ["no class"]
    clear = clear_where(result.photos[0], 32)[red]
    assert clear[4, 4].tolist() == [255, 0, 0]
    assert clear[28, 16].min() > 150, "pale where it is not"
    result[0].save(tmp_path / "alone", formats=["png"])
    assert not (tmp_path / "alone/sheet.png").exists()
