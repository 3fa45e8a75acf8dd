"""``dff demo``: the whole product on embedded images, offline, against a truth that is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dff.cli import options as opt
from dff.cli.console import print_json, print_table, say, settings, working
from dff.cli.outputs import reserve

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from dff.demo.creatures import Scene
    from dff.explain import Explanation
    from dff.metrics import PartAgreement

__all__ = ["demo"]

SIZE = 256
FIRST_SEED = 3_000_000  # the embedded model was trained on seeds below 1,000,000
FILES = ("1_creature.png", "2_scene.png", "3_shared_concepts.png", "demo.json")
FAMILY, COUNT, CONCEPTS = "griffin", 24, 7


def demo(
    out: opt.Out = Path("dff-demo"),
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Show everything on embedded images with the embedded model; no network, no photo needed."""
    settings.quiet = quiet or json
    with working("explaining creatures"):
        results = run_demo(out)
    if json:
        print_json(results)
        return
    for name in ("creature", "scene"):
        summary = results[name]
        say(f"{name}: the model sees {summary['sees']}; the picture holds {summary['holds']}")
    parts = results["parts"]
    say(f"{CONCEPTS} concepts that {COUNT} pictures of a {FAMILY} share, against its known parts:")
    print_table(
        ["part", ">concept", ">IoU", ">CorLoc", ">IoU of Grad-CAM"],
        [
            (row["part"], row["concept"] or "-", row["iou"], row["corloc"], row["cam_iou"])
            for row in parts["rows"]
        ],
    )
    say(f"mean part IoU {parts['mean_iou']}; of Grad-CAM's one map {parts['cam_mean_iou']}")
    say()
    for path in results["paths"]:
        say(path)


def run_demo(out: Path) -> dict[str, Any]:
    """Analyse, co-localize, compare and measure; write the pictures; return what was found."""
    import numpy as np

    from dff.demo import creatures
    from dff.explain import Explainer
    from dff.files import json_text
    from dff.images import Picture
    from dff.manifest import Manifest
    from dff.maps import MaskOptions
    from dff.rendering.files import png

    reserve({out: FILES}, [])
    explainer = Explainer("demo")
    single = creatures.render(FIRST_SEED + 5, size=SIZE, species="dragon")
    scene = creatures.render(FIRST_SEED + 8, size=512, species=["lion", "zebra", "eagle"], count=3)
    family = [
        creatures.render(FIRST_SEED + 100 + i, size=SIZE, species=FAMILY) for i in range(COUNT)
    ]
    results: dict[str, Any] = {}
    pictures: dict[str, Image] = {}
    for file, name, shown in zip(FILES, ("creature", "scene"), (single, scene), strict=False):
        explained = explainer(Picture(shown.image, name), concepts=6)
        pictures[file] = explained.panel(target=shown.species)
        results[name] = _summary(explained, shown)
    parts = MaskOptions(threshold="peak", components="all")
    shared = explainer([animal.image for animal in family], concepts=CONCEPTS)
    masks = np.stack([photo.masks(parts) for photo in shared])
    agreement = _agreement(masks, family)
    pictures[FILES[2]] = _sheet(shared, masks, agreement)
    results["parts"] = _against_grad_cam(shared, family, agreement)
    results["paths"] = [str(out / name) for name in FILES]
    drawn = {name: png(partial(pictures.__getitem__, name)) for name in pictures}
    Manifest(out).write({**drawn, FILES[-1]: json_text(results)})
    return results


def _summary(explained: Explanation, scene: Scene) -> dict[str, Any]:
    """Return what the model sees, what there is, and what each concept says."""
    return {
        "sees": ", ".join(f"{c.name} {c.probability:.2f}" for c in explained.predictions(top_k=3)),
        "holds": ", ".join(animal.species for animal in scene.animals),
        "concepts": [
            {"share": round(float(share), 4), "says": explained.top_classes(k, top_k=1)[0].name}
            for k, share in enumerate(explained.bank.shares)
        ],
    }


def _part_masks(family: list[Scene]) -> tuple[np.ndarray, list[str]]:
    """Return the known parts (n, p, h, w) bool and their names."""
    import numpy as np

    names = sorted({name for scene in family for name in scene.parts})
    none = np.zeros(family[0].image.shape[:2], bool)
    masks = [[scene.parts.get(name, none) for name in names] for scene in family]
    return np.array(masks), names


def _agreement(masks: np.ndarray, family: list[Scene]) -> PartAgreement:
    from dff.metrics import part_agreement

    parts, names = _part_masks(family)
    return part_agreement(masks, parts, part_names=names)


def _against_grad_cam(
    shared: Explanation, family: list[Scene], agreement: PartAgreement
) -> dict[str, Any]:
    """Return the agreement of concepts, and of Grad-CAM's one map with each part in turn."""
    import numpy as np

    from dff.maps import binarize

    cams = np.stack([binarize(photo.cam(FAMILY)) for photo in shared])
    alone = _agreement(cams[:, None], family)
    rows = [
        {
            "part": name,
            "concept": None if concept < 0 else int(concept) + 1,
            "iou": round(float(agreement.part_iou[p]), 3),
            "corloc": round(float(agreement.corloc[p]), 3),
            "cam_iou": round(float(alone.iou[0, p]), 3),
        }
        for p, (name, concept) in enumerate(
            zip(agreement.part_names, agreement.concepts, strict=True)
        )
    ]
    return {
        "species": FAMILY,
        "images": COUNT,
        "rows": rows,
        "mean_iou": round(agreement.mean_iou, 3),
        "cam_mean_iou": round(float(alone.iou[0].mean()), 3),
    }


def _sheet(shared: Explanation, masks: np.ndarray, agreement: PartAgreement) -> Image:
    """Draw a row a concept: pictures with the concept in colour, the rest pale."""
    import dataclasses

    import numpy as np

    from dff.rendering import contact_sheet

    entries = shared.legend_entries(top_k=2)
    rows = []
    for k, entry in enumerate(entries):
        part = [n for n, c in zip(agreement.part_names, agreement.concepts, strict=True) if c == k]
        tiles = []
        for i, photo in enumerate(shared.photos[:8]):
            pixels = photo.picture.pixels
            pale = (230 + 0.1 * pixels.mean(2, keepdims=True)).astype(np.uint8)
            tiles.append(np.where(masks[i, k][..., None], pixels, pale))
        title = entry.title + (f": {part[0]}" if part else "")
        share = float(shared.bank.shares[k])  # of all pictures
        rows.append((dataclasses.replace(entry, title=title, share=share), tiles))
    return contact_sheet(rows)
