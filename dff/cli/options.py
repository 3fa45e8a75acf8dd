"""Options that several commands share, each written once."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from dff.errors import UsageError

if TYPE_CHECKING:
    from dff.explain import Explainer
    from dff.models import LoadedModel

__all__ = [
    "UNTRAINED",
    "ModelOptions",
    "folder",
    "numbers",
    "parse_concepts",
    "parse_names",
    "typed",
    "with_model",
]

UNTRAINED = "the weights are random: the scores mean nothing"

_INPUT, _MODEL, _OUTPUT = "Input", "Model", "Output"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A torchvision name, timm:NAME, hf:NAME, module_or_file.py:factory, or demo.",
        rich_help_panel=_MODEL,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="A local .pth or .safetensors; 'random' for none. Default: the model's own.",
        rich_help_panel=_MODEL,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="A text file of class names, one a line.", rich_help_panel=_MODEL),
]
NumClasses = Annotated[
    int | None,
    typer.Option(
        "--num-classes",
        min=0,
        help="Classes of the head; 0 for none: concepts without scores. Default: those of the "
        "labels or the weights.",
        rich_help_panel=_MODEL,
    ),
]
OutputKind = Annotated[
    str | None,
    typer.Option(
        "--output-kind",
        help="What the output is: logits (softmax), probabilities (as they are), binary (one "
        "logit, sigmoid), multilabel (sigmoid of each), values (of a regression). Default: by "
        "evidence.",
        rich_help_panel=_MODEL,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean of the input's normalisation: one number, or one a channel (R,G,B).",
        rich_help_panel=_MODEL,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(help="Its standard deviation, likewise.", rich_help_panel=_MODEL),
]
Size = Annotated[
    int | None,
    typer.Option(min=8, help="Short side of the input, in pixels.", rich_help_panel=_MODEL),
]
Text = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        help="Of a model of images and texts (hf: CLIP, SigLIP): a text as a class (again for "
        "more).",
        rich_help_panel=_MODEL,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Target layer (see `dff layers`), or its keys alone: blocks.11.attn.qkv:key (or "
        ":query, :value). Default: the last one that has a grid.",
        rich_help_panel=_MODEL,
    ),
]
Fine = Annotated[
    int,
    typer.Option(
        min=1,
        help="Make the maps' grid N times as fine, by N x N runs on shifted photos.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(help="Where it runs, such as cuda or cuda:1.", rich_help_panel=_MODEL),
]
AllowPrivate = Annotated[
    bool,
    typer.Option(
        "--allow-private",
        help="Read URLs of this machine and of private networks, too.",
        rich_help_panel=_INPUT,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for machines.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=_OUTPUT)
]


def folder(out: Path) -> Path:
    """Return the folder that --out names.

    Raises:
        UsageError: it is called as a file, and there is no such folder.
    """
    if out.suffix.lower() in FILES and not os.path.lexists(out):
        raise UsageError(
            f"--out is a folder, for several files, not {str(out)!r}: give --out {out.stem}"
        )
    return out


Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="Folder to write to.", callback=folder, rich_help_panel=_OUTPUT
    ),
]
TopK = Annotated[
    int, typer.Option("--top-k", min=1, help="Classes shown a concept.", rich_help_panel=_OUTPUT)
]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, as the command line says it; :func:`with_model` makes each field an option."""

    model: Model = "resnet50"
    weights: Weights = None
    labels: Labels = None
    num_classes: NumClasses = None
    mean: Mean = None
    std: Std = None
    size: Size = None
    layer: Layer = None
    output_kind: OutputKind = None
    fine: Fine = 1
    device: Device = None
    text: Text = None

    def files(self) -> list[str | None]:
        """Return the paths that building the model may read, and words that are no paths."""
        return [self.weights, self.labels, self.model.rpartition(":")[0]]

    def load(self, *, weights: str = "default") -> LoadedModel:
        """Build the model; `weights` is what is meant where the user names none."""
        from dff.models import load_model

        return load_model(
            self.model,
            weights=self.weights or weights,
            labels=self.labels,
            num_classes=self.num_classes,
            mean=None if self.mean is None else numbers("--mean", self.mean),
            std=None if self.std is None else numbers("--std", self.std),
            size=self.size,
            texts=self.text or (),
        )

    def explainer(self, *, factorizer: str | None = None) -> Explainer:
        """Build the model and find its layer."""
        from dff.activations.outputs import check_output
        from dff.concepts import check_factorizer
        from dff.explain import Explainer

        # What cannot be is said before the model is loaded.
        chosen, output = check_factorizer(factorizer), check_output(self.output_kind)
        explainer = Explainer(
            self.load(), layer=self.layer, output=output, factorizer=chosen, device=self.device
        )
        return explainer.finer(self.fine)


def typed(ctx: typer.Context, *, or_in_file: bool = False) -> set[str]:
    """Return the names of the parameters that the command line gives, or a file of settings."""
    counted = ("COMMANDLINE", "DEFAULT_MAP") if or_in_file else ("COMMANDLINE",)
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {name for name, source in sources.items() if source and source.name in counted}


def with_model(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of :class:`ModelOptions` in place of its parameter ``chosen``.

    Args:
        names: the fields that it takes; none are all of them.
    """
    types = get_type_hints(ModelOptions, include_extras=True)
    taken = [field for field in fields(ModelOptions) if not names or field.name in names]
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=field.default,
            annotation=types[field.name],
        )
        for field in taken
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            chosen = ModelOptions(**{field.name: arguments.pop(field.name) for field in taken})
            command(chosen=chosen, **arguments)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            parameters += options if name == "chosen" else [parameter]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


FILES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf", ".json")


def numbers(option: str, text: str) -> float | list[float]:
    """Parse one number, or one for each channel with commas between."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values:
        raise UsageError(f"{option} takes one number, or one a channel (R,G,B), not {text!r}")
    return values[0] if len(values) == 1 else values


def parse_names(texts: Sequence[str], most: int | None) -> dict[int, str]:
    """Parse NUMBER=NAME, concepts counted from 1; return the names, counted from 0.

    `most` is how many concepts there are, if that is known.
    """
    names: dict[int, str] = {}
    for text in texts:
        number, equals, name = text.partition("=")
        if not equals or not number.strip().isdecimal():
            raise UsageError(f'--name takes NUMBER=NAME, as in 2="striped fur", not {text!r}')
        k = int(number)
        if k < 1 or (most is not None and k > most):
            to = "" if most is None else f" to {most}"
            raise UsageError(f"--name: there is no concept {k}: they count from 1{to}")
        if k - 1 in names:
            raise UsageError(f"--name names concept {k} twice")
        names[k - 1] = name
    return names


def parse_concepts(text: str) -> Any:
    """Parse how many concepts: a whole number from 1 on, "auto", or a range LO:HI (inclusive)."""
    if text == "auto":
        return text
    low, colon, high = text.partition(":")
    try:
        counts = range(int(low), int(high) + 1) if colon else range(int(low), int(low) + 1)
    except ValueError:
        counts = range(0)
    if not counts or counts.start < 1:
        raise UsageError(
            f"--concepts takes a whole number from 1 on, auto, or a range LO:HI, not {text!r}"
        )
    return counts if colon else counts.start
