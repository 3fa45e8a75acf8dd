"""``dff layers`` and ``dff models``: what there is to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dff.cli import options as opt
from dff.cli.console import print_json, print_table, say, settings, working
from dff.cli.settings_file import SaveSettings, SettingsFile, finish

if TYPE_CHECKING:
    from dff.activations.layers import LayerInfo

__all__ = ["layers", "models"]


@opt.with_model("model", "weights", "num_classes", "size")
def layers(
    ctx: typer.Context,
    chosen: opt.ModelOptions,
    every: Annotated[
        bool, typer.Option("--all", help="List layers without the shape of a grid, too.")
    ] = False,
    settings_file: SettingsFile = None,
    save_settings: SaveSettings = None,
    json: opt.Json = False,
) -> None:
    """List the layers of a model that have a grid, and how far a patch moves each.

    A patch that is moved over the input must take a layer's response along: 100% / 100% is all of
    its way down and to the right. What does so is a grid of the image. The last column says whether
    the scores depend on the grid. The default layer is marked.
    """
    settings.quiet = json
    from dff.activations.borrowing import plainly
    from dff.activations.layers import measured, probe_input
    from dff.explain.target_layer import target_layer
    from dff.models import with_all_boxes

    with working(f"trying the layers of {chosen.model}"):
        # The layers of a model do not depend on its weights: nothing is downloaded.
        loaded = chosen.load(weights="random")
        prep = loaded.preprocessing
        side = prep.size
        model = with_all_boxes(loaded.module)
        probe = probe_input((side, side), model, prep.channels, prep.frames)
        surveyed, default = target_layer(model, probe, head=loaded.unscored is None)
        shaped = [layer.name for layer in surveyed.layers if layer.layout is not None]
        surveyed = plainly(lambda: measured(model, surveyed, shaped), grad=False)
    rows = [
        {**_described(layer, side), "default": layer.name == default.name}
        for layer in surveyed.layers
        if every or (layer.layout is not None and layer.runs == 1)
    ]
    if json:
        print_json(rows)
    say(f"{chosen.model} at {side} x {side} px; default layer: {default.name}")
    print_table(
        ["", "layer", "type", ">channels", ">cells", ">stride", ">moves", "grid", "scores"],
        [_row(row) for row in rows],
    )
    finish(ctx)


def _described(layer: LayerInfo, side: int) -> dict[str, Any]:
    """Return what there is to say of a layer; strides in pixels, ways in shares of the patch's."""
    layout, moved = layer.layout, layer.movement
    return {
        "layer": layer.name,
        "type": layer.kind,
        "channels": layer.channels,
        "frames": layout.frames if layout else None,
        "rows": layout.rows // (layout.frames or 1) if layout else None,
        "cols": layout.cols if layout else None,
        "stride": side / layout.cols if layout else None,
        "layout": layout.kind if layout else None,
        "tokens_before": layout.prefix if layout else None,
        "tokens_after": layout.suffix if layout else None,
        "moves_down": moved.down if moved else None,
        "moves_right": moved.right if moved else None,
        "moves_aside": moved.aside if moved else None,
        "is_grid": moved.is_grid if moved else False,
        "problem": moved.problem if moved else None,
        "runs": layer.runs,
        "reaches_output": layer.reaches,
    }


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    moved = row["moves_down"] is not None
    return (
        "*" if row["default"] else "",
        row["layer"],
        row["type"],
        row["channels"] or "",
        " x ".join(str(row[axis]) for axis in ("frames", "rows", "cols") if row[axis]) or "-",
        f"{row['stride']:.3g}" if row["stride"] else "",
        f"{row['moves_down']:.0%} / {row['moves_right']:.0%}" if moved else "",
        "yes" if row["is_grid"] else "no",
        "yes" if row["reaches_output"] else "no",
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
