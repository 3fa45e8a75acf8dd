"""``dff compare``: several methods on the same photo."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dff.cli import options as opt
from dff.cli.console import print_json, print_table, progress, say, settings, working
from dff.cli.outputs import photo_name, reserve
from dff.cli.settings_file import SaveSettings, SettingsFile, differing, finish
from dff.errors import UsageError

if TYPE_CHECKING:
    from dff.comparing import MethodComparison
    from dff.explain import Explainer

__all__ = ["compare"]

_METHODS, _LOOK = "Methods", "Look"


@opt.with_model()
def compare(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(help="Photos: paths, folders or http(s) URLs.", show_default=False),
    ],
    chosen: opt.ModelOptions,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="Another model beside the first, by its own preprocessing (again for more).",
            metavar="MODEL[=WEIGHTS]",
            rich_help_panel="Model",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Names with commas between: concepts, concept-pixels, gradcam, layercam, …, "
            "integrated-gradients, saliency, smoothgrad-sq, deeplift, occlusion, "
            "gradient-x-activation, feature-ablation, … Default: some that take seconds.",
            rich_help_panel=_METHODS,
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of a method, as in integrated-gradients.n_steps=200 (again for more).",
            metavar="METHOD.SETTING=VALUE",
            rich_help_panel=_METHODS,
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(min=1, help="Inputs that run at a time.", rich_help_panel=_METHODS),
    ] = 16,
    target: Annotated[
        list[str] | None,
        typer.Option(help="A class: name or index (again for more).", rich_help_panel=_METHODS),
    ] = None,
    classes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Without --target: how many of each photo's likeliest classes.",
            rich_help_panel=_METHODS,
        ),
    ] = 3,
    concepts: Annotated[
        str, typer.Option("--concepts", "-k", help="How many concepts: N, auto, or LO:HI.")
    ] = "5",
    metrics: Annotated[
        bool,
        typer.Option(
            "--metrics",
            help="Measure the maps: deletion, insertion, ROAD, drop and increase of confidence, "
            "complexity, and coherency, ADCC and ARCC, for which each method explains the masked "
            "photo again; means over photos and classes.",
            rich_help_panel=_METHODS,
        ),
    ] = False,
    style: Annotated[
        str | None,
        typer.Option(
            help="heat-map, blended-heat-map, masked-image or alpha-scaling. Default: the map over "
            "the photo, but maps of single pixels by themselves.",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    sign: Annotated[
        str | None,
        typer.Option(help="all, positive, negative or absolute.", rich_help_panel=_LOOK),
    ] = None,
    outliers: Annotated[
        float,
        typer.Option(
            help="The share in percent that the largest values, cut off, hold.",
            rich_help_panel=_LOOK,
        ),
    ] = 2.0,
    colormap: Annotated[
        str | None, typer.Option(help="A name of matplotlib's.", rich_help_panel=_LOOK)
    ] = None,
    out: opt.Out = Path("dff-out"),
    allow_private: opt.AllowPrivate = False,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="What to write: png, json, csv, npz (again for more). Default: all.",
            rich_help_panel="Output",
        ),
    ] = None,
    settings_file: SettingsFile = None,
    save_settings: SaveSettings = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Draw what several methods say of a photo: a row a method, a column a class."""
    settings.quiet = quiet or json
    count = opt.parse_concepts(concepts)
    from dff.comparing import check_methods, check_settings
    from dff.comparing import compare as compare_methods
    from dff.comparing.comparison import FORMATS, output_names
    from dff.explain import check_formats
    from dff.images import read_image, spread
    from dff.images.names import distinct_names
    from dff.metrics import METRICS
    from dff.rendering.attributions import Look

    named = None if not methods else [n.strip() for part in methods for n in part.split(",")]
    wanted, kinds = check_methods(named), check_formats(formats, known=FORMATS, unasked=FORMATS)
    given = parse_settings(values or ())
    check_settings(wanted, given)
    look = None
    if style or sign or colormap or outliers != 2.0:
        look = Look(style or "blended_heat_map", sign or "all", outliers, colormap)
    sources = spread(images)
    names = distinct_names(map(photo_name, sources))
    reserve({out: output_names(names, kinds)}, [*sources, *chosen.files()])
    pictures = [
        read_image(source, allow_private=allow_private) for source in progress(sources, "reading")
    ]
    with working(f"loading {chosen.model}"):
        explainers = _explainers(chosen, beside or ())
    for explainer in explainers:
        if explainer.untrained:
            say(opt.UNTRAINED)
    with working("comparing") as told:
        compared = compare_methods(
            pictures, model=explainers, methods=wanted, classes=target or classes, concepts=count,
            settings=given, metrics=tuple(METRICS) if metrics else None, batch=batch, progress=told,
        )  # fmt: skip
        asked = differing(ctx)
        paths = [str(path) for path in compared.save(out, look=look, formats=kinds, settings=asked)]
    if json:
        print_json({**compared.as_dict(settings=asked), "paths": paths})
    else:
        _print(compared, paths)
    finish(ctx)


def _explainers(chosen: opt.ModelOptions, beside: Sequence[str]) -> list[Explainer]:
    """Build the models; those beside the first share its labels, and nothing else."""
    options = [chosen]
    for text in beside:
        name, _, weights = text.partition("=")
        options.append(
            replace(
                chosen,
                model=name,
                weights=weights or None,
                mean=None,
                std=None,
                size=None,
                layer=None,
                output_kind=None,
            )
        )
    return [one.explainer() for one in options]


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse METHOD.SETTING=VALUE; return the settings by method.

    A value is a number, true or false, or a word.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        method, dot, setting = name.rpartition(".")
        if not (equals and dot and method.strip() and setting.strip()):
            raise UsageError(
                f"--set takes METHOD.SETTING=VALUE, as in occlusion.window=32, not {text!r}"
            )
        found.setdefault(method.strip(), {})[setting.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _print(compared: MethodComparison, paths: Sequence[str]) -> None:
    for block in compared.blocks:
        heads = ", ".join(f"{score.name} {score.probability:.2f}" for score in block.classes)
        say(f"{block.photo.picture.name} by {block.model}: {heads}")
        print_table(
            ["method", ">seconds", ">largest delta"],
            [
                (row.method, f"{row.seconds:.1f}",
                 "" if row.delta is None else f"{max(map(abs, row.delta)):.2g}")
                for row in block.rows
            ],
        )  # fmt: skip
    for i, by_method in enumerate(compared.metrics):
        names = next(iter(by_method.values()))
        if names:
            say(f"metrics by {compared.blocks[i].model}, {_better(names)}")
            table = [(m, *(f"{v:.3f}" for v in values.values())) for m, values in by_method.items()]
            print_table(["method", *(f">{name}" for name in names)], table)
    for path in paths:
        say(path)


def _better(names: Iterable[str]) -> str:
    """Say of which metrics less is better."""
    from dff.metrics import METRICS

    less = [name for name in names if not METRICS[name].more_is_better]
    return f"means over photos and classes; less is better of {', '.join(less)}, more of the others"
