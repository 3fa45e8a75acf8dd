"""The embedded model: it reads like a ResNet, knows unseen creatures, and can be trained anew."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from dff.demo import model
from dff.errors import ModelError

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "train_demo_model.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("train_demo_model", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_demo_model"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["train_demo_model"]


def test_reads_like_a_resnet() -> None:
    network = model.load()
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    stages = [name for name, _ in network.named_children()]
    assert stages[-3:] == ["layer4", "avgpool", "fc"]
    assert isinstance(network.fc, nn.Linear)
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 128, 128)).shape == (2, len(model.CLASS_NAMES))
        assert network(torch.zeros(1, 3, 200, 144)).shape == (1, len(model.CLASS_NAMES))


def test_weights_are_small() -> None:
    file = resources.files("dff.demo") / "weights.safetensors"
    assert len(file.read_bytes()) <= 4 * 2**20


@pytest.mark.parametrize(("swapped", "least"), [(False, 0.97), (True, 0.9)])
def test_accuracy_on_unseen_creatures(script: ModuleType, swapped: bool, least: float) -> None:
    start = script.UNSEEN + 100_000
    images, labels, _ = script.render(range(start, start + 150), swapped=swapped, workers=1)
    assert script.accuracy(model.load(), images, labels) >= least


def test_tiny_training_run(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights.safetensors"
    state = torch.get_rng_state()
    small = ["--images", "24", "--epochs", "2", "--batch", "8", "--workers", "1"]
    figures = script.main([*small, "--test-images", "8", "--out", str(out)])
    assert out.stat().st_size <= 4 * 2**20
    assert set(figures) == {"unseen", "swapped"}
    losses = [
        float(line.split("loss ")[1].split(",")[0])
        for line in capsys.readouterr().out.splitlines()
        if "loss" in line
    ]
    assert losses[1] < losses[0]
    torch.testing.assert_close(torch.get_rng_state(), state)


def test_one_seed_gives_one_training_run(script: ModuleType) -> None:
    data = script.render(range(8), chimeras=True, workers=1)
    images, before = data[0], data[0].clone()
    first, second = (script.train(*data, epochs=1, batch=4, seed=3) for _ in range(2))
    torch.testing.assert_close(first.fc.weight, second.fc.weight)
    torch.testing.assert_close(images, before)


def test_rendering_in_processes_gives_the_same_images(script: ModuleType) -> None:
    images, labels, _ = script.render(range(300), workers=2)
    again, same, _ = script.render(range(250, 300), workers=1)
    np.testing.assert_array_equal(images[250:].numpy(), again.numpy())
    np.testing.assert_array_equal(labels[250:].numpy(), same.numpy())


def test_chimeras_have_no_species_but_kinds(script: ModuleType) -> None:
    _, labels, kinds = script.render(range(40), chimeras=True, workers=1)
    assert (labels.view(-1, 2) >= 0).tolist() == [[True, False]] * 20
    assert kinds.shape == (40, len(script.KINDS))
    assert (kinds[:, 0] > 0).all()  # every animal has a head
    assert 0 < int((kinds[:, -1] > 0).sum()) < 40  # not every one has horns


def test_missing_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_WEIGHTS", "absent.safetensors")
    with pytest.raises(ModelError, match=r"found none; install the package again"):
        model.load()
