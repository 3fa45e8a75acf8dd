"""The CAM family's speed beside pytorch-grad-cam, torchcam and Captum, where these are installed.

    python benchmarks/cam_family.py                 # ResNet-50, random weights, 224 px
    python benchmarks/cam_family.py --perturbing    # and ScoreCAM and AblationCAM of a ResNet-18

Each round runs all flows once, in turn, in one process, on the same input; medians are printed, and
their ratio to the floor: ``model(x)`` under ``torch.inference_mode``.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import gradcam
from gradcam.utils.model_targets import ClassifierOutputTarget

CLASS = 3
Flows = dict[str, Callable[[], Any]]


def installed(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


PEER, CAPTUM, TORCHCAM = (
    installed(name) for name in ("pytorch_grad_cam", "captum.attr", "torchcam.methods")
)


def bare(model: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(x)


def peer_flow(method: str, model: nn.Module, layer: nn.Module, x: Tensor) -> Flows:
    """Return the peer's flow of a method, with as many passes at a time as ours."""
    if PEER is None:
        return {}

    def run() -> None:
        with getattr(PEER, method)(model=model, target_layers=[layer]) as cam:
            cam.batch_size = 32
            cam(input_tensor=x, targets=[ClassifierOutputTarget(CLASS)])

    return {f"pytorch-grad-cam's {method}": run}


def other_flows(model: nn.Module, layer: nn.Module, x: Tensor) -> Flows:
    """Return Grad-CAM as Captum and torchcam give it, brought to the input's size."""
    flows: Flows = {}
    size = tuple(x.shape[2:])
    if CAPTUM is not None:
        captums = CAPTUM.LayerGradCam(model, layer)

        def with_captum() -> None:
            low = captums.attribute(x, target=CLASS, relu_attributions=True)
            CAPTUM.LayerAttribution.interpolate(low, size, "bilinear")

        flows["Captum's LayerGradCam"] = with_captum
    if TORCHCAM is not None:

        def with_torchcam() -> None:
            with TORCHCAM.GradCAM(model, target_layer=layer) as extractor:
                low = extractor(CLASS, model(x))[0]
                nn.functional.interpolate(low[None], size, mode="bilinear")

        flows["torchcam's GradCAM"] = with_torchcam
    return flows


def interleaved(flows: Flows, rounds: int) -> dict[str, float]:
    """Return the median seconds of each flow over the rounds; a first one is not counted."""
    times: dict[str, list[float]] = {name: [] for name in flows}
    for i in range(rounds + 1):
        for name, flow in flows.items():
            start = time.perf_counter()
            flow()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, medians: dict[str, float], floor: str = "bare forward") -> None:
    print(f"\n{title}")
    for name, seconds in medians.items():
        print(f"  {name:32s} {seconds * 1e3:9.1f} ms   {seconds / medians[floor]:7.2f} x the floor")


def gradients(rounds: int) -> None:
    model = torchvision.models.resnet50(weights=None).eval()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for name in ("layer4", "layer3"):
        layer = model.get_submodule(name)
        flows: Flows = {
            "bare forward": lambda: bare(model, x),
            "ours, GradCAM": lambda layer=layer: gradcam.GradCAM(model, [layer])(x, [CLASS]),
            **peer_flow("GradCAM", model, layer, x),
            **other_flows(model, layer, x),
        }
        report(f"Grad-CAM at {name}, ResNet-50, 224 px", interleaved(flows, rounds))
    methods = ["gradcam", "hirescam", "gradcam++", "xgradcam", "layercam"]
    classes = [3, 5, 7, 11]

    def apart() -> None:
        for name in methods:
            for c in classes:
                gradcam.METHODS[name](model, ["layer4"])(x, [c])

    flows = {
        "bare forward": lambda: bare(model, x),
        "ours, several()": lambda: gradcam.several(model, "layer4", x, methods, classes),
        "ours, one call each": apart,
    }
    title = f"{len(methods)} methods of {len(classes)} classes at layer4"
    report(title, interleaved(flows, max(1, rounds // 5)))


def perturbing(rounds: int) -> None:
    model = torchvision.models.resnet18(weights=None).eval()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for method in ("AblationCAM", "ScoreCAM"):
        flows: Flows = {
            "bare forward": lambda: bare(model, x),
            f"ours, {method}": lambda method=method: getattr(gradcam, method)(
                model, [model.layer4]
            )(x, [CLASS]),
            **peer_flow(method, model, model.layer4, x),
        }
        medians = interleaved(flows, rounds)
        report(f"{method} at layer4, ResNet-18, 224 px, 512 channels", medians)
        if PEER is not None:
            _, ours, theirs = medians.values()
            print(f"  ours is {theirs / ours:.1f} times as fast as pytorch-grad-cam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--perturbing", action="store_true", help="the methods of many passes, too")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    absent = {"pytorch-grad-cam": PEER, "Captum": CAPTUM, "torchcam": TORCHCAM}
    if missing := [name for name, module in absent.items() if module is None]:
        print(f"not installed, so left out: {', '.join(missing)}")
    torch.manual_seed(0)
    gradients(options.rounds)
    if options.perturbing:
        perturbing(max(1, options.rounds // 10))


if __name__ == "__main__":
    main()
