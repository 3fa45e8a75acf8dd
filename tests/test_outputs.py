"""What a model's output means: found by evidence, overridden on request, read everywhere alike."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

import dff
from dff.activations.outputs import Meaning, read_scores
from dff.activations.outputs.meaning import last_operation
from dff.cli import main
from dff.errors import LayerError, ModelError, UsageError
from dff.explain import Explainer
from dff.images import Preprocessing
from dff.models import LoadedModel, load_model
from tests.toys import ConvNet, images, seeded, untouched

PREP = Preprocessing(size=32, mean=0.5, std=0.5)


class Shaped(ConvNet):
    """A net whose logits are handed out in another shape or form."""

    def __init__(self, form, classes: int = 5) -> None:
        super().__init__(classes=classes)
        self.form = form

    def forward(self, x):
        return self.form(super().forward(x))


def shaped(form, classes=5):
    return seeded(Shaped, form, classes)


def by_hand(logits):
    """A softmax that no module or function names."""
    powers = logits.exp()
    return powers / powers.sum(1, keepdim=True)


def explain(model, **options):
    x = images(2, 3, 32, 32)
    with untouched(model):
        result = Explainer(model, preprocessing=PREP, **options)(x, concepts=3)
    return result, model(x).detach()


def check_adds_up(result, target=None):
    split = result.contributions(target)
    torch.testing.assert_close(split.values.sum(1) + split.rest + split.gap, split.logit)
    assert float(split.relative_gap.max()) < 0.01
    assert result.cam(target).shape == (32, 32)


EVIDENCE = {  # form, classes, kind, from the model's output (n, classes) to probabilities
    "logits": (lambda z: z, 5, "logits", lambda out: out.softmax(1)),
    "log-probabilities": (lambda z: z.log_softmax(1), 5, "logits", torch.exp),
    "softmax": (lambda z: z.softmax(1), 5, "probabilities", lambda out: out),
    "softmax by hand": (by_hand, 5, "probabilities", lambda out: out),
    "softmax of maps": (
        lambda z: (z[..., None, None] * torch.rand(2, 3)).softmax(1), 5, "probabilities",
        lambda out: out.mean((2, 3)),
    ),
    "sigmoid": (lambda z: z.sigmoid(), 5, "multilabel", lambda out: out),
    "one logit": (lambda z: z, 1, "binary", torch.sigmoid),
    "(n,)": (lambda z: z[:, 0], 1, "binary", lambda out: out[:, None].sigmoid()),
    "squeezed": (lambda z: z.squeeze(), 1, "binary", lambda out: out[:, None].sigmoid()),
    "one sigmoid": (lambda z: z[:, 0].sigmoid(), 1, "binary", lambda out: out[:, None]),
    "one of two": (lambda z: z.softmax(1)[:, 1], 2, "binary", lambda out: out[:, None]),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIDENCE)
def test_what_the_output_means_is_found(name):
    form, classes, kind, expected = EVIDENCE[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = torch.rand(2, 3)
    if name == "softmax of maps":
        form = lambda z: (z[..., None, None] * weights).softmax(1)  # noqa: E731
    result, output = explain(shaped(form, classes))
    assert result.meaning.kind == kind
    torch.testing.assert_close(result.probabilities, expected(output), rtol=0, atol=1e-6)
    assert result.scores.shape == (3, result.probabilities.shape[1])
    assert bool(((result.scores > 0) & (result.scores < 1)).all())
    check_adds_up(result)


def test_the_scores_of_concepts_are_those_of_the_head_alone():
    head = seeded(ConvNet, classes=1).fc
    for form in (lambda z: z, lambda z: z.sigmoid()):
        result, _ = explain(shaped(form, 1))
        expected = head(result.bank.at_full_presence).sigmoid().detach()
        torch.testing.assert_close(result.scores, expected, rtol=0, atol=1e-6)


def test_a_model_that_drops_the_axis_of_images():
    model = shaped(lambda z: z.squeeze(0), 5)
    result = Explainer(model, preprocessing=PREP)(images(1, 3, 32, 32), concepts=3)
    assert result.meaning.kind == "logits"
    assert result.logits.shape == (1, 5)
    check_adds_up(result)


def test_two_names_are_of_the_two_sides_of_a_logit():
    model = shaped(lambda z: z, 1)
    result, output = explain(model, class_names=["cat", "dog"])
    p = output.sigmoid()
    torch.testing.assert_close(result.probabilities, torch.cat([1 - p, p], 1))
    likeliest = result.predictions()[0]
    assert likeliest.name == ("dog" if p[0] > 0.5 else "cat")
    assert likeliest.probability == pytest.approx(max(float(p[0]), 1 - float(p[0])))
    split = result.contributions(["cat", "dog"])
    torch.testing.assert_close(split.values[0], -split.values[1])
    check_adds_up(result, "cat")
    alone, _ = explain(model, class_names=["dog"])
    assert alone.predictions()[0].name == "dog"
    assert alone.predictions()[0].probability == pytest.approx(float(p[0]))


def test_independent_labels_on_request():
    result, output = explain(shaped(lambda z: z), output="multilabel")
    torch.testing.assert_close(result.probabilities, output.sigmoid())
    assert result.meaning.found == "as asked for"
    deletion = result.check().deletion
    assert deletion.values[0] == pytest.approx(float(output[0].sigmoid().max()), abs=1e-5)


def test_probabilities_on_request_are_never_squashed_again():
    half = shaped(lambda z: z.tanh() / 2 + 0.5)
    assert explain(half)[0].meaning.kind == "logits"
    result, output = explain(half, output="probabilities")
    assert result.meaning.kind == "multilabel"
    torch.testing.assert_close(result.probabilities, output, rtol=0, atol=1e-6)
    one, output = explain(shaped(lambda z: z.tanh() / 2 + 0.5, 1), output="probabilities")
    assert one.meaning.kind == "binary"
    torch.testing.assert_close(one.probabilities, output, rtol=0, atol=1e-6)


def test_rows_that_sum_to_1_by_chance_are_logits():
    """Of one image alone: the other output that is looked at tells."""

    class Chance(ConvNet):
        ran = 0

        def forward(self, x):
            self.ran += 1
            logits = super().forward(x).abs()
            return logits / logits.sum(1, keepdim=True) if self.ran == 1 else logits

    assert Explainer(seeded(Chance), preprocessing=PREP).meaning.kind == "logits"


def test_saturated_probabilities_stay_finite():
    result, output = explain(shaped(lambda z: (z * 1e4).softmax(1)))
    assert bool(result.logits.isfinite().all())
    torch.testing.assert_close(result.probabilities, output, rtol=0, atol=1e-6)
    result, output = explain(shaped(lambda z: (z * 1e4).sigmoid()))
    assert bool(result.logits.isfinite().all())
    torch.testing.assert_close(result.probabilities, output, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (5, {"output": "binary"}, "cannot be read as binary: it has 5 values an image, not one"),
        (1, {"output": "logits"}, "cannot be read as logits: it has one value .* take binary"),
        (5, {"output": "probabilities"}, r"as probabilities: its values reach from -0\.\d+ to 0"),
        (5, {"output": "multi-label"}, "no kind of output 'multi-label'; did you mean 'multilab"),
        (5, {"output": "odds"}, "no kind of output 'odds'; choose from logits, probabilities, bin"),
        (5, {"class_names": ["a", "b"]}, "2 class names do not fit an output of 5 classes"),
        (1, {"class_names": list("abc")}, r"fit an output of 1 class: .* \(or two, the second"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(classes, options, message):
    with pytest.raises(UsageError, match=message) as error:
        Explainer(shaped(lambda z: z, classes), preprocessing=PREP, **options)
    assert "\n" not in str(error.value)


def test_a_backbone_is_not_made_a_classifier():
    loaded = LoadedModel(seeded(ConvNet), "net", PREP, unscored="it has no head")
    assert Explainer(loaded).meaning.kind == "embeddings"
    with pytest.raises(ModelError, match="cannot be read as multilabel: it has no head"):
        Explainer(loaded, output="multilabel")


def test_a_score_of_ones_own_is_read_by_the_same_rules():
    model = seeded(ConvNet)
    for score, kind in (
        (lambda out: out[:, :3], "logits"),
        (lambda out: out[:, :3].softmax(1), "probabilities"),
        (lambda out: out[:, 2], "binary"),
    ):
        explainer = Explainer(model, preprocessing=PREP, score=score)
        assert explainer.meaning.kind == kind
    asked = Explainer(model, preprocessing=PREP, score=lambda out: out[:, :3], output="multilabel")(
        images(1, 3, 32, 32), concepts=2
    )
    torch.testing.assert_close(asked.probabilities, asked.logits.sigmoid())


def test_names_of_the_logits_are_not_those_of_another_score():
    loaded = LoadedModel(seeded(ConvNet), "net", PREP, tuple("abcde"))
    assert Explainer(loaded).class_names == tuple("abcde")
    assert Explainer(loaded, score=lambda out: out[:, 1:3]).class_names is None
    assert Explainer(loaded, score=lambda out: out * 2).class_names == tuple("abcde")


def test_the_last_operation_is_seen_through_changes_of_shape():
    x = images(2, 3).requires_grad_()
    assert last_operation(x.softmax(1)[:, None].squeeze(1).float().T[0]) == "Softmax"
    assert last_operation(x.sigmoid() * 1) == "Mul"
    assert last_operation(x.detach()) == ""


def test_an_output_without_scores_is_refused():
    with pytest.raises(LayerError, match="without a floating-point tensor"):
        read_scores({"nothing": None})


def test_positions_stand_in_for_no_classifier_in_a_run():
    """Concepts of segmentation are scored in a photo; a dataset's images have no one class."""
    from dff.colocalization.stages.network import Network

    class Segmenter(ConvNet):
        def forward(self, x):
            maps = self.layer4(self.stem(x))
            return nn.functional.conv2d(maps, self.fc.weight[:, :, None, None])

    explainer = Explainer(seeded(Segmenter), preprocessing=PREP)
    assert explainer.meaning == Meaning("logits", explainer.meaning.found, 5, pooled=True)
    network = Network(explainer)
    assert network.classes is None


def test_a_map_of_one_channel_is_one_logit_a_position():
    class Mask(ConvNet):
        def forward(self, x):
            return self.layer4(self.stem(x)).mean(1, keepdim=True) - 0.5

    result, output = explain(seeded(Mask))
    assert result.meaning.kind == "binary"
    assert result.meaning.found == "the output is one value a position"
    torch.testing.assert_close(result.probabilities, output.mean((2, 3)).sigmoid())


def test_depths_are_no_scores():
    class Depth(ConvNet):
        def forward(self, x):
            return {"predicted_depth": self.layer4(self.stem(x)).mean(1)}

    explainer = Explainer(seeded(Depth), preprocessing=PREP)
    assert explainer.meaning.kind == "embeddings"
    assert explainer.unscored.startswith("Depth: it returns depths and no logits: it gives")
    assert explainer(images(1, 3, 32, 32), concepts=2).predictions() == []


@pytest.fixture
def dff_run(tmp_path, capfd, monkeypatch):
    """Run a command in-process beside photos and a file of models; return (status, out, err)."""
    (tmp_path / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\nfrom tests.toys import ConvNet, seeded\n"
        "def one(): return seeded(ConvNet, classes=1)\n"
        "def soft(): return nn.Sequential(seeded(ConvNet), nn.Softmax(1))\n"
        "def five(): return seeded(ConvNet)\n"
    )
    (tmp_path / "sides.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in (*words, "--size", 32)])
        return end.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize(
    ("model", "options", "kind"),
    [
        ("one", [], "binary"),
        ("one", ["--labels", "sides.txt"], "binary"),
        ("soft", [], "probabilities"),
        ("five", [], "logits"),
        ("five", ["--output-kind", "multilabel"], "multilabel"),
    ],
)
def test_the_summary_says_what_the_output_was_taken_for(model, options, kind, dff_run):
    words = ("analyze", "photos/0.png", "-k", 2, "--model", f"nets.py:{model}", *options)
    status, out, err = dff_run(*words)
    assert (status, err) == (0, "")
    line = next(line for line in out.splitlines() if line.startswith("output: "))
    assert line.startswith(f"output: {kind}: ")
    facts = json.loads(dff_run(*words, "--json")[1])
    assert facts["output"]["kind"] == kind
    assert facts["output"]["found"] in line


def test_the_explanation_says_it_too():
    result, _ = explain(shaped(lambda z: z.softmax(1)))
    assert "output: probabilities: taken as they are" in repr(result)
    assert "rows of the output sum to 1" in repr(result)


def test_a_kind_that_cannot_be_is_answered_in_one_line(dff_run):
    words = ("analyze", "photos/0.png", "--model", "nets.py:five", "--output-kind")
    for kind, message in (("binary", "it has 5 values an image"), ("odd", "no kind of output")):
        status, out, err = dff_run(*words, kind)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_a_dataset_is_read_the_same_way(dff_run, tmp_path):
    run = ("colocalize", "photos", "-k", 2)
    assert dff_run(*run, "-o", "one", "--model", "nets.py:one")[0] == 0
    status, out, _ = dff_run(*run, "-o", "two", "--model", "nets.py:one", "--labels", "sides.txt")
    assert status == 0
    assert "output: binary (the output is one value an image)" in out
    one, two = (pq.read_table(tmp_path / name / "images.parquet") for name in ("one", "two"))
    model = seeded(ConvNet, classes=1)
    assert all(0 < p < 1 for p in one["probability"].to_pylist())
    for p, index, best, name in zip(
        one["probability"].to_pylist(), one["predicted_index"].to_pylist(),
        two["probability"].to_pylist(), two["predicted"].to_pylist(), strict=True,
    ):  # fmt: skip
        assert index == (0 if p >= 0.5 else None)
        assert name == ("dog" if p > 0.5 else "cat")
        assert best == pytest.approx(max(p, 1 - p))
    scores = pq.read_table(tmp_path / "one" / "scores.parquet")
    bank = dff.ConceptBank.load(tmp_path / "one" / "bank.safetensors")
    expected = model.fc(bank.at_full_presence).sigmoid().detach()[:, 0]
    np.testing.assert_allclose(scores["score"], expected, atol=1e-5)
    settings = json.loads((tmp_path / "one" / "run.json").read_text())["settings"]
    assert settings["model"]["output"]["kind"] == "binary"
    status, _, err = dff_run(*run, "-o", "one", "--model", "nets.py:one", "--output-kind",
                             "multilabel")  # fmt: skip
    assert status == 1
    assert "run of other settings" in err


def test_real_weights_with_a_softmax_at_their_end(shared):
    models, photo = shared / "models", shared / "data/horses/images/horse005.jpg"
    loaded = load_model(
        "mobilenet_v2", weights=models / "mobilenet_v2_imagenet.safetensors",
        labels=models / "imagenet_labels.txt", mean=0.5, std=0.5, size=225,
    )  # fmt: skip
    bare = Explainer(loaded)(photo, concepts=4)
    module = nn.Sequential(loaded.module, nn.Softmax(1))
    options = {"preprocessing": loaded.preprocessing, "class_names": loaded.class_names}
    ended = Explainer(module, layer="0.features", **options)(photo, concepts=4)
    assert ended.meaning.kind == "probabilities"
    torch.testing.assert_close(ended.probabilities, bare.probabilities, rtol=0, atol=1e-6)
    torch.testing.assert_close(ended.scores, bare.scores, rtol=0, atol=1e-5)
    assert [c.name for c in ended.top_classes(0)] == [c.name for c in bare.top_classes(0)]
    split = ended.contributions()
    assert float(split.relative_gap.max()) < 0.01


def test_the_default_layer_does_not_depend_on_a_softmax():
    model = seeded(lambda: torchvision.models.resnet18())
    ended = nn.Sequential(model, nn.Softmax(1))
    prep = Preprocessing(size=64)
    result = Explainer(ended, preprocessing=prep)(images(1, 3, 64, 64), concepts=2)
    assert result.bank.layer == "0.layer4"
    expected = ended(images(1, 3, 64, 64)).detach()
    torch.testing.assert_close(result.probabilities, expected, rtol=0, atol=1e-6)
