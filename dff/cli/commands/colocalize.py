"""``dff colocalize``: a dataset in, shared concepts and their place in every image out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dff.cli import options as opt
from dff.cli.bars import bars
from dff.cli.console import print_json, print_table, say, settings, suggest, swatch, working
from dff.cli.settings_file import SaveSettings, SettingsFile, finish

if TYPE_CHECKING:
    from dff.colocalization import Forecast, Run

__all__ = ["colocalize"]

_MASKS, _SPEED = "Masks and boxes", "Speed and memory"


@opt.with_model()
def colocalize(
    ctx: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(
            help="A folder (class subfolders become labels), a .txt or .csv list of paths, .tar "
            "shards, .parquet files, a video, or an address (s3://…, gs://…, hf://…).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder of the run.", callback=opt.folder, rich_help_panel="Output"
        ),
    ],
    chosen: opt.ModelOptions,
    concepts: Annotated[
        str,
        typer.Option("--concepts", "-k", help="How many concepts to find; auto, or a range LO:HI."),
    ] = "10",
    seed: Annotated[int, typer.Option(min=0, help="Of the sample of cells.")] = 0,
    threshold: Annotated[
        str,
        typer.Option(
            help="Of masks: auto, otsu, peak, or a presence in (0, 1).", rich_help_panel=_MASKS
        ),
    ] = "auto",
    components: Annotated[
        str,
        typer.Option(
            help="largest: one connected part a mask; all: all of it.", rich_help_panel=_MASKS
        ),
    ] = "largest",
    refine: Annotated[
        bool,
        typer.Option(
            "--refine/--no-refine", help="Masks follow the photo's edges.", rich_help_panel=_MASKS
        ),
    ] = True,
    level: Annotated[
        str,
        typer.Option(
            help="part: masks of the concepts; object: also of unions of those that belong "
            "together.",
            rich_help_panel=_MASKS,
        ),
    ] = "object",
    least: Annotated[
        float,
        typer.Option(
            help="Presence at its peak from which a concept counts as found.",
            rich_help_panel=_MASKS,
        ),
    ] = 0.25,
    memory: Annotated[
        str,
        typer.Option(
            help="For the activations of the fit: if all fit, it is exact and takes one pass.",
            rich_help_panel=_SPEED,
        ),
    ] = "4G",
    precision: Annotated[
        str,
        typer.Option(
            help="float32, bfloat16, or auto: by a trial on CPUs, bfloat16 on GPUs.",
            rich_help_panel=_SPEED,
        ),
    ] = "auto",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images run together.", rich_help_panel=_SPEED)
    ] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads that read images. Default: one for each core.",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="An image that cannot be read ends the run.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Start over where the settings differ.")
    ] = False,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would take, after 50 images; write nothing."),
    ] = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write RUN/report.html, as `dff report` does.",
            rich_help_panel="Output",
        ),
    ] = False,
    settings_file: SettingsFile = None,
    save_settings: SaveSettings = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find the concepts that a dataset shares, and their place in every image.

    The same command goes on with a run that was interrupted. Under torchrun, all processes work
    on one run.
    """
    settings.quiet = quiet or json
    count = opt.parse_concepts(concepts)
    from dff import colocalization
    from dff.colocalization.ranks import local_device, start
    from dff.colocalization.sources.opening import open_dataset
    from dff.colocalization.stages.job import OVER_IMAGES
    from dff.colocalization.stages.repair import check_apart

    options = colocalization.RunOptions(
        level=level, memory=memory, seed=seed, precision=precision, batch=batch_size,
        workers=workers, strict=strict,
    )  # fmt: skip
    masks = colocalization.MaskOptions(
        threshold=_number(threshold), components=components, refine=refine, least=least
    )
    ranks = start()
    if not ranks.first:
        settings.quiet = True
    with ranks.together("opening the dataset"):
        check_apart(dataset, out)
        opened = open_dataset(dataset, skip=out)  # what cannot be is said before the model loads
    with ranks.together("loading the model"), working(f"loading {chosen.model}"):
        explainer = replace(chosen, device=chosen.device or local_device()).explainer()
    if dry:
        with working(f"trying {colocalization.TRIAL} images"):
            expected = colocalization.dry_run(
                opened, out, model=explainer, concepts=count, options=options, masks=masks
            )
        _forecast(expected, json=json)
        return
    with bars(OVER_IMAGES) as advance:
        run = colocalization.colocalize(
            opened, out, model=explainer, concepts=count, options=options, masks=masks,
            force=force, progress=advance,
        )  # fmt: skip
    if not ranks.first:
        return
    if report:
        from dff.colocalization.pages import write_report

        with bars() as advance:
            write_report(run, run.path / "report.html", progress=advance)
    if json:
        print_json(run.summary())
    if explainer.untrained:
        say(opt.UNTRAINED)
    _report(run)
    if report:
        say(str(run.path / "report.html"))
    finish(ctx)
    suggest(["dff", "report", str(out)], "a page to explore the run; `dff find` shows a concept")


def _forecast(expected: Forecast, *, json: bool) -> None:
    """Print what a run would take."""
    if json:
        print_json(expected.as_dict())
    total = sum(expected.seconds.values())
    slow = ", ".join(f"{stage} {_time(s)}" for stage, s in expected.seconds.items() if s >= 1)
    passes = "one pass" if expected.passes == 1 else "two passes: a sample of cells is fitted"
    rows = [
        ("images", f"{expected.images:,}"),
        ("passes of the model", passes),
        ("cells fitted", f"{expected.rows:,}"),
        ("memory for them", _bytes(expected.memory)),
        ("disk, at most", f"{_bytes(expected.disk)} of {_bytes(expected.free)} that are free"),
        ("disk, results", _bytes(expected.kept)),
        ("time, one process", f"{_time(total)}" + (f" ({slow})" if slow else "")),
    ]
    if expected.unreadable:
        rows.append(("unreadable", f"{expected.unreadable} of the {expected.tried} tried"))
    print_table(["a run would take", ""], rows)
    if expected.disk > expected.free:
        say("it does not fit on the disk: choose another --out, or less --memory")


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{hours:.1f} h"
        if hours >= 1
        else f"{minutes:.0f} min"
        if minutes >= 2
        else f"{seconds:.0f} s"
    )


def _number(text: str) -> float | str:
    """Return the number that a text is, else the text: what it may be is said elsewhere."""
    try:
        return float(text)
    except ValueError:
        return text


def _report(run: Run) -> None:
    """Print what was found."""
    from dff.concepts import titles
    from dff.labels import spoken_classes

    counts, bank = run.state["counts"], run.bank
    way = "all cells were fitted" if run.state["exact"] else "a sample of cells was fitted"
    say(f"{bank.model}, layer {bank.layer}: {counts['images']} images, {way} ({counts['rows']})")
    if output := run.state["settings"]["model"].get("output"):
        say(f"output: {output['kind']} ({output['found']})")
    if precision := run.state.get("precision"):
        say(f"{precision['precision']}: {precision['reason']}")
    facts = run.table("concepts").to_pylist()
    scored = any(row["top_classes"] is not None for row in facts)
    print_table(
        [
            "concept",
            ">share",
            ">in images",
            *(["speaks for"] if scored else []),
        ],
        [
            (
                swatch(row["color"], title),
                f"{row['share']:.1%}",
                f"{row['prevalence']:.0%}",
                ", ".join(spoken_classes(row["top_classes"])),
            )[: 4 if scored else 3]
            for row, title in zip(facts, titles(bank.names), strict=True)
        ],
    )
    if run.selection is not None:
        say(f"{run.selection['reason']}: {run.path / 'selection.png'}")
    if wrong := counts["unreadable"]:
        share = f"{wrong} of {counts['images']} images ({wrong / counts['images']:.0%})"
        say(f"{share} could not be read: images.parquet says why")
    say(f"{counts['instances']} boxes and masks; the concepts at a glance:")
    say(str(run.path / "concepts.png"))
    if (run.path / "overlay.mp4").exists():
        say(str(run.path / "overlay.mp4"))
