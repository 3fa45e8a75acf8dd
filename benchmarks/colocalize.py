"""Measure co-localization: speed against the bare forward pass, memory, ranks, quality.

    python benchmarks/colocalize.py speed --photos FOLDER --weights FILE   # images/s, whole run
    python benchmarks/colocalize.py memory --counts 1000,4000,16000       # peak of the process
    python benchmarks/colocalize.py ranks --pin --images 1000             # 1 and 2 processes
    python benchmarks/colocalize.py quality --images 1000                 # against a peer's DFF

The floor of `speed` is the same reader with a bare forward pass (channels-last, inference mode)
that shares the cores with it; whole runs and floors alternate, and medians are given.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dff.colocalization import RunOptions, colocalize
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.listed import FileDataset
from dff.colocalization.sources.opening import open_dataset
from dff.colocalization.sources.reader import Reader
from dff.colocalization.stages import STAGES
from dff.colocalization.stages.network import Network
from dff.explain import Explainer
from dff.models import load_model


def mobilenet(weights: str | None) -> Explainer:
    """MobileNetV2 at 225, with real weights if there are any."""
    return Explainer(
        load_model(
            "mobilenet_v2",
            weights=weights or "random",
            num_classes=1000,
            mean=0.5,
            std=0.5,
            size=225,
        )
    )


def repeated(folder: str, count: int) -> Dataset:
    """The photos of a folder, over and over, `count` of them."""
    found = open_dataset(folder)
    paths = [found.paths[i % len(found)] for i in range(count)]
    return FileDataset("list", found.root, paths, [None] * count)


def floor(dataset: Dataset, network: Network, *, batch: int, workers: int) -> float:
    """Images per second of the reader and a bare forward pass."""
    started = time.perf_counter()
    model = network.explainer.model.eval()
    auto = (
        torch.autocast("cpu", torch.bfloat16)
        if network.precision == "bfloat16"
        else contextlib.nullcontext()
    )
    with Reader(dataset, network.preprocessing, workers=workers, ahead=2 * batch) as reader:
        samples = reader.stream(range(len(dataset)))
        for start in range(0, len(dataset), batch):
            some = [next(samples) for _ in range(min(batch, len(dataset) - start))]
            x = network._input(np.stack([one.pixels for one in some]))
            with torch.inference_mode(), auto:
                model(x)
    return len(dataset) / (time.perf_counter() - started)


def speed(options: argparse.Namespace) -> dict:
    """The whole run against the floor."""
    dataset = repeated(options.photos, options.images)
    explainer = mobilenet(options.weights)
    network = Network(explainer, precision=options.precision)
    workers = os.cpu_count() or 1
    floors, whole, stages = [], [], []
    for _ in range(options.repeats):
        floors.append(floor(dataset, network, batch=32, workers=workers))
        with tempfile.TemporaryDirectory() as out:
            started = time.perf_counter()
            run = colocalize(
                dataset, out, model=explainer, concepts=options.concepts,
                options=RunOptions(precision=options.precision, memory=options.memory),
            )  # fmt: skip
            whole.append(len(dataset) / (time.perf_counter() - started))
            stages.append(run.state["timings"])
    ratios = [a / b for a, b in zip(whole, floors, strict=True)]
    return {
        "images": len(dataset),
        "precision": options.precision,
        "floor images/s": statistics.median(floors),
        "whole images/s": statistics.median(whole),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "stages": stages[-1],
    }


def generated(folder: Path, count: int, *, size: int = 96) -> Path:
    """Write `count` small photos."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        small = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC)
        image.save(folder / f"{i:06d}.jpg", quality=80)
    return folder


def memory(options: argparse.Namespace) -> dict:
    """Peak memory of a process for datasets of several sizes, at one --memory."""
    report: dict = {"memory": options.memory, "peak MB": {}}
    with tempfile.TemporaryDirectory() as place:
        for count in (int(text) for text in options.counts.split(",")):
            data = generated(Path(place) / str(count), count)
            words = [sys.executable, __file__, "one", str(data), str(Path(place) / f"run{count}"),
                     options.memory]  # fmt: skip
            out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            report["peak MB"][count] = json.loads(out.splitlines()[-1])
            shutil.rmtree(data)
    return report


def one(words: list[str]) -> None:
    """Run one co-localization with a small network, and print its peak memory in MB."""
    data, out, room = words
    torch.set_num_threads(1)
    explainer = Explainer(load_model("squeezenet1_1", weights="random", size=96))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    run = colocalize(
        data, out, model=explainer, concepts=5, options=RunOptions(memory=room, workers=1)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak, "before": before, "exact": run.state["exact"],
                      "timings": run.state["timings"]}))  # fmt: skip


def ranks(options: argparse.Namespace) -> dict:
    """One and two processes of one thread each, interleaved; each on a core of its own.

    Readers and encoders are threads beside the model's: a process that may take all cores uses
    more than one, so that two cannot be twice as fast. Without --pin that is what is measured.

    The processor's seconds do not hang on what else the machine does: "speed-up by processor" is
    those of one process over those of the busier of two, stage by stage.
    """
    times: dict[int, list[float]] = {1: [], 2: []}
    work: dict[int, list[dict]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "list.txt"
        found = repeated(options.photos, options.images)
        data.write_text("\n".join(os.path.join(found.root, path) for path in found.paths))
        for turn in range(options.repeats):
            for size in times:
                out = Path(place) / f"run-{turn}-{size}"
                _run_ranks(size, data, out, 29600 + 10 * turn + size, options)
                state = json.loads((out / "run.json").read_text())
                times[size].append(sum(state["timings"].values()))
                work[size].append(state["work"])
    busiest = {n: [_busiest(one) for one in work[n]] for n in work}
    return {
        "seconds": times,
        "speed-up": _median_ratio(times),
        "processor seconds of the busiest rank": busiest,
        "speed-up by processor": _median_ratio(busiest),
        "serial share": statistics.median(_serial(one) for one in work[1]),
        "work": {n: some[-1] for n, some in work.items()},
    }


def _run_ranks(size: int, data: Path, out: Path, port: int, options: argparse.Namespace) -> None:
    """Co-localize with so many processes."""
    pin = Path(__file__).with_name("pinned.py") if options.pin else None
    words = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size),
        "--master-port", str(port), *([str(pin)] if pin else ["-m", "dff"]), "colocalize",
        str(data), "--out", str(out), "--model", "mobilenet_v2", "--weights",
        options.weights or "random", "--num-classes", "1000", "--mean", "0.5", "--std", "0.5",
        "--size", "225", "--workers", "1", "-k", str(options.concepts), "-q",
        "--memory", options.memory, "--precision", options.precision,
    ]  # fmt: skip
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _busiest(work: dict) -> float:
    """Return the processor's seconds of the rank that takes longest in each stage, summed."""
    return sum(max(cpu for _, cpu in ranks) for ranks in work.values())


def _serial(work: dict) -> float:
    """Return the share of one process's work that only the first of several does."""
    alone = sum(work[stage.name][0][1] for stage in STAGES if not stage.shared)
    return alone / _busiest(work)


def _median_ratio(values: dict[int, list[float]]) -> float:
    return statistics.median(a / b for a, b in zip(values[1], values[2], strict=True))


def quality(options: argparse.Namespace) -> dict:
    """CorLoc and part IoU on creatures: this project, and pytorch-grad-cam's batch DFF."""
    from colocalize_quality import compare

    return compare(options.images, options.concepts)


def main() -> None:
    """Parse and print a report."""
    if sys.argv[1:2] == ["one"]:
        one(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "memory", "ranks", "quality"])
    parser.add_argument("--photos", default="../shared/data/imagenet-sample")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--counts", default="1000,4000,16000")
    parser.add_argument("--concepts", type=int, default=8)
    parser.add_argument("--memory", default="4G")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--pin", action="store_true", help="ranks: one core a process")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(globals()[options.what](options), indent=2))


if __name__ == "__main__":
    main()
