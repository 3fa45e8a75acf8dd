"""From the record of photos to the plain data of a page (:mod:`dff.report`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dff.concepts import titles
from dff.explain.drawing import Drawing
from dff.explain.photo import Photo, Target, clips_of
from dff.explain.questions.check import Answer, Check, verdict
from dff.explain.questions.evidence import Evidence
from dff.labels import short_name
from dff.maps import fitted, sharpened, within
from dff.report import Answers, ConceptEntry, Figure, PhotoEntry, PhotoPage, Table

__all__ = ["photo_view"]

LONGEST_SIDE = 1280
"""Pixels of a photo's longer side in a page, at most."""
MAP_SIDE, LEAST_MAP_SIDE = 512, 96
"""Likewise of its maps: fewer, where there are many maps."""
MAP_PIXELS = 48_000_000
"""Of all maps of a page, at most: some 20 MB as they are written."""
CAM_SIDE = 256
PREDICTIONS, MOST_PHOTOS = 3, 48


def photo_view(
    photos: Sequence[Photo],
    *,
    target: Target | None = None,
    top_k: int = 3,
    answers: Sequence[Sequence[Answer]] = (),
    figures: Sequence[Figure] = (),
    longest: int = LONGEST_SIDE,
) -> PhotoPage:
    """Return what a page shows of photos that share concepts.

    Of many photos a sample is shown, evenly spread; the page says so.

    Args:
        photos: those of one explanation; the frames of a clip stand one by one.
        target: the class of contributions and Grad-CAM; None is each photo's likeliest.
        top_k: most labels a concept.
        answers: for each photo or clip what else was asked about it.
        figures: drawings of all of them together.
        longest: pixels of a photo's longer side, at most.

    Raises:
        UsageError: no such class.
        ModelError: a target, of a model without a head.
    """
    shared, bank = photos[0].shared, photos[0].bank
    clips = clips_of(photos)
    of_clip = zip(clips, answers or [()] * len(clips), strict=True)
    each = [(photo, clip[0], asked) for clip, asked in of_clip for photo in clip]
    chosen = np.unique(np.linspace(0, len(each) - 1, min(len(each), MOST_PHOTOS)).round())
    side = _map_side(len(chosen) * len(bank), longest)
    entries = [
        _entry(*each[i], target=target, top_k=top_k, longest=longest, side=side)
        for i in chosen.astype(int)
    ]
    first = entries[0].name
    left_out = "" if len(chosen) == len(each) else (
        f"{len(chosen)} of {len(each)} photos are in this page, evenly spread; the scores of all "
        "are in explanation.json."
    )  # fmt: skip
    return PhotoPage(
        title=first if len(each) == 1 else f"{first} and {len(each) - 1} more",
        about=[
            f"{len(bank)} concepts of {bank.model}, layer {bank.layer}",
            f"output: {shared.meaning}; the concepts leave {bank.rest:.0%} of the activations "
            "that they were found in unexplained",
        ],
        concepts=[
            ConceptEntry(title, (int(color[0]), int(color[1]), int(color[2])), float(share))
            for title, color, share in zip(
                titles(bank.names), bank.colors, bank.shares.tolist(), strict=True
            )
        ],
        photos=entries,
        unscored=shared.unscored or "",
        figures=figures,
        left_out=left_out,
    )


def _map_side(maps: int, longest: int) -> int:
    """Return the longer side of each of so many maps, drawn sharp and smooth."""
    room = int((MAP_PIXELS / max(2 * maps, 1)) ** 0.5)
    return min(longest, MAP_SIDE, max(room, LEAST_MAP_SIDE))


def _entry(
    photo: Photo, first: Photo, asked: Sequence[Answer], *, target: Target | None, top_k: int,
    longest: int, side: int,
) -> PhotoEntry:  # fmt: skip
    """Return a photo; `first` is the frame that stands for its clip, or the photo itself."""
    evidence = [one for one in asked if isinstance(one, Evidence)]
    drawing = Drawing([first], target=target, top_k=top_k, evidence=evidence)
    whole, names = photo.picture.pixels.shape[:2], photo.shared.class_names
    size = within(whole, side)
    small = fitted(photo.picture.pixels, size)
    smooth = photo.heatmaps(size)
    radius = max(1, round(size[0] / photo.grid.rows))
    predictions = [] if photo.shared.headless else photo.predictions(top_k=PREDICTIONS)
    return PhotoEntry(
        name=photo.picture.name,
        pixels=fitted(photo.picture.pixels, within(whole, longest)),
        sharp=sharpened(smooth, small, radius=radius),
        smooth=smooth,
        shares=photo.shares.tolist(),
        labels=[
            [(drawing.class_title(label.index), label.confidence) for label in row]
            for row in drawing.labels
        ],
        predictions=[(short_name(c.index, names), c.probability) for c in predictions],
        cams=_cams(photo, drawing),
        answers=Answers(
            bars=drawing.columns(),
            tables=[
                Table(f"Faithfulness for {one.target}", ("measure", "value", "good is"),
                      one.rows(), verdict(one.as_dict()))
                for one in asked if isinstance(one, Check)
            ],
            figures=[
                Figure(f"As concepts and pixels go, for {one.target}", one.plot())
                for one in asked if isinstance(one, Check)
            ],
        ),
    )  # fmt: skip


def _cams(photo: Photo, drawing: Drawing) -> list[tuple[str, np.ndarray]]:
    """Return Grad-CAM of the class asked for and of the likeliest ones, where there is any."""
    if not drawing.differentiable or not photo.tape.maps.requires_grad:
        return []
    likeliest = [c.index for c in photo.predictions(top_k=PREDICTIONS)]
    classes = dict.fromkeys([*([] if drawing.asked is None else [drawing.asked]), *likeliest])
    size = within(photo.picture.pixels.shape[:2], CAM_SIDE)
    return [(drawing.class_title(index), photo.cam(index, size)) for index in classes]
