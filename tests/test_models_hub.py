"""Models of a hub that does not answer: one clear error at once, and everything as it was."""

import logging
import time

import pytest

import dff
from dff.errors import ModelError

constants = pytest.importorskip("huggingface_hub.constants")
log = pytest.importorskip("huggingface_hub.utils.logging")


@pytest.fixture
def closed(monkeypatch, tmp_path):
    """A hub on a port where nobody answers, and an empty cache."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("package", "model", "advice"),
    [
        ("transformers", "hf:nobody/nothing", "give hf:FOLDER"),
        ("timm", "timm:resnet18", "give --weights FILE"),
    ],
)
def test_a_closed_hub_is_said_at_once(closed, package, model, advice, capfd, caplog):
    pytest.importorskip(package)
    before = log.get_verbosity()
    since = time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ModelError, match=f"127.0.0.1 cannot be reached .*{advice}.*--model demo"),
    ):
        dff.load_model(model)
    assert time.monotonic() - since < 15, "six tries take half a minute"
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert constants.HF_HUB_OFFLINE is False
    assert log.get_verbosity() == before


def test_a_name_that_does_not_resolve_is_not_waited_for(closed, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr("dff.models.hub.PATIENCE", 0.2)

    def silent(*_):
        time.sleep(2)
        raise OSError("too late")

    monkeypatch.setattr("socket.create_connection", silent)
    with pytest.raises(ModelError, match="no answer"):
        dff.load_model("hf:nobody/nothing")


def test_a_folder_that_is_not_there():
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match=r"'\./none' cannot be had: no such folder"):
        dff.load_model("hf:./none")


def test_default_weights_that_cannot_be_had(monkeypatch, tmp_path):
    from torchvision import models

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(models, "get_model", offline)
    with pytest.raises(ModelError) as failed:
        dff.load_model("resnet18")
    for part in (str(tmp_path / "checkpoints"), "resnet18-f37072fd.pth", "--weights", "demo"):
        assert part in str(failed.value)
