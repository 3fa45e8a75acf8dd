"""Do all processes of a run mean the same: settings, model and photos? Asked before all else.

Nodes may differ in what is mounted, copied or installed. What would then go wrong is a run whose
parts do not belong together, so nothing is begun unless all ranks are of one mind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from dff.colocalization.ranks import Ranks
from dff.colocalization.sources.dataset import Dataset
from dff.colocalization.sources.stamps import looks
from dff.errors import RunError

__all__ = ["check_agreement"]

MOST_NAMES = 100_000  # paths that are compared one by one, to name one that differs
ADVICE = "; give all nodes one folder, or copies that keep names and times (`cp -a`, `rsync -a`)"
OWN = ("dataset given", "dataset root")
"""Settings that may differ: where a node has its copy."""


def check_agreement(ranks: Ranks, dataset: Dataset, settings: Mapping[str, Any]) -> None:
    """Refuse to go on where a rank has other settings, or sees other photos, than the first.

    Of photos, names, labels and number are compared, and sizes and times (to a second) of some
    thousand, evenly spread.

    Raises:
        RunError: on every rank alike; it says what differs.
    """
    if ranks.size == 1:
        return
    flat = {name: value for name, value in _flat(settings) if name not in OWN}
    reports = ranks.gather((flat, looks(dataset)))
    (first, seen), others = reports[0], reports[1:]
    listed = [report[0]["dataset fingerprint"] for report in reports]
    if len(set(listed)) > 1:
        raise RunError(_other_names(ranks, dataset, listed))
    for rank, (own, photos) in enumerate(others, 1):
        for name in sorted({*first, *own}):
            if first.get(name) != own.get(name):
                raise RunError(
                    f"the processes were not started alike: {name} is {own.get(name)!r} on rank "
                    f"{rank}, and {first.get(name)!r} on rank 0; start the same command, with the "
                    "same versions and files, on all nodes"
                )
        for index, (here, there) in photos.items() if photos != seen else ():
            if seen[index] != (here, there):
                raise RunError(
                    f"the processes do not see the same photos: {dataset.paths[index]} is "
                    f"{_shown(here, there)} on rank {rank}, and {_shown(*seen[index])} on rank 0"
                    + ADVICE
                )


def _other_names(ranks: Ranks, dataset: Dataset, listed: list[str]) -> str:
    """Return what to say where ranks list other images; each rank takes part."""
    few = len(dataset) <= MOST_NAMES
    names = ranks.gather(list(zip(dataset.paths, dataset.labels, strict=True)) if few else None)
    counts = ranks.gather(len(dataset))
    rank = next(i for i, digest in enumerate(listed) if digest != listed[0])
    text = (
        f"the processes do not see the same photos: rank {rank} lists {counts[rank]} images, and "
        f"rank 0 {counts[0]}"
    )
    if names[0] is not None and names[rank] is not None:
        here, there = (dict(names[i]) for i in (0, rank))
        odd = next((p for p in sorted({*here, *there}) if here.get(p, 0) != there.get(p, 0)), None)
        if odd is not None:
            lacking = [i for i, known in ((0, here), (rank, there)) if odd not in known]
            text += f" ({odd} " + (
                f"is not there on rank {lacking[0]})" if lacking else "has another label)"
            )
    return text + ADVICE


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value


def _shown(size: int, seconds: int) -> str:
    if size < 0:
        return "missing"
    changed = datetime.fromtimestamp(seconds, timezone.utc)
    return f"of {size} bytes and of {changed:%Y-%m-%d %H:%M:%S} UTC"
