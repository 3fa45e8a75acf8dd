"""Backbones without a head: concepts, maps, banks and datasets, and not a word about classes."""

import json
import warnings
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from dff.cli import main
from dff.errors import LayerError, ModelError
from dff.explain import Explainer
from dff.images import Preprocessing
from dff.models import LoadedModel, describe, load_model
from tests.toys import ConvNet, images, seeded, untouched

hf = pytest.importorskip("transformers", reason="needs transformers (the test extra)")
timm = pytest.importorskip("timm", reason="needs timm (the test extra)")

VIT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64,
       "patch_size": 16}  # fmt: skip
FED = {**VIT, "intermediate_size": 48}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64,
        "intermediate_size": 16, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
TOWERS = {"vision_config": FED, "text_config": TEXT}
MAE = {**FED, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
       "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}  # fmt: skip
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}

BACKBONES = {  # saved as, configuration, its settings, class, layer, grid
    "dinov2": ("Dinov2Model", "Dinov2Config", VIT, "Dinov2Model", "layernorm", 4),
    "registers": (
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", VIT, "Dinov2WithRegistersModel",
        "layernorm", 4,
    ),
    "vit": ("ViTModel", "ViTConfig", FED, "ViTModel", "layernorm", 4),
    "clip": ("CLIPModel", "CLIPConfig", TOWERS, "CLIPVisionModel", "encoder", 4),
    "clip-vision": ("CLIPVisionModel", "CLIPVisionConfig", FED, "CLIPVisionModel", "encoder", 4),
    "siglip": ("SiglipModel", "SiglipConfig", TOWERS, "SiglipVisionModel", "post_layernorm", 4),
    "siglip-vision": (
        "SiglipVisionModel", "SiglipVisionConfig", FED, "SiglipVisionModel", "post_layernorm", 4
    ),
    "mae": ("ViTMAEModel", "ViTMAEConfig", MAE, "ViTMAEModel", "layernorm", 4),
    "mae-whole": ("ViTMAEForPreTraining", "ViTMAEConfig", MAE, "ViTMAEModel", "layernorm", 4),
    "resnet": ("ResNetModel", "ResNetConfig", RESNET, "ResNetModel", "encoder", 28),
}  # fmt: skip


def built(kind, config, settings):
    return seeded(lambda: getattr(hf, kind)(getattr(hf, config)(**settings)))


def saved(folder, name):
    kind, config, settings, *_ = BACKBONES[name]
    built(kind, config, settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    """The folder of a small DINOv2."""
    return saved(tmp_path_factory.mktemp("dino"), "dinov2")


@pytest.fixture(scope="module")
def photo():
    return np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)


@contextmanager
def silent():
    """Fail on a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def check_wordless(result, folder):
    """Check that an explanation has all of its concepts, and nothing about classes."""
    assert result.shared.headless
    assert result.predictions() == []
    assert result.top_classes(0) == []
    assert all(entry.lines == [] for entry in result.legend_entries())
    assert result.logits.shape == (1, 0)
    for ask in (
        lambda: result.scores,
        lambda: result.target(3),
        result.cam,
        result.contributions,
        result.evidence,
        result.check,
        result.concept_module,
    ):
        with pytest.raises(ModelError, match=r"concepts, maps and banks.*score="):
            ask()
    result.save(folder)
    facts = json.loads((folder / "explanation.json").read_text())
    assert facts["images"][0]["predictions"] == facts["concepts"][0]["top_classes"] == []
    assert "class 0" not in json.dumps(facts)
    assert not [key for key in load_file(folder / "arrays.safetensors") if "logits" in key]


@pytest.mark.parametrize("name", BACKBONES)
def test_hugging_face_backbones(name, tmp_path, photo):
    *_, kind, layer, cells = BACKBONES[name]
    with silent():
        loaded = load_model(f"hf:{saved(tmp_path / 'net', name)}")
    assert type(loaded.module).__name__ == kind
    assert "has no classification head" in loaded.unscored
    explainer = Explainer(loaded)
    assert explainer.layer == layer
    with untouched(explainer.model):
        result = explainer(photo, concepts=3)
    assert result.maps().shape == (3, cells, cells)
    assert result.masks().shape == (3, 80, 80)
    check_wordless(result, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "size", "prefix"),
    [
        ("vit_small_patch14_dinov2", 56, 1),
        ("vit_small_patch14_reg4_dinov2", 56, 5),
        ("vit_small_patch16_dinov3", 64, 5),
    ],
)
def test_timm_backbones(name, size, prefix, photo, tmp_path):
    model = seeded(lambda: timm.create_model(name, num_classes=0, img_size=size))
    assert "num_classes=0" in describe(model).unscored
    explainer = Explainer(model, preprocessing=Preprocessing(size=size))
    assert explainer.layer == "norm"
    result = explainer(photo, concepts=3)
    assert result.maps().shape == (3, 4, 4)
    tokens = model.forward_features(result.photos[0].image[None])
    expected = tokens[0, prefix:].T.reshape(-1, 4, 4).detach()
    torch.testing.assert_close(result.photos[0].activations, expected, rtol=1e-3, atol=1e-4)
    check_wordless(result, tmp_path)


def test_the_keys_of_a_pooling_are_not_chosen():
    settings = {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 2, "num_classes": 0}
    model = seeded(lambda: timm.create_model("vit_base_patch16_siglip_224", **settings))
    assert "attn_pool.kv" in dict(model.named_modules())
    assert Explainer(model, preprocessing=Preprocessing(size=64)).layer == "norm"


def test_a_convolutional_backbone_ends_at_its_last_grid(photo):
    model = seeded(lambda: timm.create_model("test_resnet", num_classes=0))
    explainer = Explainer(LoadedModel(model, "mine", Preprocessing(size=64)))
    assert explainer.layer == "layer4"
    assert explainer(photo, concepts=2).predictions() == []


def test_a_projection_beside_texts_is_no_head(monkeypatch):
    module = seeded(lambda: timm.create_model("test_vit"))
    assert describe(module).unscored is None
    settings = {**module.pretrained_cfg, "tag": "openai_clip", "num_classes": module.num_classes}
    monkeypatch.setattr(module, "pretrained_cfg", settings)
    assert "beside texts" in describe(module).unscored
    monkeypatch.setattr(module, "pretrained_cfg", {**settings, "tag": "clip_ft_in1k"})
    assert describe(module).unscored is None


def test_zero_classes_make_a_backbone_of_any_model():
    loaded = load_model("timm:test_vit", weights="random", num_classes=0)
    explainer = Explainer(loaded)
    assert explainer.layer == "norm"
    assert "asked for with 0 classes" in explainer.unscored
    assert Explainer(load_model("timm:test_vit", weights="random")).layer == "blocks.4"


def test_pictures_show_concepts_and_no_classes(dino, photo, monkeypatch):
    shown = []

    def panel(pictures, *, legend):
        shown.append(([title for title, _ in pictures], legend))

    monkeypatch.setattr("dff.rendering.panel", panel)
    Explainer(f"hf:{dino}")(photo, concepts=2).panel()
    ((titles, legend),) = shown
    assert titles == ["image", "2 concepts"]
    assert [entry.title for entry in legend.entries] == ["Concept 1", "Concept 2"]
    assert legend.heads == [("concept", "share of activations")]
    assert legend.columns == []
    assert [entry.lines for entry in legend.entries] == [[], []]


def test_modules_of_ones_own(photo):
    model = built("Dinov2Model", "Dinov2Config", VIT)
    explainer = Explainer(model)
    assert "returns hidden states and no logits" in explainer.unscored
    assert explainer(photo, concepts=2).predictions() == []
    scored = Explainer(model, score=lambda output: output.pooler_output[:, :4])
    assert scored.unscored is None
    assert scored(photo, concepts=2).scores.shape == (2, 4)


def test_likeness_to_texts_is_a_score(photo):
    model = built("CLIPVisionModelWithProjection", "CLIPVisionConfig", {**FED, "projection_dim": 8})
    texts = images(2, 8) - 0.5
    assert Explainer(model).unscored
    result = Explainer(
        model, score=lambda output: output.image_embeds @ texts.T, class_names=["horse", "meadow"]
    )(photo, concepts=2)
    assert {c.name for c in result.top_classes(0)} == {"horse", "meadow"}
    assert result.cam("horse").shape == (80, 80)


def test_a_masked_autoencoder_sees_all_patches_in_their_order(tmp_path):
    module = load_model(f"hf:{saved(tmp_path, 'mae')}").module
    x = images(1, 3, 64, 64)
    moved = x.clone()
    moved[..., 16:32, 32:48] += 3  # row 1, column 2
    with torch.no_grad():
        change = (module(moved)[0] - module(x)[0])[0, 1:].square().sum(1)
    assert change.argmax() == 1 * 4 + 2
    with pytest.raises(ModelError, match="drops patches by chance and shuffles"):
        Explainer(built("ViTMAEModel", "ViTMAEConfig", MAE))


def test_a_head_of_the_checkpoint_is_scored_as_ever(tmp_path, photo):
    settings = {**VIT, "id2label": {0: "ant", 1: "bee"}, "num_labels": 2}
    built("Dinov2ForImageClassification", "Dinov2Config", settings).save_pretrained(tmp_path)
    with silent():
        loaded = load_model(f"hf:{tmp_path}")
    assert loaded.unscored is None
    result = Explainer(loaded)(photo, concepts=2)
    assert {c.name for c in result.predictions()} == {"ant", "bee"}
    assert result.cam("bee").shape == (80, 80)


def test_a_head_that_the_checkpoint_lacks_is_never_scored(tmp_path, photo):
    built("Dinov2ForImageClassification", "Dinov2Config", VIT).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = {k: v for k, v in load_file(file).items() if "classifier" not in k}
    save_file(state, file, {"format": "pt"})
    with pytest.warns(UserWarning, match=r"lacks the weights of a head \(classifier\.bias, class"):
        loaded = load_model(f"hf:{tmp_path}")
    result = Explainer(loaded)(photo, concepts=2)
    assert result.predictions() == []
    with pytest.raises(ModelError, match=r"lacks the weights of a head \(classifier\.bias"):
        result.cam(0)


def test_a_teacher_of_two_heads_keeps_both(tmp_path):
    kind = "DeiTForImageClassificationWithTeacher"
    built(kind, "DeiTConfig", {**FED, "num_labels": 3}).save_pretrained(tmp_path)
    with silent():
        loaded = load_model(f"hf:{tmp_path}")
    assert type(loaded.module).__name__ == kind
    assert loaded.unscored is None


def test_weights_of_a_backbone_in_a_file(dino, tmp_path, photo):
    file = tmp_path / "other.safetensors"
    other = built("Dinov2Model", "Dinov2Config", VIT)
    nn.init.constant_(other.layernorm.bias, 7.0)
    save_file(other.state_dict(), file)
    loaded = load_model(f"hf:{dino}", weights=file)
    assert loaded.module.layernorm.bias.tolist() == [7] * 24
    assert loaded.unscored


def test_weights_that_lack_the_head(tmp_path, photo):
    name, file = "shufflenet_v2_x0_5", tmp_path / "net.safetensors"
    state = torchvision.models.get_model(name).state_dict()
    save_file({k: v for k, v in state.items() if not k.startswith("fc.")}, file)
    with pytest.warns(UserWarning, match=r"lacks the weights of a head \(fc\.weight, fc\.bias\)"):
        loaded = load_model(name, weights=file, size=64)
    result = Explainer(loaded)(photo, concepts=2)
    assert result.bank.layer == "conv5"
    assert result.predictions() == []
    save_file({k: v for k, v in state.items() if k not in ("fc.bias", "conv1.0.weight")}, file)
    with pytest.raises(ModelError, match=r"2 missing \(conv1\.0\.weight, fc\.bias\)"):
        load_model(name, weights=file)


def test_half_precision_is_loaded_as_float32(tmp_path):
    built("Dinov2Model", "Dinov2Config", VIT).half().save_pretrained(tmp_path)
    module = load_model(f"hf:{tmp_path}").module
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_models_without_an_image_tower_say_so(tmp_path):
    config = hf.CLIPTextConfig(**TEXT)
    seeded(lambda: hf.CLIPTextModel(config)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="the model failed on an input of shape"):
        Explainer(f"hf:{tmp_path}")


def test_a_backbone_without_a_grid():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8))
    flat.num_classes, flat.pretrained_cfg = 0, {"mean": 0.5, "std": 0.5, "input_size": (3, 32, 32)}
    with pytest.raises(LayerError, match="no layer of this model has a grid of more than one cell"):
        Explainer(flat)


def test_small_images(dino, photo):
    explainer = Explainer(f"hf:{dino}")
    assert explainer(photo[:5, :5], concepts=2).heatmaps().shape == (2, 5, 5)
    with pytest.raises((ModelError, LayerError), match="input"):
        explainer(images(3, 9, 9), concepts=2)  # normalised already: a patch has 16 px


@pytest.fixture
def dff(tmp_path, capfd, monkeypatch, photo):
    """Run a command in-process beside a photo; return (status, stdout, stderr)."""
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate((photo, photo[::-1], photo[:, ::-1])):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        return end.value.code, *capfd.readouterr()

    return run


def test_analyze_says_nothing_of_classes(dino, dff, tmp_path):
    status, out, err = dff("analyze", "photos/0.png", "-k", 3, "--model", f"hf:{dino}")
    assert (status, err) == (0, "")
    assert "class" not in out
    assert "Concept 3" in out
    assert {p.name for p in (tmp_path / "dff-out").iterdir()} >= {"0_concepts.png", "0_panel.png"}
    status, out, _ = dff("analyze", "photos/0.png", "--model", f"hf:{dino}", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["images"][0]["predictions"] == []
    assert "has no classification head" in facts["unscored"]


@pytest.mark.parametrize("ask", [["--target", "3"], ["--evidence", "ablation"], ["--check"]])
def test_asking_for_scores_is_answered_in_one_line(ask, dino, dff, tmp_path):
    status, out, err = dff("analyze", "photos/0.png", "--model", f"hf:{dino}", *ask)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "(Dinov2Model) has no classification head: it gives concepts" in err
    assert not list((tmp_path / "dff-out").glob("*.png"))


def test_sweep_and_layers(dino, dff, tmp_path):
    status, out, _ = dff("sweep", "photos/0.png", "-k", "2:3", "--model", f"hf:{dino}")
    assert status == 0
    assert "class" not in out
    assert (tmp_path / "dff-out" / "0_tree.png").exists()
    status, out, _ = dff("layers", "-m", f"hf:{dino}", "--json")
    rows = {row["layer"]: row for row in json.loads(out)}
    assert rows["layernorm"]["default"]
    assert rows["encoder.layer.2.attention.k_proj"]["rows"] == 4


def test_a_dataset(dino, dff, tmp_path):
    status, out, _ = dff("colocalize", "photos", "-o", "run", "-k", 2, "--model", f"hf:{dino}")
    assert status == 0
    assert "class" not in out
    table = {name: pq.read_table(tmp_path / "run" / f"{name}.parquet") for name in
             ("images", "scores", "concepts", "labels", "instances")}  # fmt: skip
    assert len(table["scores"]) == len(table["labels"]) == 0
    assert "logit" in table["scores"].column_names
    assert table["images"]["predicted"].null_count == 3
    assert table["concepts"]["top_classes"].null_count == 2
    assert len(table["instances"]) == 6
    status, _, err = dff("find", "run", "--concept", 1)
    assert (status, err) == (0, "")
    words = ("analyze", "photos/1.png", "--bank", "run/bank.safetensors", "--model", f"hf:{dino}")
    assert dff(*words)[0] == 0


def test_a_dataset_of_one_image(dino, dff, tmp_path):
    (tmp_path / "one.txt").write_text("photos/0.png\n")
    status, _, err = dff("colocalize", "one.txt", "-o", "run", "-k", 2, "--model", f"hf:{dino}")
    assert (status, err) == (0, "")
    assert len(pq.read_table(tmp_path / "run" / "images.parquet")) == 1


def test_a_layer_without_a_say_gets_no_scores_in_a_run(dff, tmp_path):
    from dff.colocalization.stages.network import Network
    from dff.concepts import factorize

    model = seeded(lambda: timm.create_model("test_vit"))
    network = Network(Explainer(model, layer="norm", preprocessing=Preprocessing(size=160)))
    rows = network(np.zeros((1, 160, 160, 3), np.uint8)).rows[0]
    bank = factorize(rows + torch.rand(rows.shape), 2, layer="norm")[0]
    assert network.classes == 1000
    assert network.concept_logits(bank) is None


def test_models_with_heads_keep_their_words(photo):
    prep = Preprocessing(size=32)
    result = Explainer(seeded(ConvNet), preprocessing=prep)(photo, concepts=2)
    assert len(result.predictions()) == 5
    assert not result.shared.headless


@pytest.mark.parametrize("name", ["horse005.jpg", "horse004.jpg"])
def test_real_dino_features_find_the_horse(shared, name):
    """The concepts of one photo tell the horse from what is around it, at the default layer."""
    explainer = Explainer(load_model(f"hf:{shared / 'models/vit_s14_dinov2_style'}", size=224))
    assert explainer.layer == "layernorm"
    assert explainer.dtype == torch.float32
    horses = shared / "data/horses"
    result = explainer(horses / "images" / name, concepts=4)
    truth = np.asarray(Image.open(horses / "masks" / name.replace(".jpg", ".png"))) > 0
    shown = result.heatmaps(truth.shape).argmax(0)
    inside = [k for k in range(4) if (shown == k).any() and truth[shown == k].mean() > 0.5]
    found = np.isin(shown, inside)
    assert (found & truth).sum() / (found | truth).sum() > 0.7
    assert result.predictions() == []
