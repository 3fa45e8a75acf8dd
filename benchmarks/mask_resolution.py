"""What finer grids buy, and what they cost: `real_masks.py --resolution`."""

from __future__ import annotations

import argparse
import inspect
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mask_scores import levels_of
from masked_photos import MODELS, Model, Photo, larger, numbers, paths_of

import dff
from dff import MaskOptions, RunOptions
from dff.errors import DFFError

Change = dict[str, Any]  # "size", options of Explainer, and of colocalize under "run"


def resolutions(args: argparse.Namespace, photos: Sequence[Photo]) -> None:
    """Print a table: IoU and CorLoc of each level, and milliseconds a photo, all of a run."""
    print("\n| model | k | what | grid | level | IoU | CorLoc | ms a photo |")
    print("| --- " * 8 + "|")
    for name in args.models.split(","):
        for k in numbers(args.concepts or "4,8"):
            for what, change in changes(MODELS[name]).items():
                for line in _lines(args, photos, MODELS[name], change, k):
                    print(f"| {name} | {k} | {what} | {line} |", flush=True)


def changes(model: Model) -> dict[str, Change]:
    """Return the defaults, and what is changed of them; what this version lacks is left out."""
    refined = MaskOptions().refine
    masks = {"masks": replace(MaskOptions(), refine=not refined)}
    found: dict[str, Change] = {
        f"defaults (refinement {'on' if refined else 'off'})": {},
        f"refinement {'off' if refined else 'on'}": {"run": masks},
        "size doubled": {"size": larger(model.size)},
    }
    fine = _fine()
    if fine is None:
        print("without --fine 2: this version has no such option")
    else:
        found["fine 2"] = fine
    return found


def _fine() -> Change | None:
    """Return how a grid twice as fine is asked for, wherever the option lives."""
    if "fine" in inspect.signature(dff.Explainer).parameters:
        return {"fine": 2}
    if "fine" in inspect.signature(dff.colocalize).parameters:
        return {"run": {"fine": 2}}
    if "fine" in {field.name for field in fields(RunOptions)}:
        return {"run": {"options": RunOptions(**{"fine": 2})}}
    return None


def _lines(
    args: argparse.Namespace, photos: Sequence[Photo], model: Model, change: Change, k: int
) -> Iterator[str]:
    options = dict(change)
    arguments = options.pop("run", {})
    size = options.pop("size", args.size)
    try:
        explainer = model.load(args.shared, size, **options)
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "run"
            started = time.perf_counter()
            run = dff.colocalize(paths_of(photos), out, model=explainer, concepts=k, **arguments)
            milliseconds = 1000 * (time.perf_counter() - started) / len(photos)
            levels = levels_of(run, args.data / "annotations.json")
            rows, cols = run.maps(0).shape[1:]
    except DFFError as error:
        yield f"fails: {error} | – | – | – | –"
        return
    for level, found in levels.items():
        figures = f"{found.mask_iou:.3f} | {found.corloc:.3f} | {milliseconds:.0f}"
        yield f"{rows} x {cols} | {level} | {figures}"
