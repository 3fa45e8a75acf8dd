import http.server
import pickle
import threading
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from dff.errors import MissingExtraError, ModelError, UsageError
from dff.explain import Explainer
from dff.labels import class_index, class_name, read_labels
from dff.models import LoadedModel, describe, list_models, load_model, read_weights

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """SqueezeNet's weights for three classes, as safetensors and as a checkpoint."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.get_model(NAME, num_classes=3).state_dict()
    save_file(state, folder / "net.safetensors")
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    torch.save(wrapped, folder / "net.pth")
    (folder / "labels.txt").write_text("ant\nbee, honeybee\ncat\n\n")
    return folder, state


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_local_weights(weights, suffix):
    folder, state = weights
    loaded = load_model(
        NAME, weights=folder / f"net.{suffix}", labels=folder / "labels.txt", mean=0.5, std=0.25
    )
    for key, value in loaded.module.state_dict().items():
        assert torch.equal(value, state[key])
    assert loaded.class_names == ("ant", "bee, honeybee", "cat")
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    assert loaded.preprocessing.size == 224
    assert not loaded.module.training


def test_the_number_of_classes_comes_from_the_weights(weights):
    folder, _ = weights
    loaded = load_model("resnet18", weights="random", num_classes=7)
    assert loaded.module.fc.out_features == 7
    for name in ("net.pth", "net.safetensors"):
        assert load_model(NAME, weights=folder / name).module.classifier[1].out_channels == 3


def test_weights_that_do_not_fit_are_named(weights):
    folder, _ = weights
    with pytest.raises(ModelError, match=r"do not fit ResNet: 1\d\d missing \(conv1\.weight, .*…"):
        load_model("resnet18", weights=folder / "net.pth")
    with pytest.raises(ModelError, match=r"misshapen \(classifier\.1\.weight \(3, 512, 1, 1\) for"):
        load_model(NAME, weights=folder / "net.pth", num_classes=4)


def test_weights_that_cannot_be_read(weights, tmp_path):
    folder, _ = weights
    with pytest.raises(ModelError, match=r"does not exist; did you mean 'net\."):
        read_weights(folder / "met.pth")
    with pytest.raises(ModelError, match="is a directory"):
        read_weights(folder)
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((folder / "net.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="are damaged"):
        read_weights(broken)
    short = tmp_path / "short.pth"
    short.write_bytes((folder / "net.pth").read_bytes()[:5000])
    with pytest.raises(ModelError, match="are damaged"):
        read_weights(short)
    text = tmp_path / "text.pth"
    text.write_text("no weights at all")
    with pytest.raises(ModelError, match=r"not a PyTorch file|are damaged"):
        read_weights(text)
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 1}, empty)
    with pytest.raises(ModelError, match="hold no tensors"):
        read_weights(empty)
    torch.save([1, 2], empty)
    with pytest.raises(ModelError, match="hold a list"):
        read_weights(empty)


class _Bomb:
    def __reduce__(self):
        return (print, ("the pickle ran",))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys, how):
    path = tmp_path / "bomb.pth"
    if how == "torch":
        torch.save({"w": _Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps({"w": _Bomb()}, protocol=2))
    with pytest.raises(ModelError, match=r"are refused: loading them would run code"):
        read_weights(path)
    assert "ran" not in capsys.readouterr().out


def test_unknown_models():
    with pytest.raises(ModelError, match="no model 'resnet5'; did you mean 'resnet50'"):
        load_model("resnet5")
    with pytest.raises(ModelError, match="`dff models` lists them"):
        load_model("qqqqqq")
    with pytest.raises(ModelError, match="cannot be imported"):
        load_model("nowhere/net.py:build")


def test_labels(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\n")
    with pytest.raises(UsageError, match="are empty"):
        read_labels(path)
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "none.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_labels(path)
    names = ("ant", "bee, honeybee", "cat")
    assert class_index("Honeybee", names, 3) == 1
    assert class_index("2", names, 3) == 2
    assert class_index(0, None, 3) == 0
    assert class_name(5, names) == "class 5"
    with pytest.raises(UsageError, match="no class 'car'; did you mean 'cat'"):
        class_index("car", names, 3)
    with pytest.raises(UsageError, match="classes 0 to 2"):
        class_index(-1, names, 3)


def test_a_factory_in_a_file(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text(
        "import torchvision\n"
        "def build():\n    return torchvision.models.squeezenet1_1(num_classes=2)\n"
        "def other():\n    return 3\n"
    )
    loaded = load_model(f"{path}:build")
    assert loaded.name == f"{path}:build"
    assert loaded.preprocessing.size == 224
    with pytest.raises(ModelError, match="no function 'bild'; did you mean 'build'"):
        load_model(f"{path}:bild")
    with pytest.raises(ModelError, match=r"returned a int; expected a torch\.nn\.Module"):
        load_model(f"{path}:other")
    assert isinstance(load_model("torchvision.models:squeezenet1_0"), LoadedModel)


def test_downloads_fail_with_advice(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    enum = torchvision.models.get_model_weights(NAME)
    monkeypatch.setattr(enum, "_member_map_", enum._member_map_)
    _point(monkeypatch, enum.DEFAULT, "http://127.0.0.1:9/net.pth")
    with pytest.raises(ModelError, match=r"cannot be downloaded from http://127.*give --weights"):
        load_model(NAME)


def test_default_weights_are_downloaded_and_kept(monkeypatch, tmp_path):
    """The real download, from a server of our own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = torchvision.models.get_model(NAME)
    torch.save(model.state_dict(), tmp_path / "net.pth")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        default = torchvision.models.get_model_weights(NAME).DEFAULT
        _point(monkeypatch, default, f"http://127.0.0.1:{server.server_address[1]}/net.pth")
        loaded = load_model(NAME)
        server.shutdown()
    assert torch.equal(loaded.module.classifier[1].bias, model.classifier[1].bias)
    assert loaded.class_names[281] == "tabby"
    again = load_model(NAME)
    assert torch.equal(again.module.classifier[1].bias, model.classifier[1].bias)


def _point(monkeypatch, weights, url):
    """Let torchvision's weights come from another address, without a check of their hash."""
    changed = replace(weights.value, url=url)
    monkeypatch.setattr(weights, "_value_", changed)
    monkeypatch.setattr(
        type(weights),
        "get_state_dict",
        lambda self, *a, **k: torch.hub.load_state_dict_from_url(self.url, progress=False),
    )


def test_modules_describe_themselves():
    timm = pytest.importorskip("timm", reason="needs timm (the test extra)")
    described = describe(timm.create_model("test_vit"))
    assert described.preprocessing.size == 160
    assert described.preprocessing.mean == (0.5, 0.5, 0.5)
    loaded = load_model("timm:test_resnet", weights="random", num_classes=4)
    assert Explainer(loaded).layer
    with pytest.raises(ModelError, match="timm has no model 'test_resne'; did you mean"):
        load_model("timm:test_resne")


def test_hugging_face_folders(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers (the test extra)")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3,
        id2label={0: "ant", 1: "bee", 2: "cat"},
    )  # fmt: skip
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    loaded = load_model(f"hf:{tmp_path / 'net'}")
    assert loaded.class_names == ("ant", "bee", "cat")
    with pytest.raises(ModelError, match="cannot be had"):
        load_model(f"hf:{tmp_path / 'nothing'}")


def test_extras_that_are_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"deep-feature-factorization\[timm\]"):
        load_model("timm:resnet18")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"deep-feature-factorization\[hf\]"):
        load_model("hf:resnet18")


def test_the_list_of_models():
    names = list_models()
    assert names[0] == "demo"
    assert {"resnet50", "vit_b_16", NAME} <= set(names)
