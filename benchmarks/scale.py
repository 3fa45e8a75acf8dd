"""What co-localization takes as datasets grow.

    python benchmarks/scale.py grow --counts 1000,10000      # whole runs: time and memory, ratios
    python benchmarks/scale.py layout --images 1000000       # a run folder of made-up values

`grow` runs `dff colocalize` with the demo model on generated images of 64 pixels, each in a process
of its own, and then `dff find` and `dff report`. `layout` lets the program's own stages write the
tables of a run whose chunks hold made-up values, and opens what they wrote: no image goes through a
model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors

from dff.activations.outputs import Meaning
from dff.colocalization.instances import COLUMNS, annotation
from dff.colocalization.options import MaskOptions
from dff.colocalization.ranks import Ranks
from dff.colocalization.run.finished import Run
from dff.colocalization.run.folder import RunFolder, chunk_name
from dff.colocalization.sources.opening import open_dataset
from dff.colocalization.sources.stamps import status
from dff.colocalization.stages import STAGES, Job, repair
from dff.colocalization.stages.encode import _parquet_bytes
from dff.colocalization.stages.exemplars import exemplars_stage
from dff.colocalization.stages.plan import CHUNK, plan
from dff.colocalization.stages.tables import tables_stage
from dff.concepts import ConceptBank
from dff.files import digest_of
from dff.maps import Grid
from dff.maps.runs import runs_of

SIDE, DISTINCT, A_FOLDER = 64, 200, 1000
CONCEPTS, CHANNELS, CELLS, CLASSES, FOUND = 10, 1280, 7, 1000, 0.6


def images(folder: Path, count: int) -> Path:
    """Write `count` small photos into subfolders: some hundred, and links to them."""
    rng = np.random.default_rng(0)
    first: list[Path] = []
    for i in range(count):
        place = folder / f"{i // A_FOLDER:04d}"
        if i % A_FOLDER == 0:
            place.mkdir(parents=True)
        path = place / f"{i:08d}.jpg"
        if i >= DISTINCT:
            os.link(first[i % DISTINCT], path)
            continue
        small = rng.integers(0, 255, (6, 6, 3)).astype(np.uint8)
        image = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(path, quality=80)
        first.append(path)
    return folder


# Whole runs


def dff(*words: str) -> tuple[float, float, float]:
    """Run a command in a process of its own; return seconds, those of the CPU, and peak MB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "dff", *words], env=environment)
    _, ended, usage = os.wait4(child.pid, 0)
    if ended:
        raise SystemExit(f"dff {words[0]} ended with {ended}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def grow(options: argparse.Namespace) -> None:
    """Print a table: whole runs of several sizes, against the smallest.

    Time is the CPU's, which other work on the machine changes least, less that of a run of one
    chunk, where the start is all that counts.
    """
    counts = [CHUNK, *sorted(int(text) for text in options.counts.split(","))]
    print(
        f"{'images':>8} {'run s':>7} {'CPU s':>7} {'ms/image':>8} {'ratio':>6} {'peak MB':>8} "
        f"{'ratio':>6} {'find s':>7} {'MB':>5} {'report s':>8} {'MB':>5} {'disk':>6}"
    )
    costs: list[tuple[int, float, float]] = []
    for count in counts:
        with tempfile.TemporaryDirectory(dir=options.work) as place:
            data, out = images(Path(place) / "data", count), Path(place) / "run"
            took, cpu, peak = dff(
                "colocalize", str(data), "--out", str(out), "--model", "demo", "-k", "6",
                "--memory", options.memory, "--workers", "1", "--quiet", *options.options.split(),
            )  # fmt: skip
            found, _, find_peak = dff("find", str(out), "-c", "1", "--quiet")
            told, _, report_peak = dff("report", str(out), "--quiet")
            timings = json.loads((out / "run.json").read_text())["timings"]
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
        costs.append((count, cpu, peak))
        rates = [1000 * (c - costs[0][1]) / max(1, n - CHUNK) for n, c, _ in costs]
        first = min(1, len(costs) - 1)
        print(f"{count:8} {took:7.1f} {cpu:7.1f} {rates[-1]:8.3f} "
              f"{rates[-1] / (rates[first] or 1):6.2f} {peak:8.0f} {peak / costs[first][2]:6.2f} "
              f"{found:7.1f} {find_peak:5.0f} {told:8.1f} {report_peak:5.0f} {size:6.1f}",
              timings, flush=True)  # fmt: skip


# A run folder of made-up values


def annotations() -> list[str]:
    """Some lines of COCO's, without the image: what follows the category."""
    rows, cols = np.ogrid[:SIDE, :SIDE]
    lines = []
    for reach in (8, 12, 18, 24):
        disc = (rows - 30) ** 2 + (cols - 28) ** 2 < reach**2
        whole = annotation(0, 0, CONCEPTS, 0.7312, runs_of(disc))
        lines.append(json.dumps(dict(list(whole.items())[3:]))[1:])
    return lines


def chunk_files(ids: range, stamps: list, rng: np.random.Generator, tails: list[str]) -> dict:
    """The files that a chunk leaves, of values made up."""
    n, k = len(ids), CONCEPTS
    there = rng.random((n, k)) < FOUND
    corner = np.where(there, 4, -1)
    columns: dict[str, np.ndarray] = {
        name: rng.random(n * k).astype(np.float32) for name in COLUMNS
    }
    columns |= {
        "image_id": np.repeat(np.arange(ids.start, ids.stop), k),
        "concept": np.tile(np.arange(1, k + 1), n),
        "x0": corner.ravel(), "y0": corner.ravel(),
        "x1": (corner + 30).ravel(), "y1": (corner + 30).ravel(),
    }  # fmt: skip
    lines = [
        f'{{"id": {i * k + c + 1}, "image_id": {i}, "category_id": {c + 1}, {tails[(i + c) % 4]}\n'
        for row, i in enumerate(ids)
        for c in np.flatnonzero(there[row]).tolist()
    ]
    facts = {
        "ids": list(ids), "widths": [SIDE] * n, "heights": [SIDE] * n, "errors": [None] * n,
        "predicted": rng.integers(0, CLASSES, n).tolist(),
        "probability": rng.random(n).tolist(), "stamps": stamps,
    }  # fmt: skip
    maps = torch.rand(n, k, CELLS, CELLS).half()
    files = {
        "images": json.dumps(facts).encode(), "instances": _parquet_bytes(columns),
        "coco": "".join(lines).encode(),
        "maps": to_safetensors({"maps": maps, "ids": torch.tensor(ids)}),
    }  # fmt: skip
    return {chunk_name(part, ids.start // CHUNK): data for part, data in files.items()}


def pretended(data: Path, out: Path) -> Job:
    """A job whose model is not there: all that the tables ask of it."""
    dataset = open_dataset(data)
    generator = torch.Generator().manual_seed(0)
    bank = ConceptBank(
        torch.rand(CONCEPTS, CHANNELS, generator=generator), torch.ones(CONCEPTS),
        torch.full((CONCEPTS,), 0.08), 0.2, "made-up", "layer",
    )  # fmt: skip
    network = SimpleNamespace(
        class_names=[f"{i:04d}" for i in range(CLASSES)], meaning=Meaning(classes=CLASSES),
        concept_logits=lambda bank: (torch.rand(len(bank), CLASSES), torch.zeros(CLASSES)),
        grid=Grid.tiled(CELLS, CELLS, SIDE, SIDE),
    )  # fmt: skip
    drawn = plan(len(dataset), CELLS**2, CHANNELS, memory=4 << 30, seed=0)
    job = Job(RunFolder(out), dataset, network, drawn, CONCEPTS, MaskOptions(), "part", 32,
              os.cpu_count() or 1, False, Ranks())  # type: ignore[arg-type]  # fmt: skip
    settings = {
        "dataset": {"kind": "folder", "given": str(data), "root": str(data),
                    "images": len(dataset), "fingerprint": dataset.fingerprint()},
        "model": {"name": "made-up"}, "chunk": CHUNK, "level": "part", "masks": {},
    }  # fmt: skip
    out.mkdir()
    job.folder.claim(settings, [stage.name for stage in STAGES], force=False)
    job.folder.state |= {"exact": False, "grid": asdict(network.grid)}
    job.folder.write({"bank.safetensors": bank.to_bytes()})
    return job


def write_chunks(job: Job) -> None:
    """Write what the stages before the tables leave, with real stamps of the files."""
    rng, tails = np.random.default_rng(0), annotations()
    digests = [digest_of(job.dataset.file(i) or "") for i in range(min(DISTINCT, len(job.dataset)))]
    for ids in job.chunks:
        stamps = [[*status(job.dataset.file(i) or "").row[:3], digests[i % DISTINCT]] for i in ids]
        job.folder.write(chunk_files(ids, stamps, rng, tails))
    for stage in ("extract", "fit", "encode"):
        job.folder.finish(stage, write=True)


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Print a step's seconds, and how far the peak of resident memory rose above its start."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = resident("VmRSS"), time.monotonic()
    yield
    took, peak = time.monotonic() - began, resident("VmHWM") - before
    print(f"{name:<42} {took:8.1f} s {peak:8.0f} MB", flush=True)


def resident(field: str) -> float:
    """A size of this process in MB, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def layout(options: argparse.Namespace) -> None:
    """Print what each step on a run of made-up values takes."""
    place = Path(tempfile.mkdtemp(dir=options.work))
    data, out = place / "data", place / "run"
    images(data, options.images)
    try:
        with measured("list the images, begin the run"):
            job = pretended(data, out)
        with measured("write the chunks (made-up values)"):
            write_chunks(job)
        steps(job)
        files = [path for path in out.rglob("*") if path.is_file()]
        sizes = {p.name: round(p.stat().st_size / 1e6, 1) for p in files if p.parent == out}
        print(f"{len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.0f} MB; {sizes}")
        commands(out)
    finally:
        if not options.keep:
            shutil.rmtree(place)
        else:
            print(place)


def steps(job: Job) -> None:
    """The program's own steps from the chunks on, and reading again what they leave."""
    with measured("dff colocalize: tables"):
        tables_stage(job)
    job.folder.finish("tables", write=True)
    with measured("dff colocalize: exemplars"):
        exemplars_stage(job)
    job.folder.finish("exemplars", write=True)
    with measured("dff colocalize: has a photo changed?"):
        assert not repair.forget_changed(job)
    with measured("dff colocalize: close the run"):
        job.folder.close()
    with measured("dff colocalize again: damage, changes"):
        job.folder.__init__(job.folder.path)  # type: ignore[misc]
        job.folder.state = Run(job.folder.path).state
        repair.repair(job)
        assert not repair.forget_changed(job)
    run = Run(job.folder.path)
    readers: dict[str, Callable[[], Any]] = {
        "open the run (Python)": lambda: Run(job.folder.path).bank,
        "one image's maps": lambda: run.maps(len(job.dataset) // 2),
        "the table of images": lambda: run.table("images"),
    }
    for name, reader in readers.items():
        with measured(name):
            reader()


def commands(out: Path) -> None:
    """The commands that open a run, each in a process of its own."""
    for words in (["find", "-c", "3"], ["find", "-c", "3"], ["report"]):
        took, _, peak = dff(words[0], str(out), *words[1:], "--quiet")
        print(f"{'dff ' + ' '.join(words):<42} {took:8.1f} s {peak:8.0f} MB in all", flush=True)
    print(f"report.html {(out / 'report.html').stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Parse, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["grow", "layout"])
    parser.add_argument("--counts", default="1000,10000")
    parser.add_argument("--memory", default="4M", help="of the fit: small, so that it is a sample")
    parser.add_argument("--options", default="--size 64", help="further ones of dff colocalize")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--work", default=None, help="folder for what is written meanwhile")
    parser.add_argument("--keep", action="store_true", help="leave the made-up run")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    {"grow": grow, "layout": layout}[options.what](options)


if __name__ == "__main__":
    main()
