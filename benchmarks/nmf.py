"""Our NMF against its peers: seconds, final loss, memory, and loss over time.

    python benchmarks/nmf.py ../shared --out nmf.png

With the folder of shared data: activations of MobileNetV2 (layer ``features``, 225 pixels) over the
photos of ``data/imagenet-sample``, 12,800 x 1280, and over five crops of each, 64,000 x 1280.
Without it: seeded synthetic activations of the same size, sparse and non-negative.

All run in this one process, one after the other, again and again; a ratio is the median of those
of neighbouring runs. The losses that count are the means over subsets of 80 % of the rows. Solvers
of optional packages run once, on the smallest matrix, as they take long. On a GPU (``--device
cuda``) overcomplete, torchnmf and ours run there; scikit-learn stays on the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nmf_activations import ROWS_PER_PHOTO, activations
from nmf_solvers import TOLERANCES, Solver, mini_batch, on, optional, ours, scikit_learn

from dff.nmf import NMF

SUBSET = 0.8
PHOTOS = 40


@dataclass
class Run:
    """One solver on one matrix: seconds, ||A - WH||² in float64, peak memory above the start."""

    seconds: float
    loss: float
    megabytes: float


def main() -> None:
    """Measure, print the tables, and draw the losses over time."""
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    smallest = min(options.rows)
    for rows in options.rows:
        a = activations(options.shared, rows, options.cache)
        threads = torch.get_num_threads()
        print(f"\nA: {rows:,} x {a.shape[1]:,}, {a.nbytes / 1e6:.0f} MB, {threads} threads")
        print("| k | solver | seconds | times as fast | loss against scikit-learn | peak MB |")
        print("| --- | --- | --- | --- | --- | --- |")
        for k in options.components:
            compare(a, k, options.repeats, options.device, others=rows == smallest)
        if options.subsets:
            subsets(a, options.components, options.subsets, options.device)
        for k in options.components:
            roofline(a, k, options.device)
    a = activations(options.shared, smallest, options.cache)
    one_photo(a, options.repeats)
    single_photos(a)
    if options.out:
        draw(a, options.components[0], options.device, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", nargs="?", type=Path, help="folder with models/ and data/")
    parser.add_argument("--rows", type=int, nargs="+", default=[12_800, 64_000])
    parser.add_argument("--components", type=int, nargs="+", default=[5, 10, 30])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--subsets", type=int, default=5, help="0 for none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="where ours and the torch peers run")
    parser.add_argument("--cache", type=Path, help="folder that keeps the activations")
    parser.add_argument("--out", type=Path, help="picture of loss over time to write")
    return parser.parse_args()


def measure(solve: Solver, a: np.ndarray, k: int, *, watch: bool = False, **options: float) -> Run:
    """Run a solver once; with `watch`, its memory is read from another thread, which slows it."""
    time.sleep(0.2)  # until the threads that the last run left spinning have gone to sleep
    memory = _PeakMemory()
    with memory if watch else contextlib.nullcontext():
        start = time.perf_counter()
        w, h = (torch.as_tensor(factor).cpu().numpy() for factor in solve(a, k, **options))
        seconds = time.perf_counter() - start
    return Run(seconds, loss(a, w, h), memory.megabytes)


def loss(a: np.ndarray, *factors: Any) -> float:
    """Return ||A - WH||², summed in float64 (float32 sums are off by more than solvers differ)."""
    w, h = (np.asarray(factor) for factor in factors)
    return sum(
        float(np.square(a[i : i + 4096] - w[i : i + 4096] @ h, dtype=np.float64).sum())
        for i in range(0, len(a), 4096)
    )


class _PeakMemory:
    """The most resident memory beyond that at the start, read every few milliseconds."""

    megabytes = 0.0

    def __enter__(self) -> _PeakMemory:
        self._start, self._stop = _resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.003):
            self.megabytes = max(self.megabytes, _resident() - self._start)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _resident() -> float:
    """Return this process's resident memory in MB (Linux; elsewhere 0)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * 4096 / 1e6


def compare(a: np.ndarray, k: int, repeats: int, device: str, *, others: bool) -> None:
    """Print a row for each solver."""
    solvers: dict[str, Solver] = {
        "scikit-learn NMF": scikit_learn,
        "ours, auto": ours("auto", device),
        "ours, float32": ours("float32", device),
        "scikit-learn MiniBatchNMF": mini_batch,
    }
    once = optional(device) if others else {}
    first = {name: measure(s, a, k, watch=True) for name, s in (solvers | once).items()}
    runs: dict[str, list[Run]] = {name: [] for name in solvers}
    for _ in range(repeats):
        for name, solve in solvers.items():
            runs[name].append(measure(solve, a, k))
    peer = runs["scikit-learn NMF"]
    for name, run in first.items():
        found = runs.get(name, [run])
        pairs = zip(found, peer, strict=False)
        ratio = statistics.median(theirs.seconds / run.seconds for run, theirs in pairs)
        seconds = statistics.median(run.seconds for run in found)
        above = 100 * (found[0].loss / peer[0].loss - 1)
        print(
            f"| {k} | {name} | {seconds:.3f} | {ratio:.1f} | {above:+.3f} % | "
            f"{run.megabytes:.0f} |",
            flush=True,
        )


def subsets(a: np.ndarray, components: list[int], count: int, device: str) -> None:
    """Print the losses on random subsets of the rows, against scikit-learn's."""
    for k in components:
        above = []
        for seed in range(count):
            generator = np.random.default_rng(seed)
            some = a[np.sort(generator.permutation(len(a))[: int(SUBSET * len(a))])]
            peer, own = (measure(s, some, k).loss for s in (scikit_learn, ours(device=device)))
            above.append(100 * (own / peer - 1))
        print(
            f"k = {k}, {count} subsets of {SUBSET:.0%}: loss against scikit-learn's "
            f"{statistics.mean(above):+.3f} % on average, at worst {max(above):+.3f} %",
            flush=True,
        )


def roofline(a: np.ndarray, k: int, device: str) -> None:
    """Print the seconds of one pass over A, and what share of the memory's speed that is.

    A pass has to read A once; the memory's speed is what summing A up reaches.
    """
    place, wait = on(device), torch.cuda.synchronize if device != "cpu" else lambda: None
    values = place(a)
    start = torch.rand(k, a.shape[1], generator=torch.Generator().manual_seed(0))

    def seconds(act: Callable[[], object]) -> float:
        taken = []
        for _ in range(7):
            begin = time.perf_counter()
            act()
            wait()
            taken.append(time.perf_counter() - begin)
        return min(taken)

    def passes(count: int) -> float:
        model = NMF(k, init=start.to(device), max_iter=count, tol=0.0)
        return seconds(lambda: model.fit(values))

    a_pass, a_sum = (passes(12) - passes(2)) / 10, seconds(values.sum)
    print(
        f"k = {k}: a pass takes {1e3 * a_pass:.2f} ms, reading A {1e3 * a_sum:.2f} ms "
        f"({a.nbytes / a_sum / 1e9:.0f} GB/s): {a_sum / a_pass:.0%} of the memory's speed",
        flush=True,
    )


def one_photo(a: np.ndarray, repeats: int) -> None:
    """Print the time of one photo: 49 rows, 2048 columns, k = 5."""
    one = np.ascontiguousarray(np.concatenate([a[:49], a[64:113]], axis=1)[:, :2048])
    times: dict[str, list[float]] = {"scikit-learn": [], "ours": []}
    for _ in range(10 * repeats):
        for name, solve in (("scikit-learn", scikit_learn), ("ours", ours())):
            start = time.perf_counter()
            solve(one, 5)
            times[name].append(time.perf_counter() - start)
    theirs, own = (1e3 * statistics.median(values) for values in times.values())
    print(f"\n49 x 2048, k = 5: ours {own:.1f} ms, scikit-learn {theirs:.1f} ms")


def single_photos(a: np.ndarray) -> None:
    """Print losses and times of photos on their own, by the number of starts."""
    photos = [a[i * ROWS_PER_PHOTO : (i + 1) * ROWS_PER_PHOTO] for i in range(0, 5 * PHOTOS, 5)]
    print(f"\n{PHOTOS} single photos, 64 x 1280: loss against scikit-learn's, mean / worst")
    for k in (5, 8, 10):
        theirs = [loss(photo, *scikit_learn(photo, k)) for photo in photos]
        for n_init in (1, 8, 24):
            solve, begin = ours(n_init=n_init), time.perf_counter()
            found = [solve(photo, k) for photo in photos]
            each = 1e3 * (time.perf_counter() - begin) / PHOTOS
            above = [
                100 * (loss(photo, *factors) / peer - 1)
                for photo, factors, peer in zip(photos, found, theirs, strict=True)
            ]
            print(
                f"k = {k}, n_init = {n_init}: {statistics.mean(above):+.2f} / {max(above):+.2f} %, "
                f"{each:.1f} ms each",
                flush=True,
            )


def draw(a: np.ndarray, k: int, device: str, path: Path) -> None:
    """Write a picture of the loss against the time that it took, by tighter and tighter `tol`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    solvers = {"ours": ours(device=device), "scikit-learn NMF": scikit_learn, **optional(device)}
    reference = measure(scikit_learn, a, k).loss
    for name, solve in solvers.items():
        runs = [measure(solve, a, k, tol=tol) for tol in TOLERANCES[name]]
        reached = [run.seconds for run in runs if run.loss <= 1.001 * reference]
        when = f"after {min(reached):.2f} s" if reached else "at no tolerance tried"
        print(f"{name}: within 0.1 % of scikit-learn's loss {when}")
        above = [100 * (run.loss / reference - 1) for run in runs]
        axes.plot([run.seconds for run in runs], above, marker="o", label=name)
    axes.axhline(0.1, color="grey", linewidth=0.8, linestyle="--")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_yticks([-0.1, 0, 0.1, 1, 10], ["-0.1 %", "0", "0.1 %", "1 %", "10 %"])
    axes.set(xscale="log", xlabel="seconds", ylabel="loss above scikit-learn's by default")
    axes.set_title(f"{a.shape[0]:,} x {a.shape[1]:,}, {k} components")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
