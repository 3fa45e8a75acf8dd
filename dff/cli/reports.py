"""What ``dff analyze`` prints of an explanation: its concepts, the evidence, the check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dff.cli.console import print_table, say, swatch, working

if TYPE_CHECKING:
    from dff.explain import Explanation
    from dff.explain.questions.check import Answer, Check
    from dff.explain.questions.evidence import Evidence
    from dff.files import Content

__all__ = ["print_explanation", "weigh", "weighed"]


def print_explanation(result: Explanation, paths: list[Path], top_k: int) -> None:
    """Print the table of concepts, the photos' own classes if there are any, and the paths."""
    from dff.concepts import titles
    from dff.labels import short_name

    bank, photo = result.bank, result.photos[0]
    shares = bank.shares if len(result.clips) > 1 else photo.shares  # of a bank's, what is here
    rows = [
        (swatch("#" + bytes(color.tolist()).hex(), name), f"{share:.0%}", said)
        for color, name, share, said in zip(
            bank.colors, titles(bank.names), shares.tolist(), _said(result, top_k), strict=True
        )
    ]
    kind = "photo" if photo.strip is None else "frame"
    say(f"{bank.model}, layer {bank.layer}, {len(result)} {kind}(s)")
    say(f"output: {result.meaning}")
    if result.unscored:
        print_table(["concept", ">share"], [row[:2] for row in rows])
        if not result.shared.headless:
            say(result.unscored)
    else:
        several = len(result.clips) > 1
        says = "speaks for (photos)" if several else "speaks for (confidence)"
        print_table(["concept", ">share", says], rows)
    if not result.shared.headless:
        for clip in result.clips:
            classes = (
                f"{short_name(c.index, result.class_names)} {c.probability:.2f}"
                for c in clip.predictions(top_k=3)
            )
            say(f"{clip.name}: {', '.join(classes)}")
    for photo in result.photos:
        if photo.picture.shown and photo.image.shape[0] != 3:
            say(f"{photo.picture.name}: drawn over {photo.picture.shown}")
    rest = max(0.0, 1 - float(shares.sum()))
    say(f"the concepts leave {rest:.0%} of the activations unexplained")
    say()
    for path in paths:
        say(str(path))


def _said(result: Explanation, top_k: int) -> list[str]:
    """Return what each concept speaks for: how sure that is, or in how many of several photos."""
    from dff.explain.questions.labels import first_labels
    from dff.labels import NO_CLASS, short_name

    if len(result.clips) == 1:
        labels = result.labels(top_k=top_k)
        said = [[(x.index, f"{x.confidence:.2f}") for x in row] for row in labels]
    else:
        counts = first_labels([clip.photos[0] for clip in result.clips])
        said = [[(i, str(count)) for i, count in c.most_common(top_k)] for c in counts]
    names = result.class_names
    shown = (", ".join(f"{short_name(index, names)} {value}" for index, value in row)
             for row in said)  # fmt: skip
    return [text or NO_CLASS for text in shown]


def weigh(
    result: Explanation,
    images: list[dict[str, Any]],
    folder: Path,
    answers: Sequence[Sequence[Answer]],
) -> list[Path]:
    """Add evidence and checks to what is reported of each photo, and write both."""
    from dff.explain.questions.check import Check
    from dff.explain.questions.evidence import Evidence
    from dff.explain.saving import file_names
    from dff.files import json_text
    from dff.manifest import Manifest
    from dff.rendering.files import png

    if not any(answers):
        return []
    files: dict[str, Content] = {}
    reported = iter(images)
    names = file_names(result.photos)
    for photo, name, found in zip(result.clips, names, answers, strict=True):
        about, *_ = (next(reported) for _ in photo.photos)  # of a clip, with its first frame
        if evidence := [one for one in found if isinstance(one, Evidence)]:
            about["evidence"] = _evidence(photo, evidence)
        for measured in found:
            if isinstance(measured, Check):
                _check(photo, measured)
                about["check"] = measured.as_dict()
                files[f"{name}_check.png"] = png(measured.plot)
    files["evidence.json"] = json_text(images)
    paths = Manifest(folder).write(files)
    for path in paths:
        say(str(path))
    return paths


def weighed(
    photo: Explanation, kinds: Sequence[str], target: str | None, versus: str | None, check: bool
) -> list[Answer]:
    """Ask a photo's concepts about a class, in each way asked for, and check them if asked to."""
    found: list[Answer] = []
    for kind in kinds:
        with working(f"{kind} of {photo.name}"):
            found.append(photo.evidence(kind, target, versus=versus))
    if check:
        with working(f"checking {photo.name}"):
            found.append(photo.check(target))
    return found


def _evidence(photo: Explanation, found: Sequence[Evidence]) -> list[dict[str, Any]]:
    """Print a photo's evidence, a column a kind, and return it as data."""
    from dff.concepts import titles

    columns = [evidence.as_dict() for evidence in found]
    alike = _alike(columns)
    printed = [c for c in columns if c["kind"] not in alike[1:]]
    rows = [
        [name, *(signed(column["values"][k]) for column in printed)]
        for k, name in enumerate(titles(photo.bank.names))
    ]
    lines = {
        "rest": "what no concept explains",
        "gap": "missed by the sum",
        "logit": "logit",
    }
    for key, words in lines.items():  # of contributions, which add up
        if any(key in column for column in printed):
            values = (signed(column[key]) if key in column else "" for column in printed)
            rows.append([words, *values])
    shares = (
        "; sobol: share of the logit's variance"
        if any(c["kind"] == "sobol" for c in columns)
        else ""
    )
    say(
        f"{photo.name}: evidence for {columns[0]['target']}, in logits (more speaks for it){shares}"
    )
    print_table(["concept", *(f">{column['kind']}" for column in printed)], rows)
    if alike:
        named = f"{', '.join(alike[:-1])} and {alike[-1]}"
        say(f"the rest of the model is linear here, so {named} agree: printed once")
    return columns


def _alike(columns: Sequence[dict[str, Any]]) -> list[str]:
    """Return the kinds of evidence that say the same, as where the rest of the model is linear."""
    linear = [c for c in columns if c["kind"] in ("contributions", "ablation", "gradient")]
    rows = [[round(value, 3) for value in column["values"]] for column in linear]
    near = all(abs(a - b) < 0.002 for row in rows for a, b in zip(rows[0], row, strict=True))
    return [column["kind"] for column in linear] if near and len(linear) > 1 else []


def signed(value: float) -> str:
    """Return a number with its sign and three decimals; what rounds to nothing has no sign."""
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}"


def _check(photo: Explanation, measured: Check) -> None:
    """Print a photo's check."""
    from dff.explain.questions.check import verdict

    say(f"{photo.name}: faithfulness for {measured.target}")
    print_table(["measure", ">value", "good is"], measured.rows())
    say(f"verdict: {verdict(measured.as_dict())}")
