"""Run co-localizations on several ranks: ``python -m tests.ranked DATA WORK`` (needs fork).

Prints a JSON report.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from dff.colocalization import Run, pipeline
from dff.colocalization.stages import STAGES
from dff.errors import DFFError
from tests.colocalized import colocalize, digest, small_chunks, toy


def launch(
    size: int,
    data: Path,
    out: Path,
    options: dict,
    *,
    dead: int | None = None,
    after: float | None = None,
) -> list:
    """Fork `size` ranks on one run; return how each ended.

    `dead` is killed at its first chunk or, with `after`, that many seconds after the start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ.update(
                RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )  # fmt: skip
            if rank == dead and after is None:
                dying = replace(STAGES[0], work=lambda job: os.kill(os.getpid(), signal.SIGKILL))
                pipeline.STAGES = (dying, *STAGES[1:])
            try:
                colocalize(data, out, model=toy(), **options)
            except DFFError as error:
                print(f"rank {rank}: {error}", file=sys.stderr)
                os._exit(1)
            except BaseException as error:
                print(f"rank {rank}: {error!r}", file=sys.stderr)
                os._exit(2)
            os._exit(0)
        children.append(child)
    if after is not None and dead is not None:
        _kill(children, dead, after)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _kill(children: list[int], dead: int, after: float) -> None:
    """Kill a rank after some seconds, and the others a little later, as torchrun does."""
    time.sleep(after)
    os.kill(children[dead], signal.SIGKILL)
    time.sleep(0.3)
    for child in children:
        os.kill(child, signal.SIGKILL)  # which one that has ended does not feel


def difference(first: Path, second: Path) -> float:
    """Return the largest difference of two runs' concepts, scales and maps."""
    one, two = Run(first), Run(second)
    assert one.state["counts"] == two.state["counts"]
    pairs = [(one.bank.components, two.bank.components), (one.bank.scale, two.bank.scale)]
    count = one.state["counts"]["images"]
    pairs += [(one.maps(i).float(), two.maps(i).float()) for i in range(0, count, 5)]
    return max(float((a - b).abs().max()) for a, b in pairs)


def main(data: Path, work: Path) -> None:
    torch.set_num_threads(1)
    small_chunks()
    report: dict = {"differences": {}, "ends": {}}
    for name, options in (("exact", {}), ("sample", {"memory": 8 * 20 * 48})):
        options = {"concepts": 2, "batch": 4, "workers": 1, **options}
        for size in (1, 2, 6):  # of six ranks, two have no images
            out = work / f"{name}-{size}"
            report["ends"][f"{name}-{size}"] = launch(size, data, out, options)
            if size > 1:
                report["differences"][f"{name}-{size}"] = difference(work / f"{name}-1", out)
    out, began = work / "dead", time.monotonic()
    report["dead"] = launch(2, data, out, options, dead=1)
    report["dead after"] = time.monotonic() - began
    report["resumed"] = launch(1, data, out, options)
    report["resumed the same"] = digest(out) == digest(work / "sample-1")
    shutil.rmtree(out)
    report["random"] = killed_at_random(data, work, options, digest(work / "sample-1"))
    print(json.dumps(report))


def killed_at_random(data: Path, work: Path, options: dict, expected: dict) -> dict:
    """Kill either of two ranks at 10 random moments, and finish alone; count what differs."""
    chance, counts = random.Random(3), {"kills": 0, "different": 0}
    began = time.monotonic()
    launch(2, data, work / "timed", options)
    took = time.monotonic() - began
    for number in range(10):
        out = work / f"random-{number}"
        launch(2, data, out, options, dead=number % 2, after=chance.uniform(0, took))
        ended = launch(1, data, out, options)
        counts["kills"] += 1
        counts["different"] += ended != [0] or not same_files(digest(out), expected)
    return counts


def same_files(found: dict, expected: dict) -> bool:
    """Return whether two runs hold the same files; a rank more or less may round otherwise."""
    return found.keys() == expected.keys()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
