"""``dff analyze``: photos in, their concepts out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dff.cli import options as opt
from dff.cli.banks import of_bank
from dff.cli.console import complain, print_json, progress, say, settings, suggest, working
from dff.cli.outputs import grouped, photo_name, planned, reserve
from dff.cli.reports import print_explanation, weigh, weighed
from dff.cli.settings_file import SaveSettings, SettingsFile, differing, finish, model_words
from dff.errors import (
    DFFError,
    FactorizationError,
    ImageError,
    ModelError,
    OutOfMemoryError,
    UsageError,
)

if TYPE_CHECKING:
    from dff.explain import Explainer
    from dff.images import Picture

__all__ = ["analyze"]

_TRUST = "Evidence"


@opt.with_model()
def analyze(
    ctx: typer.Context,
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
        str | None,
        typer.Option(help="Explain in the concepts of this bank, by the model that it names."),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Find concepts that all photos share.")
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="NUMBER=NAME names a concept, here and in the bank (again for more).",
            metavar="NUMBER=NAME",
        ),
    ] = None,
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
            help="What to write: png, html, json, csv, arrays (again for more). Default: all but "
            "html.",
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
    settings_file: SettingsFile = None,
    save_settings: SaveSettings = None,
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

    if bank and "concepts" in opt.typed(ctx):
        raise UsageError("--concepts finds concepts and --bank gives them: choose one of the two")
    if bank and factorizer:
        raise UsageError("--factorizer finds concepts and --bank gives them: choose one of the two")
    chosen_formats, asked = check_formats(formats), check_evidence(evidence)
    kept = ConceptBank.load(bank) if bank else None
    if kept is not None and bank:
        chosen = of_bank(chosen, kept, bank, opt.typed(ctx, or_in_file=not kept.recipe))
        if chosen.model != kept.model:  # the same one, elsewhere
            kept = kept.renamed(model=chosen.model)
    sources = spread(images)
    if name and len(sources) > 1 and not (shared or kept):
        raise UsageError("--name: each photo has concepts of its own, but with --shared or --bank")
    fixed = count if isinstance(count, int) else None
    names = opt.parse_names(name or (), len(kept) if kept else fixed)
    groups = grouped(sources, out, shared)
    reserve(
        {
            folder: planned(group, chosen_formats, bool(asked), check)
            for folder, group in groups.items()
        },
        [*sources, bank, *chosen.files()],
    )
    explainer: Explainer | None = None
    asked_for = differing(ctx)
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
                opt.parse_names(name or (), len(result.bank))
                result = result.named(names)
            except (ImageError, FactorizationError, OutOfMemoryError) as error:
                if len(groups) == 1:
                    raise
                broken.append(type(error)(f"{photo_name(group[0])}: {error}"))
                continue
        found = [weighed(photo, asked, target, versus, check) for photo in result.clips]
        with working(f"drawing {len(pictures)} photo{'s' * (len(pictures) > 1)}"):
            paths = result.save(
                folder, top_k=top_k, target=target, formats=chosen_formats, smooth=smooth,
                outline=outline, evidence=found, settings=asked_for,
            )  # fmt: skip
        report = result.as_dict(top_k=top_k, settings=asked_for)
        if explainer.untrained:
            say(opt.UNTRAINED)
        print_explanation(result, paths, top_k)
        paths += weigh(result, report["images"], folder, found)
        reports.append({**report, "paths": [str(p) for p in paths]})
    if reports:
        finish(ctx)
        _suggest(ctx, groups, chosen_formats)
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


def _suggest(ctx: typer.Context, groups: dict[Path, list[str]], formats: Sequence[str]) -> None:
    """Print the command that may come next; `groups` are the photos by their results' folder."""
    from dff.models import is_code

    photos = [photo for group in groups.values() for photo in group]
    again = [*(photos[:4] if len(photos) < 5 else ["PHOTOS"]), *model_words(ctx)]
    if ctx.params["bank"] is None and len(groups) > 1:
        suggest(["dff", "analyze", *again, "--shared"], "concepts that the photos share")
    elif ctx.params["bank"] is None and "arrays" in formats and ctx.params["weights"] != "random":
        bank, model = next(iter(groups)) / "bank.safetensors", ctx.params["model"]
        words = ["dff", "analyze", "OTHER.jpg", "--bank", str(bank)]
        words += ["--model", model] if is_code(model) else []
        suggest(words, "the same concepts in another photo")
    else:
        suggest(["dff", "sweep", *again], "how many concepts there are")


def _end(broken: list[DFFError], *, alone: bool) -> None:
    """Say what went wrong with photos, and exit if anything did."""
    if not broken:
        return
    if alone:
        raise broken[0]
    for error in broken:
        complain(error)
    raise typer.Exit(1)
