"""``dff analyze``: photos in, their concepts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dff.cli import options as opt
from dff.cli.console import (
    complain,
    print_json,
    print_table,
    progress,
    say,
    settings,
    swatch,
    working,
)
from dff.cli.outputs import grouped, photo_name, planned, reserve
from dff.errors import (
    DFFError,
    FactorizationError,
    ImageError,
    ModelError,
    OutOfMemoryError,
    UsageError,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from dff.explain import Explainer, Explanation
    from dff.explain.questions.evidence import Evidence
    from dff.files import Content
    from dff.images import Picture

__all__ = ["analyze"]

_TRUST = "Evidence"


@opt.with_model()
def analyze(
    images: Annotated[
        list[str],
        typer.Argument(
            help="Photos: paths, folders or http(s) URLs. Each has concepts of its own.",
            show_default=False,
        ),
    ],
    chosen: opt.ModelOptions,
    concepts: Annotated[
        str, typer.Option("--concepts", "-k", help="How many concepts: N, auto, or LO:HI.")
    ] = "5",
    factorizer: Annotated[
        str | None,
        typer.Option(
            help="What finds them: nmf, semi-nmf, offset-nmf, or k-means. Default: NMF, or "
            "semi-NMF where activations have both signs."
        ),
    ] = None,
    bank: Annotated[
        str | None, typer.Option(help="Explain in the concepts of this bank instead.")
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Find concepts that all photos share.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(help="Class of Grad-CAM: name or index. Default: the likeliest."),
    ] = None,
    evidence: Annotated[
        list[str] | None,
        typer.Option(
            help="What each concept says about the class: contributions, ablation, blur, sobol, "
            "gradient (again for more).",
            rich_help_panel=_TRUST,
        ),
    ] = None,
    versus: Annotated[
        str | None,
        typer.Option(help="For --evidence: a class to compare with.", rich_help_panel=_TRUST),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Measure how faithful the concepts are.", rich_help_panel=_TRUST
        ),
    ] = False,
    top_k: opt.TopK = 3,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            callback=opt.folder,
            help="Folder to write to; several photos, unless --shared, have one each in it.",
            rich_help_panel="Output",
        ),
    ] = Path("dff-out"),
    allow_private: opt.AllowPrivate = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="What to write: png, json, arrays (again for more). Default: all.",
            rich_help_panel="Output",
        ),
    ] = None,
    smooth: Annotated[
        bool,
        typer.Option(
            "--smooth",
            help="Draw the maps as they are, not fitted to the photo's edges.",
            rich_help_panel="Output",
        ),
    ] = False,
    outline: Annotated[
        bool,
        typer.Option("--outline", help="Draw lines around the concepts.", rich_help_panel="Output"),
    ] = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find the concepts of photos, where each is, and what each says about the classes."""
    settings.quiet = quiet or json
    count = opt.parse_concepts(concepts)
    from dff.concepts import ConceptBank
    from dff.explain import check_formats
    from dff.explain.questions.evidence import check_evidence
    from dff.images import spread

    if bank and factorizer:
        raise UsageError("--factorizer finds concepts and --bank gives them: choose one of the two")
    chosen_formats, asked = check_formats(formats), check_evidence(evidence)
    kept = ConceptBank.load(bank) if bank else None
    sources = spread(images)
    groups = grouped(sources, out, shared)
    reserve(
        {
            folder: planned(group, chosen_formats, bool(asked), check)
            for folder, group in groups.items()
        },
        [*sources, bank, *chosen.files()],
    )
    explainer: Explainer | None = None
    reports: list[dict[str, Any]] = []
    broken: list[DFFError] = []
    for folder, group in progress(list(groups.items()), "analysing"):
        pictures = _read(group, broken, allow_private)
        if not pictures:
            continue
        explainer = explainer or _loaded(chosen, sources, factorizer)
        if explainer.unscored and (asked or check or (explainer.headless and target is not None)):
            raise ModelError(explainer.unscored)
        with working(f"analysing {len(pictures)} photo{'s' * (len(pictures) > 1)}"):
            try:
                result = explainer(pictures, concepts=count, bank=kept)
            except (ImageError, FactorizationError, OutOfMemoryError) as error:
                if len(groups) == 1:
                    raise
                broken.append(type(error)(f"{photo_name(group[0])}: {error}"))
                continue
            found = [
                [photo.evidence(kind, target, versus=versus) for kind in asked]
                for photo in result.clips
            ]
            paths = result.save(
                folder, top_k=top_k, target=target, formats=chosen_formats, smooth=smooth,
                outline=outline, evidence=found,
            )  # fmt: skip
        report = result.as_dict(top_k=top_k)
        if explainer.untrained:
            say(opt.UNTRAINED)
        _report(result, paths, top_k)
        paths += _trust(result, report["images"], folder, found, check, target)
        reports.append({**report, "paths": [str(p) for p in paths]})
    if json and reports:
        print_json(reports[0] if len(groups) == 1 else reports)
    _end(broken, alone=len(sources) == 1)


def _read(sources: list[str], broken: list[DFFError], allow_private: bool) -> list[Picture | str]:
    """Return the photos that can be read, and the paths of videos; errors join the `broken`."""
    from dff.images import is_video, read_image

    pictures: list[Picture | str] = []
    for source in progress(sources, "reading"):
        try:
            video = is_video(source)
            pictures.append(source if video else read_image(source, allow_private=allow_private))
        except ImageError as error:
            broken.append(error)
    return pictures


def _loaded(chosen: opt.ModelOptions, sources: list[str], factorizer: str | None) -> Explainer:
    """Build the model, and find its layer."""
    from dff.images import is_video

    with working(f"loading {chosen.model}"):
        explainer = chosen.explainer(factorizer=factorizer)
    if explainer.preprocessing.frames and not all(map(is_video, sources)):
        raise UsageError(f"{chosen.model} takes clips: name videos, such as clip.mp4")
    return explainer


def _end(broken: list[DFFError], *, alone: bool) -> None:
    """Say what went wrong with photos, and exit if anything did."""
    if not broken:
        return
    if alone:
        raise broken[0]
    for error in broken:
        complain(error)
    raise typer.Exit(1)


def _trust(
    result: Explanation,
    images: list[dict[str, Any]],
    folder: Path,
    evidence: Sequence[Sequence[Evidence]],
    check: bool,
    target: str | None,
) -> list[Path]:
    """Add evidence and checks to what is reported of each photo, and write both."""
    from dff.explain.saving import file_names
    from dff.files import json_text
    from dff.manifest import Manifest
    from dff.rendering.files import png

    if not any(evidence) and not check:
        return []
    files: dict[str, Content] = {}
    reported = iter(images)
    names = file_names(result.photos)
    for photo, name, found in zip(result.clips, names, evidence, strict=True):
        about, *_ = (next(reported) for _ in photo.photos)  # of a clip, with its first frame
        if found:
            about["evidence"] = _evidence(photo, found)
        if check:
            about["check"], plot = _check(photo, target)
            files[f"{name}_check.png"] = png(plot)
    files["evidence.json"] = json_text(images)
    paths = Manifest(folder).write(files)
    for path in paths:
        say(str(path))
    return paths


def _evidence(photo: Explanation, found: Sequence[Evidence]) -> list[dict[str, Any]]:
    """Print a photo's evidence, a column a kind, and return it as data."""
    from dff.concepts import titles

    columns = [evidence.as_dict() for evidence in found]
    rows = [
        [name, *(f"{column['values'][k]:+.3f}" for column in columns)]
        for k, name in enumerate(titles(photo.bank.names))
    ]
    for line in ("rest", "gap", "logit"):  # of contributions, which add up
        if any(line in column for column in columns):
            values = (f"{column[line]:+.3f}" if line in column else "" for column in columns)
            rows.append([line, *values])
    say(f"{photo.name}: evidence for {columns[0]['target']}")
    print_table(["concept", *(f">{column['kind']}" for column in columns)], rows)
    return columns


def _check(photo: Explanation, target: str | None) -> tuple[dict[str, Any], Callable[[], Image]]:
    """Print a photo's check, and return its figures and what draws its curves."""
    shown = photo.name
    with working(f"checking {shown}"):
        measured = photo.check(target)
    figures = measured.as_dict()
    rows = [
        (name.replace("_", " "), "not defined" if value is None else f"{value:.3g}")
        for name, value in figures.items()
        if name != "target"
    ]
    say(f"{shown}: faithfulness for {measured.target}")
    print_table(["measure", ">value"], rows)
    return figures, measured.plot


def _report(result: Explanation, paths: list[Path], top_k: int) -> None:
    """Print the table of concepts, the photos' own classes if there are any, and the paths."""

    from dff.concepts import titles

    def classes(scores: Any) -> str:
        return ", ".join(f"{c.name.split(',')[0]} {c.probability:.2f}" for c in scores)

    bank = result.bank
    kind = "photo" if result.photos[0].strip is None else "frame"
    rows = [
        (
            swatch("#" + bytes(color.tolist()).hex(), name),
            f"{share:.0%}",
            classes(result.top_classes(k, top_k=top_k)),
        )
        for k, (color, name, share) in enumerate(
            zip(bank.colors, titles(bank.names), bank.shares.tolist(), strict=True)
        )
    ]
    say(f"{bank.model}, layer {bank.layer}, {len(result)} {kind}(s)")
    say(f"output: {result.meaning}")
    if result.shared.headless:
        print_table(["concept", ">share"], [row[:2] for row in rows])
    else:
        print_table(["concept", ">share", "top classes at full presence"], rows)
        if result.unscored:
            say(result.unscored)
        for clip in result.clips:
            say(f"{clip.name}: {classes(clip.predictions(top_k=3))}")
    for photo in result.photos:
        if photo.picture.shown and photo.image.shape[0] != 3:
            say(f"{photo.picture.name}: drawn over {photo.picture.shown}")
    say(f"the concepts leave {bank.rest:.0%} of the activations unexplained")
    say()
    for path in paths:
        say(str(path))
