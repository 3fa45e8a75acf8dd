"""Banks: kept in files, refused elsewhere, named, merged, compared, encoded against."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import dff
from dff import ConceptBank
from dff.errors import BankError, OutputError, UsageError
from dff.maps import full_presence
from tests.toys import ConvNet, images, seeded

PREP = dff.Preprocessing(size=32, mean=0.5, std=0.25, fixed=True)


def bank(k=4, channels=6, *, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    facts = {
        "components": torch.rand(k, channels, generator=generator),
        "scale": torch.rand(k, generator=generator) + 0.5,
        "shares": torch.tensor([0.4, 0.3, 0.1, 0.05])[:k],
        "rest": 0.15,
        "model": "resnet50",
        "layer": "layer4",
    }
    return ConceptBank(**{**facts, **kwargs})


def test_a_bank_comes_back_as_it_was(tmp_path):
    kept = bank(signed=True).renamed({1: "ear", 3: "Ünïcode 耳"})
    path = kept.save(tmp_path / "bank.safetensors")
    back = ConceptBank.load(path)
    for field in dataclasses.fields(ConceptBank):
        ours, theirs = getattr(kept, field.name), getattr(back, field.name)
        same = torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
        assert same, field.name
    assert back.versions["torch"] == torch.__version__
    again = back.save(tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes(), "equal banks are equal bytes"


def test_names_and_colours_are_there_from_the_start():
    one = bank()
    assert one.names == ("Concept 1", "Concept 2", "Concept 3", "Concept 4")
    assert one.colors.shape == (4, 3)
    assert one.colors.dtype == np.uint8
    assert len({tuple(c) for c in one.colors.tolist()}) == 4


def test_files_that_are_no_banks(tmp_path):
    with pytest.raises(BankError, match="cannot read the concept bank"):
        ConceptBank.load(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(BankError, match="cannot read the concept bank"):
        ConceptBank.load(tmp_path / "text")
    save_file({"a": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(BankError, match="is not a concept bank of this version"):
        ConceptBank.load(tmp_path / "other")
    about = {"format": "dff-concept-bank-2", "names": ["a"], "rgb": [[1, 2, 3]]}
    save_file(
        {"components": torch.ones(1, 2)}, tmp_path / "half", {"concept_bank": json.dumps(about)}
    )
    with pytest.raises(BankError, match="is damaged"):
        ConceptBank.load(tmp_path / "half")
    save_file({"a": torch.ones(1)}, tmp_path / "junk", {"concept_bank": "[1"})
    with pytest.raises(BankError, match="is damaged"):
        ConceptBank.load(tmp_path / "junk")
    with pytest.raises(BankError, match=r"expected components \(k, channels\), scale"):
        bank(scale=torch.ones(3))
    path = bank().save(tmp_path / "good")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BankError, match="cannot read the concept bank"):
        ConceptBank.load(path)
    with pytest.raises(OutputError, match="cannot write"):
        bank().save(tmp_path / "no" / "folder")
    with pytest.raises(BankError, match="4 concepts, but 1 names"):
        bank(names=("one",))


def test_another_model_or_layer_is_refused_with_both_named():
    one = bank()
    one.check("resnet50", "layer4")
    one.check("", "layer4")
    with pytest.raises(BankError, match=r"'layer4' of 'resnet50', not for layer 'layer3' of 'resn"):
        one.check("resnet50", "layer3")
    with pytest.raises(
        BankError, match=r"of 'resnet50', not for layer 'layer4' of 'vgg16'.*renamed"
    ):
        one.check("vgg16", "layer4")
    one.renamed(model="vgg16").check("vgg16", "layer4")
    result = dff.Explainer(seeded(ConvNet), preprocessing=PREP)(images(1, 3, 32, 32), concepts=2)
    other = result.bank.renamed(model="resnet18")
    with pytest.raises(BankError, match="'resnet18', not for layer 'layer4' of 'ConvNet'"):
        dff.Explainer(seeded(ConvNet), preprocessing=PREP)(images(1, 3, 32, 32), bank=other)


def test_encoding_finds_the_coefficients_again():
    one = bank()
    w = torch.rand(50, 4, generator=torch.Generator().manual_seed(2)) * (torch.arange(4) != 1)
    torch.testing.assert_close(one.encode(w @ one.components), w, atol=1e-2, rtol=1e-2)
    with pytest.raises(BankError, match=r"have 6 channels \(resnet50, layer layer4\).* 5"):
        one.encode(torch.ones(3, 5))


def test_encoding_new_images_keeps_concepts_and_colours(tmp_path):
    ready = dff.Explainer(seeded(ConvNet), preprocessing=PREP)
    kept = ready(images(2, 3, 32, 32), concepts=3).bank.renamed({0: "sky"})
    loaded = ConceptBank.load(kept.save(tmp_path / "bank"))
    result = ready(images(1, 3, 32, 32, seed=5), bank=loaded)
    assert result.bank.names[0] == "sky"
    np.testing.assert_array_equal(result.bank.colors, kept.colors)
    assert result.contributions(0).relative_gap < 1e-4


def test_merging_makes_one_of_several():
    one = bank()
    merged = one.merged([0, 2], name="wing")
    assert len(merged) == 3
    assert merged.names == ("wing", "Concept 2", "Concept 4")
    torch.testing.assert_close(merged.shares, torch.tensor([0.5, 0.3, 0.05]))
    full = one.at_full_presence
    torch.testing.assert_close(merged.at_full_presence[0], 0.8 * full[0] + 0.2 * full[2])
    torch.testing.assert_close(merged.components[0].norm(), torch.tensor(1.0))
    assert merged.rgb == (one.rgb[0], one.rgb[1], one.rgb[3])
    assert len(one) == 4, "the bank itself is not changed"
    assert one.merged([1, 0]).names[0] == "Concept 2 + Concept 1"
    for wrong in ([0], [1, 1], []):
        with pytest.raises(UsageError, match="two or more different concepts"):
            one.merged(wrong)
    with pytest.raises(UsageError, match="no concept 4: the bank has 0 to 3"):
        one.merged([0, 4])
    with pytest.raises(UsageError, match="no concept -1"):
        one.renamed({-1: "x"})


def test_nearest_concepts_of_two_banks():
    one = bank()
    order = [2, 0, 3, 1]
    other = bank(components=one.components[order] * 3)
    found = one.nearest(other)
    assert [order[i] for i in found.index] == [0, 1, 2, 3]
    torch.testing.assert_close(found.similarity, torch.ones(4))
    assert found.cosines.shape == (4, 4)
    with pytest.raises(BankError, match="not for layer 'layer4' of 'resnet50'"):
        one.nearest(bank(layer="layer3"))
    with pytest.raises(BankError, match="6 and 7 channels"):
        one.nearest(bank(channels=7))


def test_full_presence_is_a_high_quantile_of_what_is_there():
    coefficients = torch.zeros(1000, 2)
    coefficients[:101, 0] = torch.linspace(0, 1, 101)
    torch.testing.assert_close(
        full_presence(coefficients), torch.tensor([0.99, 0.0]), atol=0.01, rtol=0
    )
