"""``dff vqa``: which concepts of a picture speak for the answers to questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dff.cli import options as opt
from dff.cli.console import print_json, print_table, say, settings, working
from dff.cli.outputs import reserve
from dff.errors import UsageError

__all__ = ["vqa"]


def vqa(
    image: Annotated[
        str, typer.Argument(help="A picture of creatures: path or URL.", show_default=False)
    ],
    questions: Annotated[
        list[str],
        typer.Argument(
            help='Questions, such as "what colour is the head" and "how many legs are there".',
            show_default=False,
        ),
    ],
    concepts: Annotated[
        str, typer.Option("--concepts", "-k", help="How many concepts: N, auto, or LO:HI.")
    ] = "7",
    answer: Annotated[
        str | None,
        typer.Option(help="Explain this answer. Default: the likeliest to each question."),
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help="Answers explained to each question.")
    ] = 1,
    out: opt.Out = Path("dff-out"),
    allow_private: opt.AllowPrivate = False,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Ask the embedded model about a picture of creatures: which concept speaks for the answer?"""
    settings.quiet = quiet or json
    count = opt.parse_concepts(concepts)
    from dff.images import is_video, read_image
    from dff.vqa import ask, encoded, vqa_explainer
    from dff.vqa.answers import FILES

    if is_video(image):
        raise UsageError(f"{image!r} is a video: give a picture")
    asked = encoded(questions)
    picture = read_image(image, allow_private=allow_private)
    reserve({out: FILES}, [image])
    with working("asking"):
        answers = ask(vqa_explainer(), picture, asked, concepts=count, top_k=top_k, answer=answer)
        paths = [str(path) for path in answers.save(out)]
    if json:
        print_json({**answers.as_dict(), "paths": paths})
        return
    numbers = [f">{k + 1}" for k in range(len(answers.bank))]
    for question, found in answers.answers.items():
        say(question)
        print_table(
            ["", "answer", ">probability", ">logit", *numbers, ">rest"],
            [
                (
                    "",
                    one.score.name,
                    f"{one.score.probability:.2f}",
                    f"{float(one.split.logit[0]):.2f}",
                    *(f"{value:+.2f}" for value in one.split.values[0].tolist()),
                    f"{float(one.split.rest[0] + one.split.gap[0]):+.2f}",
                )
                for one in found
            ],
        )
    say()
    for path in paths:
        say(path)
