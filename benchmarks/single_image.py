"""One photo: our one pass against pytorch-grad-cam's tutorial, the bare forward pass as floor.

    python benchmarks/single_image.py                      # ResNet-50 at 224, random weights
    python benchmarks/single_image.py --shared ../shared   # and MobileNetV2, real weights

Each round runs all flows once, in turn, in one process, on the same input; medians are printed.

- floor: ``model(x)`` under ``torch.inference_mode``, as it comes (contiguous input).
- ours: concepts, class scores, and the panel: photo, overlay with legend, Grad-CAM.
- peer: the lines of pytorch-grad-cam's concept tutorial (DeepFeatureFactorization with
  ``computation_on_concepts``, labels, the picture with its legend), and its Grad-CAM with
  ``show_cam_on_image``; the three pictures set side by side. One repair, as a user would make it:
  colours are passed in, because its default asks matplotlib for a function that is gone since 3.9.

Grad-CAM alone is measured by ``cam_family.py``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import torch
from pytorch_grad_cam import DeepFeatureFactorization as PeerDFF
from pytorch_grad_cam import GradCAM as PeerGradCAM
from pytorch_grad_cam.utils.image import (
    create_labels_legend,
    show_cam_on_image,
    show_factorization_on_image,
)
from torch import nn

import dff
from dff.demo import creatures

CONCEPTS = 5


def photo(shared: Path | None, size: int) -> np.ndarray:
    """Return a square photo, uint8 (size, size, 3)."""
    if shared is None:
        return creatures.render(0, size=size).image
    image = dff.read_image(shared / "data/photos/both.png").pixels
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def ours(explainer: dff.Explainer, image: np.ndarray) -> None:
    explainer(image, concepts=CONCEPTS).panel()


def peer(
    model: nn.Module, layer: nn.Module, head: nn.Module, prep: dff.Preprocessing, image: np.ndarray
) -> None:
    x = prep.to_tensor(dff.read_image(image))[None].contiguous()  # as torchvision's comes
    rgb = np.float32(image) / 255
    concepts = PeerDFF(model=model, target_layer=layer, computation_on_concepts=head)
    _, explanations, outputs = concepts(x, CONCEPTS)
    scores = torch.softmax(torch.from_numpy(outputs), axis=-1).numpy()
    labels = create_labels_legend(
        scores, labels={i: f"class {i}" for i in range(scores.shape[1])}, top_k=3
    )
    rainbow = mpl.colormaps["gist_rainbow"]
    colors = [np.array(rainbow(i / CONCEPTS)) for i in range(CONCEPTS)]
    picture = show_factorization_on_image(
        rgb, explanations[0], colors=colors, image_weight=0.3, concept_labels=labels
    )
    with PeerGradCAM(model=model, target_layers=[layer]) as cam:
        heatmap = cam(input_tensor=x, targets=None)[0]
    np.hstack((image, picture, show_cam_on_image(rgb, heatmap, use_rgb=True)))


def interleaved(flows: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each flow, over rounds that run each once in turn."""
    times: dict[str, list[float]] = {name: [] for name in flows}
    for at in range(rounds + 2):
        for name, flow in flows.items():
            start = time.perf_counter()
            flow()
            if at >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, medians: dict[str, float], floor: str) -> None:
    print(f"\n{title}")
    for name, value in medians.items():
        print(f"  {name:28}{value:9.1f} ms   {value / medians[floor]:6.2f} x {floor}")


def bare(model: nn.Module, x: torch.Tensor) -> None:
    with torch.inference_mode():
        model(x)


def compare(
    title: str, loaded: dff.models.LoadedModel, head: nn.Module, image: np.ndarray, rounds: int
) -> None:
    prep, model = loaded.preprocessing, loaded.module
    x = prep.to_tensor(dff.read_image(image))[None].contiguous()  # as torchvision's comes
    explainer = dff.Explainer(loaded)
    layer = model.get_submodule(explainer.layer)
    medians = interleaved(
        {
            "bare forward": lambda: bare(model, x),
            "ours": lambda: ours(explainer, image),
            "pytorch-grad-cam": lambda: peer(model, layer, head, prep, image),
        },
        rounds,
    )
    report(title, medians, "bare forward")
    print(
        f"  ours is {medians['pytorch-grad-cam'] / medians['ours']:.1f} times as fast as the peer"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, help="folder with real weights and photos")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    torch.manual_seed(0)
    resnet = dff.load_model("resnet50", weights="random")
    image = photo(options.shared, 224)
    compare("ResNet-50, 224 px, k = 5", resnet, resnet.module.fc, image, options.rounds)
    if options.shared:
        weights = options.shared / "models/mobilenet_v2_imagenet.safetensors"
        mobile = dff.load_model("mobilenet_v2", weights=weights, mean=0.5, std=0.5, size=225)
        image = photo(options.shared, 225)
        head = mobile.module.classifier
        compare("MobileNetV2, 225 px, real weights, k = 5", mobile, head, image, options.rounds)


if __name__ == "__main__":
    main()
