"""A long co-localization under fire: many images, some of them broken, killed again and again.

``python benchmarks/soak.py --images 20000`` draws the images, kills the run at random moments,
lets it go on until it ends, and compares the result with a run that was left alone. It prints the
kills, the time lost to them, the memory at its peak, and whether all files are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RUN = "from dff.cli import main; main()"


def draw(folder: Path, count: int, broken: float, seed: int) -> int:
    """Write images, a share of them broken in one of four ways; return how many are."""
    rng, bad = np.random.default_rng(seed), 0
    for i in range(count):
        place = folder / f"{i // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{i:06d}.jpg"
        cells = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(cells).resize((160, 120), Image.Resampling.BICUBIC).save(path, quality=85)
        if rng.random() < broken:
            bad += 1
            data = bytearray(path.read_bytes())
            kind = int(rng.integers(4))
            if kind == 0:
                data = data[: len(data) // 3]
            elif kind == 1:
                data = bytearray()
            elif kind == 2:
                data[2:200] = bytes(198)
            else:
                data = bytearray(rng.integers(0, 255, 500).astype(np.uint8).tobytes())
            path.write_bytes(data)
    return bad


def command(data: Path, out: Path, memory: str) -> list[str]:
    return [
        sys.executable, "-c", RUN, "colocalize", str(data), "--out", str(out), "--model", "demo",
        "--concepts", "6", "--memory", memory, "--quiet",
    ]  # fmt: skip


def digests(run: Path) -> dict[str, str]:
    """Return the digest of each result; of run.json, all but the timings and its own folder."""
    found = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file() and not p.name.startswith(".dff-")):
        data = path.read_bytes()
        if path.name == "run.json":
            state = json.loads(data)
            state.pop("timings")
            data = json.dumps(state).encode()
        found[str(path.relative_to(run))] = hashlib.sha256(data).hexdigest()
    return found


def under_fire(arguments: list[str], expected: float, kills: int, seed: int) -> tuple[int, float]:
    """Run until it ends, killed at random moments; return the kills and the seconds in all."""
    chance, done, began = random.Random(seed), 0, time.monotonic()
    while True:
        process = subprocess.Popen(arguments)
        wait = None if done >= kills else chance.uniform(2, max(4, expected / 2))
        try:
            status = process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            continue
        if status:
            raise SystemExit(f"the run ended with {status}")
        return done, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--broken", type=float, default=0.05)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--memory", default="200M", help="small: a sample is fitted")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        bad = draw(work / "data", options.images, options.broken, options.seed)
        began = time.monotonic()
        subprocess.run(command(work / "data", work / "alone", options.memory), check=True)
        alone = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        arguments = command(work / "data", work / "fire", options.memory)
        kills, seconds = under_fire(arguments, alone, options.kills, options.seed)
        same = digests(work / "alone") == digests(work / "fire")
        counts = json.loads((work / "alone/run.json").read_text())["counts"]
    print(f"{options.images} images, {bad} made broken, {counts['unreadable']} unreadable")
    print(f"left alone {alone:.0f} s, peak memory {peak:.0f} MB")
    print(f"killed {kills} times: {seconds:.0f} s in all; the same files: {same}")


if __name__ == "__main__":
    main()
