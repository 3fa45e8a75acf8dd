"""Several methods beside each other: the same input and logits, one panel, files."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

import dff
from dff.comparing import check_methods, compare, known_methods
from dff.errors import MissingExtraError, ModelError, UsageError
from dff.rendering.attributions import Look
from gradcam import METHODS as FAMILY
from tests.toys import ConvNet, TokenNet, seeded, untouched

pytest.importorskip("captum")

PHOTO = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
QUICK = ["concepts", "gradcam", "integrated-gradients", "occlusion"]


def explainer(kind=ConvNet, size=32, **options):
    prep = dff.Preprocessing(size=size, mean=0.5, std=0.5, fixed=True)
    return dff.Explainer(seeded(kind), preprocessing=prep, **options)


@pytest.fixture(scope="module")
def compared():
    return compare(PHOTO, model=explainer(), methods=QUICK, classes=[3, 1], concepts=3)


def test_each_row_explains_the_logits_of_its_columns(compared):
    (block,) = compared.blocks
    assert [score.index for score in block.classes] == [3, 1]
    assert [row.method for row in block.rows] == QUICK
    for row in block.rows:
        assert row.maps.shape == (2, 32, 32)
        assert row.maps.dtype == np.float32
    photo, model = block.photo, block.photo.tail.model
    with torch.no_grad():
        logits, nothing = model(photo.image[None])[0], model(torch.zeros(1, 3, 32, 32))[0]
    row = block.rows[2]
    expected = (logits - nothing)[[3, 1]].numpy()
    assert row.maps.sum((1, 2)) - np.array(row.delta) == pytest.approx(expected, abs=1e-4)
    concepts = block.rows[0]
    split = block.explanation.contributions([3, 1])
    assert torch.allclose(concepts.parts.sum((2, 3)), split.values, atol=1e-4)


@pytest.mark.parametrize("name", sorted({*FAMILY} - {"legrad"}))
def test_all_of_the_family_are_methods(name):
    one = compare(PHOTO, model=explainer(), methods=[name], classes=2, concepts=2)
    assert one.maps(name).shape == (2, 32, 32)
    assert one.maps(name).min() >= 0


def test_a_transformer_has_rows_of_all_kinds():
    model = explainer(TokenNet, layer="blocks.1")
    found = compare(
        PHOTO, model=model, classes=2, concepts=2,
        methods=["gradcam", "gradient-x-activation", "deeplift", "saliency"],
    )  # fmt: skip
    assert found.panel().width > 300


def test_the_cells_of_layers_lie_where_concepts_do():
    """Gradient times activation is what a concept adds where the head is linear: the same map."""
    methods = ["concepts", "gradient-x-activation"]
    found = compare(PHOTO, model=explainer(), methods=methods, concepts=12)
    difference = found.maps("concepts") - found.maps("gradient-x-activation")
    assert np.abs(difference).max() < 0.2 * np.abs(found.maps("concepts")).max()


@pytest.mark.parametrize(
    ("photos", "models", "methods", "classes"),
    [
        (1, 1, [*QUICK, "saliency", "layercam"], 1),
        (1, 1, ["gradcam", "saliency"], 5),
        (3, 1, ["concepts", "gradcam"], 2),
        (1, 2, ["gradcam", "saliency"], 2),
        (2, 2, ["gradcam"], 1),
    ],
)
def test_panels_of_any_shape_hold_everything(photos, models, methods, classes):
    found = compare(
        [PHOTO] * photos,
        model=[explainer() for _ in range(models)],
        methods=methods, classes=classes, concepts=2,
    )  # fmt: skip
    assert len(found.blocks) == photos * models
    panel = np.asarray(found.panel())
    assert panel.ndim == 3
    assert 0.4 < panel.shape[1] / panel.shape[0] < 5
    border = np.concatenate([panel[[0, -1]].ravel(), panel[:, [0, -1]].ravel()])
    assert (border == 255).all(), "nothing is cut off"
    tiles = photos * models * (len(methods) * classes + 1)
    assert (panel < 250).any(2).sum() > tiles * 1000


def test_one_look_for_all_rows(compared):
    assert compared.panel(Look("masked_image")).size != compared.panel().size
    assert compared.panel(Look("original")).width > 0


def test_files(compared, tmp_path):
    names = [path.name for path in compared.save(tmp_path)]
    assert names == ["image_compare.png", "image_maps.npz", "compare.json", "compare.csv"]
    arrays = np.load(tmp_path / "image_maps.npz")
    assert arrays["classes"].tolist() == [3, 1]
    assert np.array_equal(arrays["occlusion"], compared.maps("occlusion"))
    report = json.loads((tmp_path / "compare.json").read_text())
    method = report["images"][0]["methods"][2]
    assert (method["method"], len(method["delta"])) == ("integrated-gradients", 2)
    assert method["settings"]["n_steps"] == 50
    assert method["seconds"] > 0
    rows = (tmp_path / "compare.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * 2
    again = [path.name for path in compared.save(tmp_path, formats=["json"])]
    assert again == ["compare.json"]
    (tmp_path / "compare.csv").write_text("mine")
    with pytest.raises(dff.DFFError, match=r"compare\.csv"):
        compared.save(tmp_path)
    assert (tmp_path / "compare.csv").read_text() == "mine"


def test_settings_reach_their_method():
    found = compare(
        PHOTO, model=explainer(), methods=["integrated-gradients"], classes=1, concepts=2,
        settings={"integrated-gradients": {"n_steps": 9, "baseline": "black"}},
    )  # fmt: skip
    row = found.blocks[0].rows[0]
    assert row.settings["n_steps"] == 9
    assert torch.allclose(row.settings["baseline"], torch.full((3, 1, 1), -1.0))


def test_progress_says_what_runs():
    said = []
    compare(PHOTO, model=explainer(), methods=QUICK, classes=1, concepts=2, progress=said.append)
    assert "image: gradcam" in said
    assert any("occlusion, " in line and line.endswith(" inputs") for line in said)


def test_names_of_methods():
    assert check_methods(["GradCAM", "grad_cam++", "gradcam"]) == ("gradcam", "gradcam++")
    assert check_methods(["Integrated_Gradients"]) == ("integrated-gradients",)
    assert set(check_methods(None)) <= set(known_methods())
    with pytest.raises(UsageError, match="did you mean 'integrated-gradients'"):
        check_methods(["integrated-gradient"])
    with pytest.raises(UsageError, match="name at least one"):
        check_methods([])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"classes": [17]}, "class 17 does not exist: the model has classes 0 to 4"),
        ({"classes": 0}, "classes is how many, from 1 on"),
        ({"classes": []}, "a list of classes"),
        ({"settings": {"saliency": {}}}, "not among the methods"),
        ({"settings": {"gradcam": {"a": 1}}}, "gradcam has no settings"),
        ({"settings": {"occlusion": {"windo": 1}}}, "did you mean 'window'"),
        ({"settings": {"occlusion": {"baseline": "grey"}}}, '"black" or "white", not'),
    ],
)
def test_what_cannot_be(words, match):
    model = explainer()
    with untouched(model.model), pytest.raises(UsageError, match=match):
        compare(PHOTO, model=model, methods=["occlusion", "gradcam"], concepts=2, **words)


class Smooth(ConvNet):
    """Without ReLUs."""

    def __init__(self) -> None:
        super().__init__(relu=False)
        self.stem[2] = nn.GELU()


def test_what_a_model_cannot_have_and_what_it_can():
    for model, method in ((explainer(), "legrad"), (explainer(Smooth), "guided-backprop")):
        with untouched(model.model), pytest.raises(ModelError) as error:
            compare(PHOTO, model=model, methods=[method], concepts=2)
        can = str(error.value).partition("can have ")[2].split(", ")
        assert "gradcam" in can
        assert "saliency" in can
        assert method not in can


class Headless(nn.Module):
    """Hidden states, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.body = seeded(TokenNet)
        self.body.head = nn.Identity()

    def forward(self, x):
        x = self.body.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.body.token.expand(len(x), -1, -1), x], 1) + self.body.position
        return {"last_hidden_state": self.body.blocks(x)}


def test_a_model_without_a_head_has_no_columns():
    with pytest.raises(ModelError, match="compared on classes"):
        compare(PHOTO, model=explainer(Headless), methods=["gradcam"])


def test_without_captum_the_rest_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setattr("dff.comparing.names.find_spec", lambda _: None)
    assert check_methods(None) == ("concepts", "gradcam", "layercam")
    for name in ("saliency", "concept-pixels"):
        with pytest.raises(MissingExtraError, match=r"\[attributions\]"):
            check_methods([name])


def test_the_public_call_is_the_same():
    assert dff.compare is compare


def test_the_command(run, tmp_path):
    words = ["compare", "a.png", "--model", "demo", "--size", 64, "--out", "out"]
    words += ["--methods", "concepts,gradcam", "--methods", "integrated-gradients"]
    words += ["--set", "integrated-gradients.n_steps=4"]
    status, printed, errors = run(*words, "--json")
    assert status == 0, errors
    report = json.loads(printed)
    assert report["paths"] == [
        "out/a_compare.png", "out/a_maps.npz", "out/compare.json", "out/compare.csv",
    ]  # fmt: skip
    (image,) = report["images"]
    assert len(image["classes"]) == 3
    assert [m["method"] for m in image["methods"]] == [
        "concepts", "gradcam", "integrated-gradients",
    ]  # fmt: skip
    assert report["settings"]["compare"]["methods"] == ["concepts,gradcam", "integrated-gradients"]
    status, printed, errors = run(*words)
    assert status == 0, errors
    assert "largest delta" in printed
    assert "out/a_compare.png" in printed
    (tmp_path / "out/compare.json").write_text("mine")
    status, _, errors = run(*words)
    assert status == 1
    assert "compare.json" in errors


def test_several_photos_and_models(run, tmp_path):
    status, _, errors = run(
        "compare", "a.png", "b.png", "--model", "demo", "--beside", "demo", "--methods",
        "gradcam,saliency", "--style", "heat-map", "--sign", "absolute", "--target", "griffin",
        "--format", "png", "--format", "npz",
    )  # fmt: skip
    assert status == 0, errors
    made = sorted(path.name for path in (tmp_path / "dff-out").iterdir() if path.name[0] != ".")
    assert made == ["a_compare.png", "a_maps.npz", "b_compare.png", "b_maps.npz", "compare.png"]
    arrays = np.load(tmp_path / "dff-out/a_maps.npz")
    assert set(arrays) == {
        f"{model}.{name}" for model in ("demo", "demo-2") for name in
        ("classes", "gradcam", "saliency")
    }  # fmt: skip


def test_settings_of_a_file(run, tmp_path):
    (tmp_path / "dff.toml").write_text(
        '[model]\nmodel = "demo"\n\n[compare]\nmethods = ["gradcam"]\nclasses = 2\n'
    )
    status, printed, errors = run("compare", "a.png", "--json")
    assert status == 0, errors
    report = json.loads(printed)
    assert len(report["images"][0]["classes"]) == 2
    assert [m["method"] for m in report["images"][0]["methods"]] == ["gradcam"]


@pytest.mark.parametrize(
    ("words", "status", "match"),
    [
        (["--methods", "gradcamm"], 2, "did you mean 'gradcam'"),
        (["--methods", "legrad"], 1, "can have concepts"),
        (["--methods", "gradcam", "--target", "unicron"], 2, "there is no class 'unicron'"),
        (["--set", "occlusion"], 2, "METHOD.SETTING=VALUE"),
        (["--methods", "occlusion", "--set", "occlusion.window=big"], 2, "whole number"),
        (["--style", "heat"], 2, "no style"),
        (["--colormap", "virids"], 2, "did you mean 'viridis'"),
        (["--format", "gif"], 2, "no format 'gif'"),
    ],
)
def test_the_command_says_what_is_wrong(run, tmp_path, words, status, match):
    ended, _, errors = run("compare", "a.png", "--model", "demo", *words)
    assert ended == status
    assert len(errors.strip().splitlines()) == 1
    assert match in errors
    assert not (tmp_path / "dff-out").exists(), "no empty folder stays"
