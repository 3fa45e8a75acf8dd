"""``dff evaluate``, ``dff find``, ``dff name``, ``dff report``: what is done with a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dff.cli import options as opt
from dff.cli.bars import bars
from dff.cli.console import print_json, print_table, say, settings, working
from dff.errors import UsageError

if TYPE_CHECKING:
    from dff.colocalization import Run

__all__ = ["evaluate", "find", "name", "report"]

RunPath = Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)]


def evaluate(
    run: RunPath,
    annotations: Annotated[Path, typer.Option(help="COCO JSON, or a folder of Pascal VOC's XML.")],
    level: Annotated[
        str | None,
        typer.Option(help="part: concepts alone; object: their unions too. Default: the run's."),
    ] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Measure how well a run's concepts locate annotated classes."""
    settings.quiet = quiet or json
    from dff.colocalization import Run
    from dff.colocalization.evaluate import evaluate as measure
    from dff.concepts import titles

    with working("measuring"):
        result = measure(run, annotations, level=level)
    if json:
        print_json(result.as_dict())
        return

    bank = Run(run).bank
    named = bank.renamed(dict(enumerate(titles(bank.names)))).node_names()

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    print_table(
        ["class", ">images", "concept", ">CorLoc", ">mask IoU", ">pooled IoU"],
        [
            (entry.name, entry.images, named[entry.concept],
             shown(entry.corloc), shown(entry.mask_iou), shown(entry.pooled_iou))
            for entry in result.classes
        ],
        title=f"{result.images} annotated images",
    )  # fmt: skip
    say(
        f"mean: CorLoc {shown(result.corloc)}, mask IoU {shown(result.mask_iou)}, "
        f"pooled IoU {shown(result.pooled_iou)}"
    )


def find(
    run: RunPath,
    concept: Annotated[
        str, typer.Option("--concept", "-c", help="Its number, from 1, or its name.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many images.")] = 20,
    by: Annotated[
        str,
        typer.Option(help="strength, or contribution: what it adds to the logit of --class."),
    ] = "strength",
    target: Annotated[
        str | None, typer.Option("--class", help="For --by contribution: a class, name or index.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="PNG. Default: RUN/find-CONCEPT.png.")
    ] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a contact sheet of the images that show a concept best."""
    settings.quiet = quiet or json
    from dff.colocalization import Run
    from dff.colocalization.explore import find as show

    if by not in ("strength", "contribution"):
        raise UsageError(f"--by is strength or contribution, not {by!r}")
    if (by == "contribution") != (target is not None):
        raise UsageError("--by contribution and --class go together: give both, or none of them")
    opened = Run(run)
    index = _index(opened, concept)
    path = out or opened.path / f"find-{index + 1}.png"
    images = show(opened, index, path, top=top, target=target)
    if json:
        print_json({"sheet": str(path), "images": images})
        return
    if target is not None:
        say(f"what the concept adds to the logit of {target}")
        rows = [(f"{row['contribution']:+.3f}", row["path"]) for row in images]
        print_table([">adds", "image"], rows)
    else:
        say("presence where the concept is strongest; 100% is full presence, or more")
        print_table(
            [">presence", "image"],
            [(f"{min(row['strength'], 1):.0%}", row["path"]) for row in images],
        )
    say(str(path))


def name(
    run: RunPath,
    concept: Annotated[
        str, typer.Argument(help="Its number, from 1, or its name.", show_default=False)
    ],
    text: Annotated[str, typer.Argument(help="The new name.", show_default=False)],
    quiet: opt.Quiet = False,
) -> None:
    """Name a concept of a run; the name then appears everywhere."""
    settings.quiet = quiet
    from dff.colocalization import Run
    from dff.colocalization.explore import rename
    from dff.concepts import titles

    opened = Run(run)
    index = _index(opened, concept)
    before, after = opened.bank, rename(opened, index, text).bank
    say(f"{titles(before.names)[index]} is now {titles(after.names)[index]}")


def report(
    run: RunPath,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML. Default: RUN/report.html.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Also evaluate: COCO JSON, or a folder of Pascal VOC's XML."),
    ] = None,
    images: Annotated[
        int, typer.Option(min=0, help="How many images are shown; the others stand in the table.")
    ] = 600,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a run as one page to explore: concepts, images, classes, right and wrong."""
    settings.quiet = quiet or json
    from dff.colocalization import Run
    from dff.colocalization.evaluate import evaluate as measure
    from dff.colocalization.pages import write_report

    opened = Run(run)
    path = out or opened.path / "report.html"
    measured = None
    if annotations:
        with working("measuring"):
            measured = measure(opened, annotations)
    with bars() as advance:
        write_report(opened, path, evaluation=measured, images=images, progress=advance)
    if json:
        print_json({"report": str(path)})
        return
    say(str(path))


def _index(run: Run, text: str) -> int:
    """Return the index of a concept by its number on screen, from 1, or by its name."""
    count = len(run.bank)
    if not text.strip().isdecimal():
        return run.concept(text)
    if not 1 <= int(text) <= count:
        raise UsageError(f"there is no concept {text.strip()}: they count from 1 to {count}")
    return int(text) - 1
