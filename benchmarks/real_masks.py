"""Concepts on real photos with real masks: ours by its defaults, and peers on the same activations.

    python benchmarks/real_masks.py ../shared                          # 218 horses, three models
    python benchmarks/real_masks.py ../shared --images 36 --concepts 4,8
    python benchmarks/real_masks.py ../shared --resolution             # what finer grids buy
    python benchmarks/real_masks.py ../shared --check-semi             # semi-NMF against its peers
    python benchmarks/real_masks.py ../shared --data SEQUENCES         # each, then means (of DAVIS,
                                                                       # by masked_folders.py)

Ours is `dff.colocalize` of the photos and `dff.evaluate` of the run, every default as it is; the
part level is the one concept that fits the horse best, the object level the best of concepts and
their unions. Peers (``concept_peers``) factorize the very activations that the run sees, as they
are and on cells of unit norm. Their coefficients become maps as ours do (full presence over the
set), masks by the library's rule and by the best of a list of rules that is chosen with the truth
in sight, for either figure (``mask_scores``). LOST and TokenCut
(``one_object``) have a rule of their own, which gives one mask a photo: a map of 0 and 1.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from concept_peers import peers_of
from mask_scores import LIBRARY, RULES, agreement, best, levels_of, measure
from masked_photos import (
    MEASURED,
    MODELS,
    Activations,
    Photo,
    activations,
    folders_of,
    numbers,
    paths_of,
    read_photos,
)
from one_object import one_object_rules

import dff
from dff.colocalization.run.coco import annotations_of
from dff.explain import Explainer
from dff.maps import full_presence, presence
from dff.maps.rle import drawn
from dff.maps.runs import Runs, runs_of


@dataclass(frozen=True)
class Row:
    """A line of the table; None where a method has no such figure."""

    model: str
    concepts: int | None
    method: str
    iou: float | None
    corloc: float | None
    best_iou: float | None = None
    iou_rule: str = "–"
    best_corloc: float | None = None
    corloc_rule: str = "–"
    nmi: float | None = None
    ari: float | None = None
    seconds: float | None = None
    data: str = ""
    first: float | None = None

    def __str__(self) -> str:
        values = [_shown(value) for value in asdict(self).values()]
        return "| " + " | ".join(values) + " |"


HEADER = """
| model | k | method | IoU | CorLoc | best IoU | by | best CorLoc | by | NMI | ARI | seconds | data | first |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""  # noqa: E501


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def ours(
    row: Row, explainer: Explainer, data: Activations, photos: Sequence[Photo], annotations: Path
) -> Iterator[Row]:
    """Yield the rows of a run by the defaults, at the levels of parts and of objects.

    NMI and ARI are those of all concepts, and of the one node that fits best.
    """
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        run = dff.colocalize(
            paths_of(photos), Path(place) / "run", model=explainer, concepts=row.concepts
        )
        seconds = time.perf_counter() - started
        found = levels_of(run, annotations)
        masks = run_masks(run, photos)
        maps = [run.maps(i).numpy() for i in range(len(photos))]
    parts = [nodes[: row.concepts] for nodes in masks]
    node = [[nodes[found["object"].concept]] for nodes in masks]
    agreements = {
        "part": agreement(maps, data.grid, parts, photos),
        "object": agreement([one[:1] for one in maps], data.grid, node, photos),
    }
    for level, result in found.items():
        nmi, ari = agreements[level]
        yield replace(
            row, method=f"**ours, {level} level**", iou=result.mask_iou, corloc=result.corloc,
            nmi=nmi, ari=ari, seconds=seconds,
        )  # fmt: skip


def run_masks(run: dff.Run, photos: Sequence[Photo]) -> list[list[Runs]]:
    """Return the masks (photos, nodes) of a run, empty where a node was not found."""
    empty = np.zeros(0, np.int64)
    nodes = len(run.bank.nodes())
    masks = [[Runs(empty, empty, *photo.size)] * nodes for photo in photos]
    for found in annotations_of(run.folder.file("coco.json"), range(len(photos))):
        mask = runs_of(drawn(found["segmentation"]))
        masks[found["image_id"]][found["category_id"] - 1] = mask
    return masks


def score(row: Row, coefficients: np.ndarray, data: Activations, photos: Sequence[Photo]) -> Row:
    """Fill in the figures of a method's coefficients (n, rows, cols, m)."""
    flat = torch.from_numpy(np.ascontiguousarray(coefficients, np.float32))
    full = full_presence(flat.flatten(0, 2)).numpy()
    maps = presence(flat.permute(0, 3, 1, 2).contiguous().numpy(), full)
    masks = {
        name: [rule(one, data.grid, photo) for one, photo in zip(maps, photos, strict=True)]
        for name, rule in RULES.items()
    }
    scores = {name: measure(found, photos) for name, found in masks.items()}
    by_iou, by_corloc = best(scores)
    nmi, ari = agreement(list(maps), data.grid, masks[LIBRARY], photos)
    return replace(
        row, iou=scores[LIBRARY].iou, corloc=scores[LIBRARY].corloc, nmi=nmi, ari=ari,
        best_iou=scores[by_iou].iou, iou_rule=by_iou,
        best_corloc=scores[by_corloc].corloc, corloc_rule=by_corloc,
    )  # fmt: skip


def concepts_of_peers(row: Row, data: Activations, photos: Sequence[Photo]) -> Iterator[Row]:
    """Yield a row for each peer."""
    for method, peer in peers_of(data.values).items():
        started = time.perf_counter()
        try:
            coefficients = peer(data.values, row.concepts)
        except Exception as error:  # a peer's own failure is a result
            print(f"{method}, {row.model}, k = {row.concepts}, fails: {error!r}")
            continue
        seconds = time.perf_counter() - started
        yield score(replace(row, method=method, seconds=seconds), coefficients, data, photos)


def one_object(name: str, data: Activations, photos: Sequence[Photo], of: str) -> Iterator[Row]:
    """Yield a row for each rule that gives one object a photo, of the best of its variants."""
    for method, variants in one_object_rules().items():
        rows = []
        for rule in variants:
            started = time.perf_counter()
            masks = np.stack([rule(features) for features in data.values])
            seconds = time.perf_counter() - started
            row = Row(name, None, f"{method}{of}", None, None, seconds=seconds)
            rows.append(score(row, masks[..., None], data, photos))
        yield max(rows, key=lambda row: row.best_iou or 0)


def all_rows(args: argparse.Namespace, data: Path, photos: Sequence[Photo]) -> Iterator[Row]:
    """Yield the table's rows of a folder's photos, model by model."""
    for name in args.models.split(","):
        model = MODELS[name]
        explainer = model.load(args.shared, args.size)
        seen = activations(explainer, photos)
        for k in numbers(args.concepts or "4,8"):
            row = Row(name, k, "", None, None)
            yield from ours(row, explainer, seen, photos, data / "annotations.json")
            yield from concepts_of_peers(row, seen, photos)
        whole = np.ones((*seen.values.shape[:3], 1), np.float32)
        yield score(Row(name, None, "the whole photo", None, None), whole, seen, photos)
        yield from one_object(name, seen, photos, "")
        if model.keys:
            keys = activations(model.load(args.shared, args.size, layer=model.keys), photos)
            yield from one_object(name, keys, photos, ", keys")


def means(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the means over folders, and in which share of them a method's IoU is the highest."""
    methods: dict[tuple[str, int | None, str], list[Row]] = {}
    highest: dict[tuple[str, str, int | None], float] = defaultdict(float)
    for row in rows:
        methods.setdefault((row.model, row.concepts, row.method), []).append(row)
        place = (row.data, row.model, row.concepts)
        highest[place] = max(highest[place], row.iou or 0)
    for (model, k, method), of in methods.items():
        first = [row.iou == highest[row.data, model, k] for row in of]
        yield Row(model, k, method, **_mean_figures(of), data=f"{len(of)} folders",
                  first=sum(first) / len(of))  # fmt: skip


def _mean_figures(rows: Sequence[Row]) -> dict[str, Any]:
    figures = ("iou", "corloc", "best_iou", "best_corloc", "nmi", "ari", "seconds")
    values = {name: [getattr(row, name) for row in rows] for name in figures}
    return {k: None if None in v else float(np.mean(v)) for k, v in values.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table that is asked for."""
    args = _options(arguments)
    warnings.simplefilter("ignore")
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    folders = folders_of(args.data)
    rows = [row for folder in folders for row in _measured(args, folder)]
    if len(folders) > 1 and rows:
        rows += _table(means(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _measured(args: argparse.Namespace, folder: Path) -> list[Row]:
    """Print what is asked of a folder's photos; return the rows of the table by method."""
    photos = read_photos(folder, args.images, args.start)
    print(f"{len(photos)} photos of {folder.name}, from number {args.start} on")
    if args.check_semi:
        from semi_nmf_check import check

        check(args, photos)
        return []
    if args.resolution:
        from mask_resolution import resolutions

        resolutions(args, photos)
        return []
    return _table(replace(row, data=folder.name) for row in all_rows(args, folder, photos))


def _table(rows: Iterable[Row]) -> list[Row]:
    """Print rows as they come, and return them."""
    shown: list[Row] = []
    for row in rows:
        if not shown:
            print(HEADER)
        shown.append(row)
        print(row, flush=True)
    return shown


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with models/ and data/")
    parser.add_argument(
        "--data",
        type=Path,
        help="images/ and annotations.json, or a folder of such folders; default: horses",
    )
    parser.add_argument("--images", type=int, help="so many, evenly spaced; default: all")
    parser.add_argument("--start", type=int, default=0, help="number of the first photo")
    parser.add_argument("--models", default=",".join(MEASURED), help=f"of {', '.join(MODELS)}")
    parser.add_argument("--concepts", help="4,8 (the default) or 2:12 (that of --check-semi)")
    parser.add_argument("--size", type=int, help="of the input; default: each model's own")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--resolution", action="store_true", help="what finer grids buy")
    parser.add_argument("--check-semi", action="store_true", help="semi-NMF against its peers")
    args = parser.parse_args(arguments)
    args.data = args.data or args.shared / "data/horses"
    return args


if __name__ == "__main__":
    main()
