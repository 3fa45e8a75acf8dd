"""What finer grids buy, and what they cost: `real_masks.py --resolution`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mask_scores import levels_of
from masked_photos import MODELS, Model, Photo, larger, numbers, paths_of

import dff
from dff import MaskOptions
from dff.errors import DFFError

Change = dict[str, Any]  # "size" of the input, "fine" of the maps, "masks" for the run


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
    """Return the defaults, and what is changed of them."""
    refined = MaskOptions().refine
    masks = replace(MaskOptions(), refine=not refined)
    return {
        f"defaults (refinement {'on' if refined else 'off'})": {},
        f"refinement {'off' if refined else 'on'}": {"masks": masks},
        "size doubled": {"size": larger(model.size)},
        "fine 2": {"fine": 2},
    }


def _lines(
    args: argparse.Namespace, photos: Sequence[Photo], model: Model, change: Change, k: int
) -> Iterator[str]:
    masks = change.get("masks", MaskOptions())
    try:
        explainer = model.load(args.shared, change.get("size", args.size))
        explainer = explainer.finer(change.get("fine", 1))
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "run"
            started = time.perf_counter()
            run = dff.colocalize(paths_of(photos), out, model=explainer, concepts=k, masks=masks)
            milliseconds = 1000 * (time.perf_counter() - started) / len(photos)
            levels = levels_of(run, args.data / "annotations.json")
            rows, cols = run.maps(0).shape[1:]
    except DFFError as error:
        yield f"fails: {error} | – | – | – | –"
        return
    for level, found in levels.items():
        figures = f"{found.mask_iou:.3f} | {found.corloc:.3f} | {milliseconds:.0f}"
        yield f"{rows} x {cols} | {level} | {figures}"
