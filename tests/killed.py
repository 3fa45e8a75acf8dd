"""Run co-localizations that are killed (see :mod:`tests.forked`).

Each attempt is a fork that kills itself at a given file operation or after a given time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.colocalized import colocalize, digest, import_all, small_chunks, toy

KILLS = 8  # at random moments, of each kind of run


def attempt(
    data: Path, out: Path, options: dict, *, at: int | None = None, after: float | None = None
) -> bool:
    """Run in a fork, killed at a rename or after some seconds; return whether it ended."""
    child = os.fork()
    if child == 0:
        if at is not None:
            _die_at(at)
        try:
            colocalize(data, out, model=toy(), **options)
        except BaseException as error:
            print("failed:", error, file=sys.stderr)
            os._exit(3)
        os._exit(0)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, f"attempt failed with {status}"
        return True
    return False


def _die_at(count: int) -> None:
    """Kill this process as its `count`-th file appears: before it if even, after it if odd."""
    calls = [0]

    def dying(real: Callable[..., None]) -> Callable[..., None]:
        def call(source: str, target: str) -> None:
            calls[0] += 1
            if calls[0] * 2 == count:
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)
            if calls[0] * 2 + 1 == count:
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    os.replace, os.link = dying(os.replace), dying(os.link)


def _different(when: str, expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Name the files that differ."""
    return [
        f"{when}: {name}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]


def main(data: Path, work: Path) -> None:
    """Write a report of all attempts."""
    torch.set_num_threads(1)
    small_chunks()
    import_all()
    report = {"every": 0, "random": 0, "different": []}
    for name, options in (
        ("exact", {"concepts": 2, "batch": 4, "workers": 2}),
        ("sample", {"concepts": 2, "batch": 4, "workers": 2, "memory": 8 * 10 * 48}),
    ):
        whole = work / f"{name}-whole"
        started = time.monotonic()
        assert attempt(data, whole, options)
        took = time.monotonic() - started
        expected = digest(whole)
        number, ended = 2, False
        while not ended:  # at every rename there is, before and after
            out = work / f"{name}-at"
            ended = attempt(data, out, options, at=number)
            if not ended:
                report["every"] += 1
                assert attempt(data, out, options)
            report["different"] += _different(f"{name} at {number}", expected, digest(out))
            shutil.rmtree(out)
            number += 7
        chance = random.Random(7)
        kills = 0
        while kills < KILLS:
            out = work / f"{name}-random"
            while kills < KILLS and not attempt(data, out, options, after=chance.uniform(0, took)):
                kills += 1
            attempt(data, out, options)
            report["different"] += _different(f"{name} at random", expected, digest(out))
            shutil.rmtree(out)
        report["random"] += kills
    (work / "report.json").write_text(json.dumps(report))
