"""What the arithmetic runs on: types and powers of two, oneDNN and LAPACK, threads and processes.

Nothing here knows of a factorization.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dff.errors import FactorizationError, UsageError

__all__ = [
    "PRECISIONS",
    "RankShare",
    "Total",
    "alone",
    "arithmetic_dtype",
    "choose_precision",
    "multiply",
    "over_group",
    "rank_share",
    "side_by_side",
    "stable_decomposition",
    "suited_threads",
    "times_power_of_two",
    "unsafe_exponent",
    "workers",
]

Part = TypeVar("Part")
Result = TypeVar("Result")
Total = Callable[[Tensor], Tensor]
"""The sum over the processes that share the rows of A: all that a rank needs of the others."""

PRECISIONS = ("auto", "float32", "bfloat16")
LINALG_ERROR: Any = torch.linalg.LinAlgError  # type: ignore[attr-defined]
BFLOAT16_ENTRIES = 1 << 22  # of A; below, the products are not what takes the time
ONEDNN_MULTIPLICATIONS = 1 << 22  # below, a call of oneDNN costs more than it saves
SAFE_EXPONENT = 8  # the largest entry is taken as it is from 2^-8 to 2^8
EXPONENTS = 2200  # all of float64
ONE_THREAD_ENTRIES = 1 << 19  # of A; below, one thread is faster than several
WORKER_ENTRIES = 1 << 24  # of A; so many are worth a worker of their own
MOST_WORKERS = 8  # more would wait for each other to call torch
PATIENCE = timedelta(seconds=50)  # how long a rank waits for the others at one sum


def arithmetic_dtype(values: Tensor) -> torch.dtype:
    """Return the type to compute with `values` in: float64 for float64, else float32."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def choose_precision(
    precision: str, dtype: torch.dtype, device: torch.device, entries: int
) -> torch.dtype:
    """Return the type for products with A, whose other arithmetic is in `dtype`."""
    if dtype == torch.float64 or precision == "float32":
        return dtype
    if precision == "bfloat16" or (entries >= BFLOAT16_ENTRIES and has_bfloat16(device)):
        return torch.bfloat16
    return dtype


def has_bfloat16(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 in hardware (AMX, AVX-512, tensor cores)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in probes)


def times_power_of_two(values: Tensor, power: int) -> Tensor:
    """Return values · 2^power; in two steps, as neither 2^149 nor its inverse are in float32."""
    half = power // 2
    return values * 2.0**half * 2.0 ** (power - half) if power else values


def unsafe_exponent(largest: float, device: torch.device, total: Total) -> int:
    """Return the p of `largest` = m 2^p, m in [1/2, 1), over all ranks; 0 for ordinary sizes."""
    exponent = math.frexp(largest)[1] if 0 < largest < math.inf else None
    if total is not alone:  # there are sums only: of who has which exponent
        present = torch.zeros(EXPONENTS, device=device)
        present[0 if exponent is None else exponent + EXPONENTS // 2] = 1
        held = total(present)[1:].nonzero()
        exponent = int(held.max()) + 1 - EXPONENTS // 2 if len(held) else None
    return 0 if exponent is None or abs(exponent) <= SAFE_EXPONENT else exponent


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """Return x @ y. Large products of float32 matrices go to oneDNN where torch offers it.

    torch itself takes MKL, which on tall and narrow matrices was two to three times slower
    (measured on an AMD processor with AVX-512, with which MKL is not on good terms).
    """
    if (
        _ONEDNN is not None
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() * y.shape[1] >= ONEDNN_MULTIPLICATIONS
    ):
        product: Tensor = _ONEDNN(x, y.T, None, "none", [], "")
        return product
    return x @ y


def _onednn() -> Any:
    """Return torch's own entrance to oneDNN's matrix product, or None where there is none."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONEDNN = _onednn()


def stable_decomposition(decompose: Callable[[Tensor], Result], gram: Tensor) -> Result:
    """Return ``decompose(gram)`` of a symmetric matrix, slightly shifted where LAPACK gives up.

    Raises:
        FactorizationError: its entries overflowed.
    """
    try:
        return decompose(gram)
    except LINALG_ERROR:
        shift = 1e-12 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        try:
            return decompose(gram + shift * torch.eye(gram.shape[-1]).to(gram))
        except LINALG_ERROR as error:
            raise FactorizationError(
                "the factors of this matrix over- or underflow: ask for fewer components, leave "
                "out rows far larger than the others, or pass it in float64"
            ) from error


@contextmanager
def suited_threads(entries: int) -> Iterator[None]:
    """Run on one thread where A has few `entries`, and give the setting back.

    Handing work of microseconds to other threads costs more than it saves, and many times more
    where threads of another pool (of NumPy's BLAS, of a data loader) keep the cores busy.
    """
    before = torch.get_num_threads()
    if entries >= ONE_THREAD_ENTRIES or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers(entries: int) -> int:
    """Return how many workers suit an A of so many entries, on this processor."""
    return max(1, min(torch.get_num_threads(), MOST_WORKERS, entries // WORKER_ENTRIES))


def side_by_side(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return `work` of each part, each done by a thread of its own with its share of the cores.

    With large parts that does better than each step spread over all threads: many steps are too
    small for that, and no thread waits for the others between two steps.
    """
    if len(parts) == 1:
        return [work(parts[0])]
    before = torch.get_num_threads()

    def on_own_cores(part: Part) -> Result:
        torch.set_num_threads(max(1, before // len(parts)))  # holds for the thread that calls it
        with torch.inference_mode():
            return work(part)

    try:
        with ThreadPoolExecutor(len(parts) - 1) as others:
            waiting = [others.submit(on_own_cores, part) for part in parts[1:]]
            return [on_own_cores(parts[0]), *(done.result() for done in waiting)]
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class RankShare:
    """Where the rows of this process lie among all rows.

    Attributes:
        row_offset: how many rows lie on the ranks before this one.
        total_rows: how many there are on all ranks.
    """

    row_offset: int
    total_rows: int


def rank_share(count: int, total: Total) -> RankShare:
    """Return where the `count` rows of this process lie among those of all ranks."""
    if total is alone:
        return RankShare(0, count)
    counts = torch.zeros(dist.get_world_size(), dtype=torch.float64)
    counts[dist.get_rank()] = count
    counts = total(counts)
    return RankShare(int(counts[: dist.get_rank()].sum()), int(counts.sum()))


def alone(tensor: Tensor) -> Tensor:
    """Return `tensor`: the sum over one process."""
    return tensor


def over_group() -> Total:
    """Return the sum over all ranks of the default process group.

    Raises:
        UsageError: no group is initialised.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise UsageError(
            "distributed=True expects an initialised process group and there is none: start with "
            "torchrun and call torch.distributed.init_process_group, or pass distributed=False"
        )
    return _sum_over_ranks


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of `tensor` over the ranks, which all pass the same shape.

    Raises:
        FactorizationError: a rank ended, or did not come within 50 seconds.
    """
    result = tensor.clone(memory_format=torch.contiguous_format)
    try:
        work = dist.all_reduce(result, async_op=True)
        if work is not None:
            work.wait(PATIENCE)
    except RuntimeError as error:
        raise FactorizationError(
            f"rank {dist.get_rank()} lost the other processes of the group: one of them ended or "
            f"did not answer for {PATIENCE.seconds} s; look at its output, and start all of them "
            "again"
        ) from error
    return result
