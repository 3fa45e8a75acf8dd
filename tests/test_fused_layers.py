"""Queries, keys and values of an attention block as layers: ``blocks.3.attn.qkv:key``."""

import json

import pytest
import torch
from torch import nn

from dff.activations import STOP, Appended, intercept, resolve_layer
from dff.activations.layers import probe_input, survey
from dff.activations.layouts import Layout
from dff.cli import main
from dff.concepts import ConceptBank
from dff.errors import BankError, LayerError
from dff.explain import Explainer
from dff.images import Preprocessing
from tests.toys import images, seeded, untouched

FUSED = "blocks.1.attn.qkv"


class Attention(nn.Module):
    """One head of attention with a fused layer, as timm writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        query, key, value = self.qkv(x).chunk(3, -1)
        return self.proj((query @ key.transpose(1, 2)).softmax(-1) @ value)


class Block(nn.Module):
    def __init__(self, width: int, skip: bool) -> None:
        super().__init__()
        self.attn = Attention(width)
        self.fc = nn.Linear(width, 3 * width)
        self.skip = skip

    def forward(self, x):
        if not self.skip:
            return self.attn(x)
        return x + self.attn(x) + self.fc(x)[..., : x.shape[-1]]


class FusedNet(nn.Module):
    """Patches of 8 px, a class token, two blocks with fused attention, a class-token head."""

    def __init__(self, width: int = 6, classes: int = 4, *, skip: bool = True) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.Sequential(Block(width, skip), Block(width, skip))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.head(self.blocks(x)[:, 0])


@pytest.fixture
def model():
    return seeded(FusedNet)


def output_of(model, name, x):
    kept = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, i, o: kept.append(o))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize(("part", "at"), [("query", 0), ("key", 1), ("value", 2)])
def test_a_part_is_a_third_of_the_channels(model, part, at):
    x, kept = images(2, 3, 32, 24), []
    with untouched(model):
        assert intercept(model, f"{FUSED}:{part}", lambda m: kept.append(m) or STOP, x) is None
    third = output_of(model, FUSED, x)[:, 1:, 6 * at : 6 * at + 6]
    assert torch.equal(kept[0], third.transpose(1, 2).reshape(2, 6, 4, 3))


def test_what_replaces_a_part_leaves_the_others(model):
    x = images(2, 3, 32, 32)
    fused = output_of(model, FUSED, x).clone()
    fused[:, 1:, 6:12] *= 3
    handle = model.get_submodule(FUSED).register_forward_hook(lambda m, i, o: fused)
    expected = model(x).detach()
    handle.remove()
    with untouched(model):
        got = intercept(model, f"{FUSED}:key", lambda maps: 3 * maps, x)
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(got, model(x))


def test_appended_keys_meet_the_queries_and_values_of_their_image():
    model, x = seeded(FusedNet, skip=False), images(2, 3, 32, 32)
    plain = model(x).detach()
    swapped = intercept(model, f"{FUSED}:key", lambda maps: maps.flip(0), x)

    def append(maps):
        return Appended(torch.cat([maps[1:], maps[1:]]), torch.tensor([1, 0]))

    got = intercept(model, f"{FUSED}:key", append, x)
    # the class token's own key stays the image's, as does all that is no grid
    torch.testing.assert_close(got, torch.cat([plain, plain[1:], swapped[:1]]))


def test_gradients_reach_a_part(model):
    kept, x = [], images(1, 3, 32, 32)
    logits = intercept(model, f"{FUSED}:value", kept.append, x, grad=True)
    (gradient,) = torch.autograd.grad(logits[0, 0], kept[0])
    step = torch.zeros_like(kept[0])
    step[0, 2, 1, 3] = 1e-2
    moved = intercept(model, f"{FUSED}:value", lambda maps: maps + step, x)
    difference = float(moved[0, 0] - logits[0, 0].detach()) / 1e-2
    assert difference == pytest.approx(float(gradient[0, 2, 1, 3]), rel=1e-2)


@pytest.mark.parametrize("kind", ["maps", "channels_last"])
def test_other_layouts_have_parts(kind):
    layout = Layout(kind, 4, 5, part="key")
    output = images(2, 9, 4, 5) if kind == "maps" else images(2, 4, 5, 9)
    maps = layout.to_maps(output)
    assert maps.shape == (2, 3, 4, 5)
    before = output.clone()
    written = layout.from_maps(maps + 1, output)
    assert torch.equal(output, before)
    change = (written - before).flatten(0)
    assert int((change != 0).sum()) == maps.numel()
    torch.testing.assert_close(layout.to_maps(written), maps + 1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("blocks.1.fc:key", r"layer 'blocks\.1\.fc' \(Linear, 6 to 18 channels\) has no part 'key'"
                            r": expected a layer named qkv .* did you mean 'blocks\.1\.attn\.qkv"),
        ("blocks.1:value", r"layer 'blocks\.1' \(Block\) has no part 'value'"),
        ("blocks.1.attn.qkv:keys", r"has no layer 'blocks\.1\.attn\.qkv:keys'; did you mean"),
        ("blocks.1.attn:key", r"no part 'key'.*did you mean 'blocks\.1\.attn\.qkv:key'"),
        ("blocks.9.attn.qkv:key", r"has no layer 'blocks\.9\.attn\.qkv:key'"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(layer, message, model):
    with pytest.raises(LayerError, match=message):
        resolve_layer(model, layer)


def test_keys_that_are_layers_of_their_own_are_pointed_at():
    model = nn.ModuleDict({"attention": nn.ModuleDict({"k_proj": nn.Linear(4, 4)})})
    for layer in ("attention:key", "attention.k_proj:key"):
        with pytest.raises(LayerError, match=r"a layer of its own, 'attention\.k_proj'"):
            resolve_layer(model, layer)
    with pytest.raises(LayerError, match=r"the model has no such layer"):
        resolve_layer(model, "attention:value")


def test_a_layout_of_ones_own_has_no_parts(model):
    def read(output):
        return output[:, 1:].transpose(1, 2).unflatten(2, (4, 4))

    with pytest.raises(LayerError, match=r"reads all of a layer: name it without :key"):
        intercept(model, f"{FUSED}:key", lambda maps: None, images(1, 3, 32, 32), layout=read)


def test_the_survey_lists_parts_and_chooses_none(model):
    found = survey(model, probe_input((32, 32), model))
    assert [one.name for one in found.layers if one.name.startswith(FUSED)] == [
        FUSED, f"{FUSED}:query", f"{FUSED}:key", f"{FUSED}:value",
    ]  # fmt: skip
    assert found[f"{FUSED}:key"].channels == 6
    assert found[f"{FUSED}:key"].reaches
    assert not found[f"{FUSED}:query"].reaches  # the class token's query alone is read
    assert found.default().name == "blocks.0"


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_part_is_explained_like_any_layer(model, part, tmp_path):
    prep, layer = Preprocessing(size=32, mean=0.5, std=0.25), f"{FUSED}:{part}"
    explainer = Explainer(model, layer=layer, preprocessing=prep)
    assert explainer.layer == layer
    photo = (images(40, 40, 3) * 255).byte().numpy()
    with untouched(model):
        result = explainer(photo, concepts=2)
        assert result.contributions(1).relative_gap.max() < 0.02
        assert result.cam(1).shape == (40, 40)
        logits = result.concept_module()(result.photos[0].coefficients[None])
    torch.testing.assert_close(logits[0], result.logits[0], rtol=1e-4, atol=1e-4)
    result.bank.save(tmp_path / "bank.safetensors")
    bank = ConceptBank.load(tmp_path / "bank.safetensors")
    assert explainer(photo, bank=bank).bank.layer == layer
    with pytest.raises(BankError):
        Explainer(model, layer=FUSED, preprocessing=prep)(photo, bank=bank)


def test_a_dataset_in_keys(model, tmp_path):
    from tests.colocalized import colocalize, photos

    explainer = Explainer(model, layer=f"{FUSED}:key", preprocessing=Preprocessing(size=32))
    run = colocalize(photos(tmp_path / "data", 4), tmp_path / "run", model=explainer, concepts=2)
    assert run.bank.layer == f"{FUSED}:key"
    assert run.bank.components.shape == (2, 6)


def test_timm_and_the_command_line(capfd):
    timm = pytest.importorskip("timm", reason="needs timm (the test extra)")
    model, x = seeded(lambda: timm.create_model("test_vit")), images(1, 3, 160, 160)
    kept = []
    intercept(model, "blocks.3.attn.qkv:key", lambda m: kept.append(m) or STOP, x)
    attention = model.blocks[3].attn
    with torch.no_grad():
        seen = []
        handle = attention.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        model(x)
        handle.remove()
        shape = (1, -1, 3, attention.num_heads, attention.head_dim)
        key = attention.qkv(seen[0]).reshape(shape)[0, 1:, 1].flatten(1)  # as timm splits it
    torch.testing.assert_close(kept[0][0].flatten(1).T, key)
    with pytest.raises(SystemExit) as end:
        main(["layers", "-m", "timm:test_vit", "--json"])
    rows = {row["layer"]: row for row in json.loads(capfd.readouterr().out)}
    assert end.value.code == 0
    assert rows["blocks.3.attn.qkv:key"]["channels"] == 64
    assert rows["blocks.3.attn.qkv"]["channels"] == 192
