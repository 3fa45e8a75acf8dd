"""Run co-localizations on several ranks, each of which is a fork (see :mod:`tests.forked`)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from dff.colocalization import pipeline
from dff.colocalization.stages import STAGES
from dff.errors import DFFError
from dff.explain import Explainer
from tests.colocalized import colocalize, digest, import_all, photos, small_chunks, toy

OPTIONS = {"concepts": 2, "batch": 4, "workers": 1}
SAMPLE = {**OPTIONS, "memory": 8 * 20 * 48}


def launch(
    size: int,
    data: Path,
    out: Path,
    options: dict,
    *,
    before: Callable[[int], None] = lambda rank: None,
    kill: tuple[int, float] | None = None,
    **given: Callable[[int], object],
) -> list:
    """Fork `size` ranks on one run; return how each ended.

    `before` is called in each rank; `given` are functions of the rank: "model", and "folder" where
    ranks are given other folders. `kill` is a rank, and seconds after which it is killed, and the
    others a little later.
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
            try:
                before(rank)
                folder = given.get("folder", lambda rank: data)(rank)
                model = given.get("model", lambda rank: toy())(rank)
                colocalize(folder, out, model=model, **options)
            except DFFError as error:
                print(f"rank {rank}: {error}", file=sys.stderr)
                os._exit(1)
            except BaseException as error:
                print(f"rank {rank}: {error!r}", file=sys.stderr)
                os._exit(2)
            os._exit(0)
        children.append(child)
    if kill is not None:
        _kill(children, *kill)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def orphaned(data: Path, out: Path) -> str:
    """Kill what stands for torchrun, and nothing else; return what its ranks say until they end."""
    reading, writing = os.pipe()
    agent = os.fork()
    if agent == 0:
        os.dup2(writing, 2)
        os.environ["TORCHELASTIC_RUN_ID"] = "a test"
        launch(2, data, out, SAMPLE, before=left_alone_in("extract"))
        os._exit(0)
    os.close(writing)
    while not [*out.glob("work/rows/*")]:
        time.sleep(0.02)
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    with open(reading) as said:
        return said.read()  # until the last rank has ended


def left_alone_in(name: str) -> Callable[[int], None]:
    """Return what makes ranks wait at the end of a stage until their parent is gone."""

    def work(job, stage) -> None:
        parent = os.getppid()
        stage.work(job)
        while os.getppid() == parent:
            time.sleep(0.02)

    return lambda rank: in_stage(name, work)


def in_stage(name: str, work: Callable) -> None:
    """Do `work` in the place of a stage's own."""
    pipeline.STAGES = tuple(
        replace(s, work=lambda job, s=s: work(job, s)) if s.name == name else s for s in STAGES
    )


def _kill(children: list[int], dead: int, after: float) -> None:
    """Kill a rank after some seconds, and the others a little later, as torchrun does."""
    time.sleep(after)
    os.kill(children[dead], signal.SIGKILL)
    time.sleep(0.3)
    for child in children:
        os.kill(child, signal.SIGKILL)  # which one that has ended does not feel


def dying_in(name: str, dead: int) -> Callable[[int], None]:
    """Return what makes a rank kill itself within a stage.

    That is after its first file, at its third sum over ranks, or else at the stage's end.
    """

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work(job, stage) -> None:
        write, sums = job.folder.write, []

        def once(files) -> None:
            write(files)
            die()

        def third(*arguments, **options):
            sums.append(None)
            return die() if len(sums) == 3 else all_reduce(*arguments, **options)

        job.folder.write = once
        all_reduce, dist.all_reduce = dist.all_reduce, third
        stage.work(job)
        die()

    def before(rank: int) -> None:
        if rank == dead:
            in_stage(name, work)

    return before


def different(first: dict, second: dict) -> list[str]:
    """Name the files of two runs that are not the same."""
    return sorted(n for n in {*first, *second} if first.get(n) != second.get(n))


def equal(data: Path, work: Path) -> dict:
    """Compare every file of runs by several numbers of ranks with that of one."""
    report: dict = {"different": {}, "ends": []}
    demo = Explainer("demo")
    for name, options, model, sizes in (
        ("exact", {**OPTIONS, "concepts": 3}, lambda rank: demo, (1, 3)),
        ("sample", SAMPLE, lambda rank: toy(), (1, 5)),  # of five, one has no images
        ("range", {**OPTIONS, "concepts": range(2, 4)}, lambda rank: toy(), (1, 2)),
    ):
        expected: dict = {}
        for size in sizes:
            out = work / f"{name}-{size}"
            report["ends"] += launch(size, data, out, options, model=model)
            expected = expected or digest(out)
            report["different"][f"{name}-{size}"] = different(digest(out), expected)
    return report


def killed(data: Path, work: Path) -> dict:
    """Kill one of two ranks in each stage, and either at random moments; go on, and compare."""
    report: dict = {"ends": {}, "different": {}}
    launch(1, data, work / "whole", SAMPLE)
    expected, out = digest(work / "whole"), work / "run"
    for stage, dead in (("extract", 1), ("fit", 1), ("encode", 1), ("encode", 0), ("tables", 0),
                        ("exemplars", 0)):  # fmt: skip
        ends = launch(2, data, out, SAMPLE, before=dying_in(stage, dead))
        report["ends"][f"{stage} {dead}"] = [ends[dead], ends[1 - dead]]
        ended = launch(2, data, out, SAMPLE)
        report["different"][f"{stage} {dead}"] = ended, different(digest(out), expected)
        shutil.rmtree(out)
    report["orphaned"] = orphaned(data, out)
    report["different"]["orphaned"] = launch(2, data, out, SAMPLE), different(digest(out), expected)
    shutil.rmtree(out)
    began, chance = time.monotonic(), random.Random(3)
    launch(2, data, work / "timed", SAMPLE)
    took = time.monotonic() - began
    for number in range(3):
        launch(2, data, out, SAMPLE, kill=(number % 2, chance.uniform(0, took)))
        ended = launch(1, data, out, SAMPLE)
        report["different"][f"random {number}"] = ended, different(digest(out), expected)
        shutil.rmtree(out)
    return report


def unlike(data: Path, work: Path) -> dict:
    """Give the second of two ranks other photos, another model or another clock."""
    others = {name: photos(work / name, 20) for name in ("fewer", "size", "time", "none")}
    some = {name: sorted(folder.rglob("*.png"))[7] for name, folder in others.items()}
    for path in data.rglob("*.png"):
        times = os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns
        for folder in others.values():
            os.utime(folder / path.relative_to(data), ns=times)
    some["fewer"].unlink()
    some["size"].write_bytes(some["size"].read_bytes() + b" ")
    os.utime(some["time"], (1e9, 1e9))
    shutil.rmtree(others["none"])
    report: dict = {"ends": {}, "written": {}}
    for name, given in (
        *((n, {"folder": lambda rank, n=n: others[n] if rank else data}) for n in others),
        ("model", {"model": lambda rank: toy(channels=14) if rank else toy()}),
    ):
        out = work / f"out-{name}"
        report["ends"][name] = launch(2, data, out, OPTIONS, **given)
        report["written"][name] = out.exists()
    launch(2, data, work / "clocks-same", OPTIONS)
    for name, days in (("behind", -3), ("ahead", 3)):
        before = wrong_clock(86400 * days)
        for _ in range(2):  # a whole run, then one that finds all as it was
            ends = launch(2, data, work / name, OPTIONS, before=before)
            found = digest(work / name)
            report["ends"][name] = ends, different(found, digest(work / "clocks-same"))
    return report


def wrong_clock(seconds: float) -> Callable[[int], None]:
    """Return what puts the second rank's clock wrong."""

    def before(rank: int) -> None:
        if rank == 1:
            real, real_ns = time.time, time.time_ns
            time.time = lambda: real() + seconds
            time.time_ns = lambda: real_ns() + int(seconds * 1e9)

    return before


PARTS = {"equal": equal, "killed": killed, "unlike": unlike}


def main(part: str, data: Path, work: Path) -> None:
    """Write the report of a part."""
    torch.set_num_threads(1)
    small_chunks()
    import_all()
    (work / "report.json").write_text(json.dumps(PARTS[part](data, work)))
