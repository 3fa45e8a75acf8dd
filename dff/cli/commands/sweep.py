"""``dff sweep``: how many concepts are there?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dff.cli import options as opt
from dff.cli.console import print_json, print_table, progress, say, settings, suggest, working
from dff.cli.outputs import reserve
from dff.cli.settings_file import SaveSettings, SettingsFile, differing, finish, model_words

__all__ = ["sweep"]


@opt.with_model()
def sweep(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            help="Photos: paths, folders or http(s) URLs. Several share their concepts.",
            show_default=False,
        ),
    ],
    chosen: opt.ModelOptions,
    concepts: Annotated[
        str, typer.Option("--concepts", "-k", help="The numbers to try: LO:HI, or auto.")
    ] = "auto",
    out: opt.Out = Path("dff-out"),
    allow_private: opt.AllowPrivate = False,
    settings_file: SettingsFile = None,
    save_settings: SaveSettings = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find how many concepts photos have: the curve, the overlays, and the concept tree."""
    settings.quiet = quiet or json
    counts = opt.parse_concepts(concepts)
    if isinstance(counts, int):
        counts = range(counts, counts + 1)
    from dff.explain.sweep import output_names
    from dff.images import read_image, spread
    from dff.images.names import distinct_names

    images = spread(images)
    pictures = [
        read_image(image, allow_private=allow_private) for image in progress(images, "reading")
    ]
    names = distinct_names(picture.name for picture in pictures)
    reserve({out: output_names(names)}, [*images, *chosen.files()])
    with working(f"loading {chosen.model}"):
        explainer = chosen.explainer()
    with working("sweeping"):
        swept = explainer.sweep(pictures, concepts=counts)
        paths = [str(path) for path in swept.save(out, settings=differing(ctx))]
    report = {**swept.as_dict(settings=differing(ctx)), "paths": paths}
    if json:
        print_json(report)
        finish(ctx)
        return
    print_table(
        ["", ">concepts", ">explained", ">stability"],
        [
            ("*" if k == swept.selection.chosen else "", k, f"{explained:.3f}", f"{stability:.3f}")
            for k, explained, stability in zip(
                report["counts"], report["explained"], report["stability"], strict=True
            )
        ],
    )
    say(swept.selection.reason)
    say()
    for path in paths:
        say(path)
    finish(ctx)
    count = str(swept.selection.chosen)
    suggest(
        [
            "dff",
            "analyze",
            *(images if len(images) < 5 else ["PHOTOS"]),
            *model_words(ctx),
            "--concepts",
            count,
        ]
        + ["--shared"] * (len(images) > 1),
        "these concepts, and what each says",
    )
