"""``dff layers`` and ``dff models``: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer

from dff.cli import options as opt
from dff.cli.console import print_json, print_table, say, settings, working

__all__ = ["layers", "models"]


@opt.with_model(
    "model",
    "weights",
    "num_classes",
    "size",
    model=Annotated[str, typer.Argument(help="As --model of `dff analyze`.", show_default=False)],
)
def layers(
    chosen: opt.ModelOptions,
    every: Annotated[
        bool, typer.Option("--all", help="List layers without a usable grid, too.")
    ] = False,
    json: opt.Json = False,
) -> None:
    """List the layers of a model that can be factorized; the default is marked."""
    settings.quiet = json
    from dff.activations.failures import model_errors
    from dff.activations.layers import probe_input, survey

    with working(f"loading {chosen.model}"):
        # The layers of a model do not depend on its weights: nothing is downloaded.
        loaded = chosen.load(weights="random")
        side = loaded.preprocessing.size
        probe = probe_input((side, side), loaded.module, loaded.preprocessing.channels)
        with model_errors(loaded.module, probe, try_sizes=True):
            surveyed = survey(loaded.module, probe, head=loaded.unscored is None)
    default = surveyed.default().name
    rows = [
        {
            "layer": layer.name,
            "type": layer.kind,
            "channels": layer.channels,
            "rows": layer.layout.rows if layer.layout else None,
            "cols": layer.layout.cols if layer.layout else None,
            "layout": layer.layout.kind if layer.layout else None,
            "default": layer.name == default,
            "reaches_output": layer.reaches,
        }
        for layer in surveyed.layers
        if every or (layer.layout is not None and layer.runs == 1 and layer.reaches)
    ]
    if json:
        print_json(rows)
        return
    say(f"{chosen.model} at {side} x {side} px; default layer: {default}")
    print_table(
        ["", "layer", "type", ">channels", ">grid"],
        [
            (
                "*" if row["default"] else "",
                row["layer"],
                row["type"],
                row["channels"] or "",
                f"{row['rows']} x {row['cols']}" if row["rows"] else "-",
            )
            for row in rows
        ],
    )


def models(
    contains: Annotated[str, typer.Argument(help="Only names that contain this.")] = "",
    json: opt.Json = False,
) -> None:
    """List the models that can be named; timm:, hf: and file.py:factory come beside these."""
    from dff.models import list_models

    names = [name for name in list_models() if contains in name]
    if json:
        print_json(names)
    else:
        for name in names:
            say(name)
