"""Files from elsewhere: refused in one line, in little time and memory."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from dff.concepts import ConceptBank
from dff.concepts.bank_file import FORMAT
from dff.errors import BankError, ModelError, UsageError, shortened
from dff.labels import read_labels
from dff.models.weights import load_weights, read_weights
from tests.toys import ConvNet, seeded


def bank_file(folder, *, text=None, tensors=None, **changed):
    facts = {"format": FORMAT, "model": "m", "layer": "l", "signed": False, "rest": 0.1,
             "names": ["a", "b"], "rgb": [[1, 2, 3], [4, 5, 6]], "versions": {}}  # fmt: skip
    facts |= changed
    held = {"components": torch.ones(2, 3), "scale": torch.ones(2), "shares": torch.ones(2)}
    path = folder / "bank.safetensors"
    save_file(held | (tensors or {}), path, {"concept_bank": text or json.dumps(facts)})
    return path


@pytest.mark.parametrize(
    "tensors",
    [
        {"components": -torch.ones(2, 3)},
        {"components": torch.full((2, 3), torch.nan)},
        {"components": torch.full((2, 3), torch.inf)},
        {"components": torch.ones(2, 3, dtype=torch.int64)},
        {"components": torch.ones(2, 3, 1)},
        {"components": torch.ones(0, 3)},
        {"scale": torch.tensor([1.0, torch.nan])},
        {"scale": -torch.ones(2)},
        {"shares": torch.ones(3)},
        {"shares": torch.tensor([torch.inf, 0.0])},
    ],
)
def test_banks_of_impossible_numbers(tmp_path, tensors):
    with pytest.raises(BankError, match="damaged") as caught:
        ConceptBank.load(bank_file(tmp_path, tensors=tensors))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "changed",
    [
        {"names": [1, 2]},
        {"names": ["a" * 10_000_000, "b"]},
        {"names": 3},
        {"rgb": [[0, 0, 256], [0, 0, 0]]},
        {"rgb": [[0, 0, 1e400], [0, 0, 0]]},
        {"rgb": [[0, 0], [0, 0, 0]]},
        {"rest": "much"},
        {"signed": "no"},
        {"model": None},
        {"unknown\n" * 1000: 1},
        {"text": '{"format": ' + "[" * 200_000},
        {"text": "[]"},
        {"text": "nothing"},
    ],
)
def test_banks_of_impossible_facts(tmp_path, changed):
    with pytest.raises(BankError) as caught:
        ConceptBank.load(bank_file(tmp_path, **changed))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"\x00\x01\n", b"a" * 2_000_000])
def test_labels_that_are_none(tmp_path, content):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="labels") as caught:
        read_labels(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"w": torch.zeros(1 << 20)}, plain)
    assert len(read_weights(plain)["w"]) == 1 << 20
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    with pytest.raises(ModelError, match=r"refused: a file of .* bytes that unpacks to"):
        read_weights(bomb)


def test_weights_that_hold_themselves(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "cyclic.pth")
    with pytest.raises(ModelError, match="nested more than"):
        read_weights(tmp_path / "cyclic.pth")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.empty(3, device="meta"), "meta"),
        ("text", "no tensors"),
    ],
)
def test_weights_that_are_not_plain(tmp_path, tensor, message):
    torch.save({"w": tensor}, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / "odd.pth")


def test_keys_are_shown_on_one_short_line():
    with pytest.raises(ModelError) as caught:
        load_weights(seeded(ConvNet), {"a\n\x1b[2J" * 10_000: torch.ones(1)}, "weights.pth")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert shortened("a\nb") == "a\\nb"
