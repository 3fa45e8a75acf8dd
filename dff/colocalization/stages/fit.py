"""From the rows of all ranks to one concept bank.

Each rank holds its own rows; only sums over them travel (see :mod:`dff.nmf.backend`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from dff.colocalization.ranks import Ranks
from dff.colocalization.run.folder import chunk_name
from dff.colocalization.stages.chunks import load_chunk
from dff.colocalization.stages.job import FITTING, Job
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
from dff.rendering.files import png

__all__ = ["fit_bank", "fit_stage", "load_rows"]

START_ROWS = 8192  # the start is fitted on so many rows at least
START_ROWS_PER_CONCEPT = 512


def fit_stage(job: Job) -> None:
    """Factorize the rows; rank 0 writes the bank, and how its number of concepts was chosen."""
    job.progress(FITTING, 0, 0)  # until it has settled, which nobody knows beforehand
    count = len(job.plan.fit_chunks)
    paths = [job.folder.file(chunk_name("rows", i)) for i in job.ranks.share(range(count))]
    bank, rows, selection = fit_bank(paths, job.concepts, job.network, job.ranks)
    if job.ranks.first:
        files: dict[str, Content] = {"bank.safetensors": bank.to_bytes()}
        if selection is not None:
            files["selection.json"] = json_text(selection_facts(selection))
            files["selection.png"] = png(partial(drawn_curve, selection))
        job.folder.write(files)
        job.folder.state["exact"] = job.plan.exact
        job.folder.state["grid"] = asdict(job.network.grid)
        job.folder.state["counts"]["rows"] = rows
    job.progress(FITTING, 1, 1)


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
    paths: Sequence[Path], concepts: Concepts, network: Network, ranks: Ranks
) -> tuple[ConceptBank, int, Selection | None]:
    """Factorize the rows of all ranks.

    Returns the concepts, how many rows there were, and where the number of concepts was chosen the
    sweep that chose it: on the sample of rows that the fit starts from.

    Args:
        paths: the chunks of rows of this rank.
        concepts: k, or what it is chosen from.
        network: for names and channels.
        ranks: the processes that take part, each with its own rows.

    Raises:
        UsageError: more concepts than the rows can hold.
        FactorizationError: no rows, or nothing but zeros.
    """
    rows = load_rows(paths, network.channels).to(network.device)
    low, high = (float(v) for v in rows.aminmax()) if len(rows) else (0.0, 0.0)
    longest = float(torch.linalg.vector_norm(rows, dim=1).max()) if len(rows) else 0.0
    reports = ranks.gather((len(rows), low, high, longest))
    total = sum(count for count, *_ in reports)
    signed = min(low for _, low, *_ in reports) < 0
    most = most_concepts(concepts)
    _check(total, most, network, any(a or b for _, a, b, _ in reports), paths)
    lengths = cell_lengths(rows, max(length for *_, length in reports))
    rows.div_(lengths)  # every cell counts alike
    factorizer = solver(signed)
    sample, selection = _sample(paths, rows, total, most, ranks), None
    if isinstance(concepts, int):
        start = factorizer(concepts).fit(sample).components_
    else:
        selection = ranks.gather(select(sample, concepts, layer=network.layer))[0]
        start = torch.as_tensor(selection.components[selection.counts.index(selection.chosen)])
    estimator = factorizer(len(start), init=start.to(rows), distributed=ranks.size > 1)
    codes = estimator.fit_transform(rows) * lengths
    everywhere = torch.cat(ranks.gather(codes.cpu()))
    bank = bank_from(estimator, everywhere, signed=signed, model=network.name, layer=network.layer)
    return replace(bank, recipe=network.explainer.recipe), total, selection


def _sample(paths: Sequence[Path], rows: Tensor, total: int, concepts: int, ranks: Ranks) -> Tensor:
    """Return rows drawn from those of all ranks: the same ones, however many ranks there are.

    The fit starts from theirs, so that the result does not hang on who holds which row.
    """
    counts = dict(pair for report in ranks.gather(_counts(paths)) for pair in report)
    offsets, row_offset = {}, 0
    for name in sorted(counts):
        offsets[name], row_offset = row_offset, row_offset + counts[name]
    size = min(total, max(START_ROWS, START_ROWS_PER_CONCEPT * concepts))
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(total, generator=generator)[:size].sort().values
    own, indices, first = [], [], 0
    for name, count in _counts(paths):
        low, high = torch.searchsorted(
            chosen, torch.tensor([offsets[name], offsets[name] + count])
        ).tolist()
        local = chosen[low:high] - offsets[name] + first
        own.append(rows[local.to(rows.device)].cpu())
        indices.append(chosen[low:high])
        first += count
    parts = ranks.gather((torch.cat(indices), torch.cat(own)) if own else None)
    drawn = [part for part in parts if part is not None]
    order = torch.cat([index for index, _ in drawn]).argsort()
    return torch.cat([values for _, values in drawn])[order].to(rows.device)


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
