"""A small dataset, a toy model and a way to compare runs, for the tests of co-localization."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

import dff
from dff.colocalization import MaskOptions, Run, RunOptions
from dff.colocalization.stages import plan
from dff.explain import Explainer
from dff.images import Preprocessing
from tests.toys import ConvNet, seeded

SMALL_CHUNK = 6

ON_THE_WAY = ("pandas", "PIL.JpegImagePlugin", "pyarrow.dataset", "scipy.linalg", "scipy.ndimage",
              "scipy.sparse")  # fmt: skip
"""What a run imports on its way, which takes as long as a small run."""


def identity(path: Path) -> tuple[int, ...]:
    """Return what stays the same of a file that nobody touches, a link itself included."""
    status = os.lstat(path)
    return status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


def colocalize(data, out, *, model, concepts=10, force=False, progress=None, **options) -> Run:
    """Co-localize with options of all groups side by side."""
    groups = [{f.name for f in fields(group)} for group in (RunOptions, MaskOptions)]
    run, masks = ({k: v for k, v in options.items() if k in names} for names in groups)
    assert len(run) + len(masks) == len(options), options
    return dff.colocalize(
        data, out, model=model, concepts=concepts, options=RunOptions(**run),
        masks=MaskOptions(**masks), force=force, progress=progress,
    )  # fmt: skip


def import_all() -> None:
    """Import what runs would, before they are forked."""
    for name in ON_THE_WAY:
        import_module(name)


def small_chunks(monkeypatch=None) -> None:
    """Make shards of a few images, so that a small dataset has several."""
    if monkeypatch is None:
        plan.CHUNK = SMALL_CHUNK
    else:
        monkeypatch.setattr(plan, "CHUNK", SMALL_CHUNK)


def toy(**options) -> Explainer:
    """A seeded network of 12 channels on a grid of 8 x 8."""
    return Explainer(
        seeded(ConvNet, **options),
        layer="layer4",
        preprocessing=Preprocessing(size=32, mean=0.5, std=0.25),
        class_names=["a", "b", "c", "d", "e"],
    )


def photos(folder: Path, count: int = 20, *, size=(40, 56), classes=("left", "right")) -> Path:
    """Write photos with a bright blob, in a subfolder for each class: left or right."""
    rng = np.random.default_rng(0)
    for i in range(count):
        label = classes[i % len(classes)]
        place = folder / label
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 60, (*size, 3)).astype(np.uint8)
        top = int(rng.integers(4, size[0] - 20))
        left = 4 if i % len(classes) == 0 else size[1] - 24
        pixels[top : top + 16, left : left + 18] = (250, 180 - 60 * (i % 2), 40 + 100 * (i % 2))
        Image.fromarray(pixels).save(place / f"{i:03d}.png")
    return folder


def digest(run: Path) -> dict[str, str]:
    """Return a digest of every file of a run; of run.json, all but the timings."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.name.startswith(".dff-"):
            data = path.read_bytes()
            if path.name == "run.json":
                state = json.loads(data)
                state.pop("timings")
                state.pop("rates", None)
                state.pop("work", None)
                data = json.dumps(state, sort_keys=True).encode()
            found[str(path.relative_to(run))] = hashlib.sha256(data).hexdigest()
    return found
