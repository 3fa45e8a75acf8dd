"""Which precision "auto" is, by evidence: float32, or bfloat16 where it says the same, faster.

On a processor with bfloat16 arithmetic some photos go through the model in both precisions. Their
cells are placed in the same concepts, those of the float32 cells, so that what differs comes from
the precision alone: maps, boxes and classes are compared, and the model's time.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dff.colocalization.instances import instances
from dff.colocalization.sources.reader import Reader, Sample
from dff.colocalization.stages import Job
from dff.colocalization.stages.network import Network
from dff.concepts import factorize, most_concepts
from dff.errors import DFFError
from dff.nmf.backend import has_bfloat16

__all__ = ["Evidence", "choose"]

MOST, FEWEST = 200, 20
"""Photos of the trial: of fewer, one box or class decides; more tell no more."""
SHARE = 50  # one photo in so many, so that the trial, of two passes, costs 4% of a run at most
ALIKE = 0.95  # of maps: they may differ by a twentieth of their size, about 12 grey levels of 255
OVERLAP = 0.90  # of boxes, mean IoU: each side may move by a fortieth of the box
SAME_TOP_1 = 0.98  # of photos: 4 of 200 near a tie between two classes
FASTER = 1.10  # times: what is gained must be worth another result than `dff analyze` gives


@dataclass(frozen=True)
class Evidence:
    """What was chosen, and why.

    Attributes:
        precision: "float32" or "bfloat16".
        asked: what was asked for, "auto" or a precision.
        reason: in words.
        photos: how many were tried; 0 where there was nothing to try, and no figures then.
        maps: 1 - ‖difference‖ / ‖float32's‖ over all maps.
        boxes: mean IoU of the boxes that either precision found; 0 for one the other has not.
        top_1: share of photos with the same likeliest class; None without classes.
        speed: the model's time in float32 over that in bfloat16.
    """

    precision: str
    asked: str
    reason: str
    photos: int = 0
    maps: float | None = None
    boxes: float | None = None
    top_1: float | None = None
    speed: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data for run.json."""
        return asdict(self)


def choose(job: Job, asked: str, *, memory: int) -> Evidence:
    """Return which precision a job runs in.

    Args:
        job: its network runs in float32 wherever there is a choice.
        asked: "auto", or what is taken as it is.
        memory: bytes that the photos' cells may take.
    """
    network = job.network
    if asked != "auto":
        return Evidence(asked, asked, "as was asked for")
    if network.device.type != "cpu":
        return Evidence(network.precision, asked, f"{network.device.type} devices compute in it")
    count = min(MOST, len(job.dataset) // SHARE, memory // _bytes(network))
    if not has_bfloat16(network.device):
        reason = "this processor has no bfloat16 arithmetic"
    elif network.explainer.dtype != torch.float32:
        reason = "the model's own precision is kept"
    elif count < FEWEST:
        reason = f"{len(job.dataset)} images are too few to try bfloat16 on"
    else:
        try:
            return _weighed(_tried(job, count))
        except DFFError as error:
            reason = f"bfloat16 could not be tried: {error}"
    return Evidence("float32", asked, reason)


def _bytes(network: Network) -> int:
    """Return what the cells of a photo take: in both precisions, and while they are fitted."""
    return 3 * 4 * network.cells[0] * network.cells[1] * network.channels


@dataclass(frozen=True, eq=False)
class _Pass:
    """Rows (n, cells, channels), classes (n,) or None, and the seconds it took."""

    rows: Tensor
    classes: Tensor | None
    seconds: float


def _tried(job: Job, count: int) -> Evidence:
    """Run photos in both precisions and compare; the precision is not decided yet."""
    ids = range(0, len(job.dataset), -(-len(job.dataset) // count))
    samples = [sample for sample in _read(job, ids) if sample.pixels is not None]
    exact, quick = _passes(job, samples)
    bank = factorize(exact.rows.flatten(0, 1), most_concepts(job.concepts))[0]
    rows, cols = job.network.cells

    def maps(one: _Pass) -> Tensor:
        codes = bank.encode(one.rows.flatten(0, 1).float())
        return bank.presence(codes.view(-1, rows, cols, len(bank)).permute(0, 3, 1, 2))

    first, second = maps(exact), maps(quick)
    return Evidence(
        "", "auto", "", len(samples),
        round(1 - float((second - first).norm() / first.norm().clamp_min(1e-12)), 4),
        _mean_iou(_boxes(job, samples, first), _boxes(job, samples, second)),
        None if exact.classes is None or quick.classes is None
        else round(float((exact.classes == quick.classes).float().mean()), 4),
        round(exact.seconds / quick.seconds, 2),
    )  # fmt: skip


def _read(job: Job, ids: range) -> Iterator[Sample]:
    prep = job.network.preprocessing
    with Reader(job.dataset, prep, workers=job.workers, ahead=job.batch) as reader:
        yield from reader.stream(ids)


def _passes(job: Job, samples: list[Sample]) -> tuple[_Pass, _Pass]:
    """Run photos in float32 and in bfloat16, batch by batch in turn."""
    networks = [copy.copy(job.network) for _ in range(2)]
    for network, precision in zip(networks, ("float32", "bfloat16"), strict=True):
        network.precision = precision
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    batches = [np.stack(pixels[i : i + job.batch]) for i in range(0, len(pixels), job.batch)]
    for network in networks:
        network(batches[0])  # what a first batch alone takes
    passed = [[_timed(network, batch) for network in networks] for batch in batches]
    exact, quick = ([turn[i] for turn in passed] for i in range(2))
    return _joined(exact), _joined(quick)


def _timed(network: Network, batch: np.ndarray) -> _Pass:
    started = time.perf_counter()
    passed = network(batch)
    spent = time.perf_counter() - started
    classes = None if passed.logits is None else network.meaning.predicted(passed.logits)[0]
    return _Pass(passed.rows, classes, spent)


def _joined(parts: list[_Pass]) -> _Pass:
    classes = [part.classes for part in parts if part.classes is not None]
    return _Pass(
        torch.cat([part.rows for part in parts]),
        torch.cat(classes) if classes else None,
        sum(part.seconds for part in parts),
    )


def _boxes(job: Job, samples: list[Sample], maps: Tensor) -> np.ndarray:
    """Return (photos · concepts, 4) boxes of maps that are not refined; -1 where none is."""
    options = replace(job.masks, refine=False)
    found = [
        instances(0, shown, job.network.grid, (sample.height, sample.width), options)[0]
        for sample, shown in zip(samples, maps.numpy(), strict=True)
    ]
    sides = [np.concatenate([part[name] for part in found]) for name in ("x0", "y0", "x1", "y1")]
    return np.stack(sides, 1).astype(np.float64)


def _mean_iou(first: np.ndarray, second: np.ndarray) -> float:
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    either = (first[:, 0] >= 0) | (second[:, 0] >= 0)
    both = np.maximum(areas[0] + areas[1] - shared, 1)
    return round(float((shared / both)[either].mean()), 4) if either.any() else 1.0


def _weighed(evidence: Evidence) -> Evidence:
    """Decide, and say by which figures."""
    assert evidence.maps is not None
    assert evidence.boxes is not None
    assert evidence.speed is not None
    failings = [  # "not at least": NaN, too, is a failing
        words
        for words, fails in (
            (f"maps agree to {evidence.maps:.1%} only", not evidence.maps >= ALIKE),
            (f"boxes overlap by {evidence.boxes:.1%} only", not evidence.boxes >= OVERLAP),
            (f"the class is the same in {evidence.top_1 or 0:.1%} of photos only",
             evidence.top_1 is not None and not evidence.top_1 >= SAME_TOP_1),
            (f"it is {evidence.speed:.2f} times as fast as float32", not evidence.speed >= FASTER),
        )
        if fails
    ]  # fmt: skip
    tried = f"bfloat16 on {evidence.photos} photos"
    if failings:
        return replace(evidence, precision="float32", reason=f"of {tried}, {'; '.join(failings)}")
    same = "" if evidence.top_1 is None else f", the class is the same in {evidence.top_1:.1%}"
    return replace(
        evidence, precision="bfloat16",
        reason=f"{tried} is {evidence.speed:.2f} times as fast as float32, maps agree to "
        f"{evidence.maps:.1%}, boxes overlap by {evidence.boxes:.1%}{same}",
    )  # fmt: skip
