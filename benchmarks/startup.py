"""How soon the command line answers: `dff analyze` of one photo against the imports it stands on.

    python benchmarks/startup.py [PHOTO] [--rounds N]

Each round starts every command once, in turn, as a process of its own; medians are printed.

- floor: ``python -c "import torch, torchvision"``.
- torch: ``python -c "import torch"``, which is the part of it that the demo model needs.
- analyze: ``dff analyze PHOTO --model demo``, with all that it writes.
- help: ``dff --help``.

Without PHOTO the photo is a rendered creature.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from dff.demo import creatures


def commands(photo: Path, out: Path) -> dict[str, list[str]]:
    """Return what is timed, by name."""
    analyze = ["-m", "dff", "analyze", str(photo), "--model", "demo", "--out", str(out), "--quiet"]
    return {
        "floor": ["-c", "import torch, torchvision"],
        "torch": ["-c", "import torch"],
        "analyze": analyze,
        "help": ["-m", "dff", "--help"],
    }


def seconds(command: list[str]) -> float:
    """Return how long a command takes, its start included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photo = options.photo or Path(folder) / "creature.png"
        if options.photo is None:
            Image.fromarray(creatures.render(0, size=500).image).save(photo)
        timed = commands(photo, Path(folder) / "out")
        for command in timed.values():  # into the file cache, and compiled
            seconds(command)
        rounds = [{name: seconds(c) for name, c in timed.items()} for _ in range(options.rounds)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in timed}
    for name, median in medians.items():
        print(f"{name:8} {median:6.2f} s")
    ratio = statistics.median(one["analyze"] / one["floor"] for one in rounds)
    print(f"analyze / floor {ratio:.2f} (goal 1.40)")
    print(f"help {medians['help']:.2f} s (goal 0.30 s)")


if __name__ == "__main__":
    main()
