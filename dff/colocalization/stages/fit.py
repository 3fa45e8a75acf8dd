"""From the rows of all ranks to one concept bank.

Each rank holds its own rows; only sums over them travel (see :mod:`dff.nmf.backend`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from dff.colocalization.ranks import Ranks
from dff.colocalization.run.folder import chunk_name
from dff.colocalization.stages.chunks import load_chunk
from dff.colocalization.stages.job import CHOOSING, FITTING, Job, Progress, silent
from dff.colocalization.stages.network import Network
from dff.concepts import (
    ConceptBank,
    Concepts,
    Selection,
    bank_from,
    cell_lengths,
    most_concepts,
    select,
    solver,
)
from dff.errors import FactorizationError, UsageError
from dff.explain.sweep import drawn_curve, selection_facts
from dff.files import Content, json_text
from dff.nmf import RowBlocks
from dff.rendering.files import png

__all__ = ["fit_bank", "fit_stage", "load_rows"]

START_ROWS = 8192  # the start is fitted on so many rows at least
START_ROWS_PER_CONCEPT = 512
MOST_CODES = 1 << 22  # rows that full presence and unions are read off, evenly spread


def fit_stage(job: Job) -> None:
    """Factorize the rows; rank 0 writes the bank, and how its number of concepts was chosen."""
    count = len(job.plan.fit_chunks)
    paths = [job.folder.file(chunk_name("rows", i)) for i in job.ranks.share(range(count))]
    bank, rows, selection = fit_bank(paths, job.concepts, job.network, job.ranks, job.progress)
    if bank is not None:
        files: dict[str, Content] = {"bank.safetensors": bank.to_bytes()}
        if selection is not None:
            files["selection.json"] = json_text(selection_facts(selection))
            files["selection.png"] = png(partial(drawn_curve, selection))
        job.folder.write(files)
        job.folder.state["exact"] = job.plan.exact
        job.folder.state["grid"] = asdict(job.network.grid)
        job.folder.state["counts"]["rows"] = rows


def load_rows(paths: Sequence[Path], channels: int) -> Tensor:
    """Return the rows (n, channels) float32 of chunks, in one piece of memory."""
    count = sum(rows for _, rows in _counts(paths))
    rows, row_offset = torch.empty(count, channels), 0
    for path in paths:
        with safe_open(path, "pt") as file:
            if "rows" in file.keys():  # noqa: SIM118
                part = file.get_tensor("rows").flatten(0, 1)
                rows[row_offset : row_offset + len(part)] = part
                row_offset += len(part)
    return rows


def fit_bank(
    paths: Sequence[Path], concepts: Concepts, network: Network, ranks: Ranks,
    progress: Progress = silent,
) -> tuple[ConceptBank | None, int, Selection | None]:  # fmt: skip
    """Factorize the rows of all ranks; the result is the same to rounding, whoever holds which.

    The fit starts from a sample that is the same for any number of ranks, adds up chunk by chunk
    in float64, and full presence is read off the coefficients in the order of the chunks.

    Returns the concepts (None on all ranks but the first), how many rows there were, and where the
    number of concepts was chosen the sweep that chose it: on the sample.

    Args:
        paths: the chunks of rows of this rank.
        concepts: k, or what it is chosen from.
        network: for names and channels.
        ranks: the processes that take part, each with its own rows.
        progress: told of the fits that choose the number of concepts, on the first process, then of
            the passes over all rows.

    Raises:
        UsageError: more concepts than the rows can hold.
        FactorizationError: no rows, or nothing but zeros.
    """
    progress(FITTING, 0, 0)
    rows = load_rows(paths, network.channels).to(network.device)
    low, high = (float(v) for v in rows.aminmax()) if len(rows) else (0.0, 0.0)
    longest = float(torch.linalg.vector_norm(rows, dim=1).max()) if len(rows) else 0.0
    reports = ranks.gather((low, high, longest, _counts(paths)))
    counts = dict(pair for *_, pairs in reports for pair in pairs)
    total, own = sum(counts.values()), _places(counts, paths)
    signed = min(low for low, *_ in reports) < 0
    most = most_concepts(concepts)
    _check(total, most, network, any(a or b for a, b, *_ in reports), paths)
    lengths = cell_lengths(rows, max(longest for *_, longest, _ in reports))
    rows.div_(lengths)  # every cell counts alike
    sample, selection = _sample(rows, own, total, most, ranks), None
    start: Tensor | None = None
    if sample is not None:
        selection, start = _start(sample, concepts, signed, network.layer, progress)
    start = ranks.gather(start)[0]
    assert start is not None
    estimator = solver(signed)(len(start), init=start.to(rows), distributed=ranks.size > 1)
    estimator.progress = partial(progress, FITTING)
    codes = torch.as_tensor(estimator.fit_transform(_in_chunks(rows, counts, paths)))
    codes = codes.cpu() * lengths.cpu()
    thin = own % -(-total // MOST_CODES) == 0
    everywhere = _in_order(own[thin], codes[thin], ranks)
    if everywhere is None:
        return None, total, None
    bank = bank_from(estimator, everywhere, signed=signed, model=network.name, layer=network.layer)
    rest = float(np.float32(bank.rest))  # the last digits of a sum tell in which order it was made
    return replace(bank, rest=rest, recipe=network.explainer.recipe), total, selection


def _start(
    sample: Tensor, concepts: Concepts, signed: bool, layer: str, progress: Progress
) -> tuple[Selection | None, Tensor]:
    """Return the concepts that the fit starts from, and the sweep that chose their number."""
    if isinstance(concepts, int):
        return None, solver(signed)(concepts).fit(sample).components_.cpu()
    told = partial(progress, CHOOSING)
    selection = select(sample, concepts, layer=layer, progress=told)
    chosen = selection.components[selection.counts.index(selection.chosen)]
    return selection, torch.as_tensor(chosen)


def _in_chunks(rows: Tensor, counts: Mapping[str, int], paths: Sequence[Path]) -> Any:
    """Return rows as they are to be read: on CPUs in their chunks, which no rank divides.

    GPUs read larger pieces, as starting a kernel for each chunk would take longer than its work.
    """
    if rows.device.type != "cpu" or not len(rows):
        return rows
    chunks = rows.split([counts[path.name] for path in paths])
    return RowBlocks([chunk for chunk in chunks if len(chunk)])


def _sample(rows: Tensor, own: Tensor, total: int, concepts: int, ranks: Ranks) -> Tensor | None:
    """Return rows drawn from those of all ranks, on the first: the same, whoever holds which."""
    size = min(total, max(START_ROWS, START_ROWS_PER_CONCEPT * concepts))
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(total, generator=generator)[:size].sort().values
    places = torch.searchsorted(own, chosen).clamp_max(max(0, len(own) - 1))
    held = own[places] == chosen if len(own) else torch.zeros(len(chosen), dtype=torch.bool)
    sample = _in_order(chosen[held], rows[places[held].to(rows.device)].cpu(), ranks)
    return None if sample is None else sample.to(rows.device)


def _places(counts: Mapping[str, int], paths: Sequence[Path]) -> Tensor:
    """Return where this rank's rows lie among those of all, in the order of the chunks."""
    firsts, first = {}, 0
    for name in sorted(counts):
        firsts[name], first = first, first + counts[name]
    spans = [torch.arange(firsts[p.name], firsts[p.name] + counts[p.name]) for p in paths]
    return torch.cat([torch.empty(0, dtype=torch.int64), *spans])


def _in_order(places: Tensor, values: Tensor, ranks: Ranks) -> Tensor | None:
    """Return the values (n, c) of all ranks by their places (n,) on the first; None on others."""
    parts = ranks.collect((places, values))
    if not parts:
        return None
    order = torch.cat([part for part, _ in parts]).argsort()
    return torch.cat([part for _, part in parts])[order]


def _counts(paths: Sequence[Path]) -> list[tuple[str, int]]:
    """Return (name, rows) of chunks."""
    counts = []
    for path in paths:
        with safe_open(path, "pt") as file:
            shape = file.get_slice("rows").get_shape() if "rows" in file.keys() else (0, 0)  # noqa: SIM118
        counts.append((path.name, shape[0] * shape[1]))
    return counts


def _check(
    rows: int, concepts: int, network: Network, something: bool, paths: Sequence[Path]
) -> None:
    if not rows:
        errors = (error for path in paths for error in load_chunk(path, rows=False).errors)
        first = next((f"; the first: {error}" for error in errors if error), "")
        raise FactorizationError(f"no image could be read: there is nothing to factorize{first}")
    if not something:
        raise FactorizationError(
            f"the activations of layer {network.layer!r} are all zero: there is nothing to "
            "factorize; choose another layer, or check the weights and the preprocessing"
        )
    if concepts > min(rows, network.channels):
        raise UsageError(
            f"{concepts} concepts were asked for, but {rows} cells of {network.channels} channels "
            f"hold at most {min(rows, network.channels)}"
        )
