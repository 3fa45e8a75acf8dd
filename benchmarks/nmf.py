"""Our NMF against its peers: time to one loss, final loss, memory, and loss over time.

    python benchmarks/nmf.py ../shared --out nmf.png

With the folder of shared data: activations of MobileNetV2 (layer ``features``, 225 pixels) over the
photos of ``data/imagenet-sample``, 12,800 x 1280, and over five crops of each, 64,000 x 1280.
Without it: seeded synthetic activations of the same size, sparse and non-negative. Every run of a
peer has a run of ours beside it in the same process; the ratio is the median of theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import NMF as PeerNMF  # noqa: N811
from sklearn.decomposition import MiniBatchNMF

from dff.nmf import NMF

Factors = tuple[Any, Any]
Solver = Callable[[np.ndarray, int], Factors]
ROWS_PER_PHOTO = 64


@dataclass
class Run:
    """One solver on one matrix: seconds, ||A - WH||² in float64, peak memory above the start."""

    seconds: float
    loss: float
    megabytes: float


def main() -> None:
    """Measure, print the table, and draw the losses over time."""
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    for rows in options.rows:
        a = activations(options.shared, rows)
        print(f"\nA: {a.shape[0]:,} x {a.shape[1]:,}, {torch.get_num_threads()} threads")
        print("| k | solver | seconds | ours / it | loss against scikit-learn | peak MB |")
        print("| --- | --- | --- | --- | --- | --- |")
        for k in options.components:
            compare(a, k, options.repeats)
    small(activations(options.shared, 12_800), options.repeats)
    if options.out:
        draw(activations(options.shared, options.rows[0]), options.components[0], options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", nargs="?", type=Path, help="folder with models/ and data/")
    parser.add_argument("--rows", type=int, nargs="+", default=[12_800, 64_000])
    parser.add_argument("--components", type=int, nargs="+", default=[5, 10, 30])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, help="folder that keeps the activations")
    parser.add_argument("--out", type=Path, help="picture of loss over time to write")
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    activations.cache = options.cache  # type: ignore[attr-defined]
    return options


def activations(shared: Path | None, rows: int) -> np.ndarray:
    """Return A (rows, 1280) in float32, real where `shared` has the model and the photos."""
    cache = getattr(activations, "cache", None)
    path = cache / f"activations-{rows}.npy" if cache else None
    if path and path.exists():
        return np.load(path)
    weights = shared / "models/mobilenet_v2_imagenet.safetensors" if shared else None
    a = _real(shared, weights, rows) if weights and weights.exists() else _synthetic(rows)
    if path:
        np.save(path, a)
    return a


def _synthetic(rows: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    w = generator.gamma(0.3, size=(rows, 40)).astype(np.float32)
    h = generator.gamma(0.1, size=(40, 1280)).astype(np.float32)
    noise = generator.standard_normal((rows, 1280), dtype=np.float32)
    return np.maximum(w @ h + noise - 1, 0)


def _real(shared: Path, weights: Path, rows: int) -> np.ndarray:
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=1000)
    model.load_state_dict(load_file(weights))
    model.eval()
    photos = sorted((shared / "data/imagenet-sample").glob("*.jpg"))
    crops = -(-rows // (ROWS_PER_PHOTO * len(photos)))
    parts = []
    with torch.inference_mode():
        for photo in photos:
            maps = model.features(torch.stack(list(_crops(photo, crops))))
            parts.append(maps.permute(0, 2, 3, 1).reshape(crops, -1, 1280).numpy())
    return np.stack(parts, 1).reshape(-1, 1280)[:rows]


def _crops(photo: Path, count: int) -> Iterator[torch.Tensor]:
    """Yield the centre square of a photo, then its corners, every second one flipped."""
    from PIL import Image

    image = Image.open(photo).convert("RGB")
    width, height = image.size
    side, part = min(image.size), int(min(image.size) * 0.75)
    corners = [(0, 0), (width - part, 0), (0, height - part), (width - part, height - part)]
    boxes = [((width - side) // 2, (height - side) // 2, side)]
    boxes += [(x, y, part) for x, y in corners]
    for turn, (x, y, size) in enumerate(boxes[:count]):
        crop = image.crop((x, y, x + size, y + size)).resize((225, 225), Image.Resampling.BILINEAR)
        pixels = np.asarray(crop)[:, :: -1 if turn % 2 else 1].copy()
        yield torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def ours(precision: str) -> Solver:
    """Return our solver in a precision."""

    def solve(a: np.ndarray, k: int) -> Factors:
        model = NMF(k, precision=precision)
        return model.fit_transform(a), model.components_

    return solve


def scikit_learn(a: np.ndarray, k: int) -> Factors:
    """scikit-learn's NMF: coordinate descent, NNDSVDa, its own tolerance and iterations."""
    model = PeerNMF(k, init="nndsvda", solver="cd", random_state=0)
    return model.fit_transform(a), model.components_


def mini_batch(a: np.ndarray, k: int) -> Factors:
    """scikit-learn's MiniBatchNMF."""
    model = MiniBatchNMF(k, random_state=0)
    return model.fit_transform(a), model.components_


def others() -> dict[str, Solver]:
    """Return the solvers of optional packages that are installed."""
    found: dict[str, Solver] = {}
    try:
        from overcomplete.optimization import NMF as Overcomplete  # noqa: N811

        def overcomplete(a: np.ndarray, k: int) -> Factors:
            torch.manual_seed(0)
            w, h = Overcomplete(k, solver="hals").fit(torch.from_numpy(a))
            return w.detach().numpy(), h.detach().numpy()

        found["overcomplete HALS"] = overcomplete
    except ImportError:
        pass
    try:
        from torchnmf.nmf import NMF as TorchNMF  # noqa: N811

        def torchnmf(a: np.ndarray, k: int) -> Factors:
            torch.manual_seed(0)
            model = TorchNMF(a.shape, rank=k)
            model.fit(torch.from_numpy(a), beta=2)
            return model.H.detach().numpy(), model.W.detach().numpy().T

        found["torchnmf"] = torchnmf
    except ImportError:
        pass
    return found


def measure(solve: Solver, a: np.ndarray, k: int, *, watch: bool = False) -> Run:
    """Run a solver once; with `watch`, its memory is read from another thread, which slows it."""
    time.sleep(0.2)  # until the threads that the last run left spinning have gone to sleep
    memory = _PeakMemory()
    with memory if watch else contextlib.nullcontext():
        start = time.perf_counter()
        w, h = solve(a, k)
        seconds = time.perf_counter() - start
    left = sum(
        float(np.square(a[i : i + 4096] - w[i : i + 4096] @ h, dtype=np.float64).sum())
        for i in range(0, len(a), 4096)
    )
    return Run(seconds, left, memory.megabytes)


class _PeakMemory:
    """The most resident memory beyond that at the start, read every few milliseconds."""

    megabytes = 0.0

    def __enter__(self) -> _PeakMemory:
        self._start, self._stop = _resident(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
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


def compare(a: np.ndarray, k: int, repeats: int) -> None:
    """Print a row for each solver; each peer's run is followed by ours."""
    solvers: dict[str, Solver] = {
        "scikit-learn NMF": scikit_learn,
        "ours, auto": ours("auto"),
        "ours, float32": ours("float32"),
        "MiniBatchNMF": mini_batch,
        **others(),
    }
    runs: dict[str, list[Run]] = {name: [] for name in solvers}
    memory = {name: measure(solve, a, k, watch=True) for name, solve in solvers.items()}
    for _ in range(repeats):
        for name, solve in solvers.items():
            runs[name].append(measure(solve, a, k))
    reference = runs["scikit-learn NMF"][0].loss
    for name, found in runs.items():
        pairs = zip(found, runs["scikit-learn NMF"], strict=True)
        ratio = statistics.median(peer.seconds / run.seconds for run, peer in pairs)
        seconds = statistics.median(run.seconds for run in found)
        print(
            f"| {k} | {name} | {seconds:.3f} | {ratio:.1f}x | "
            f"{100 * (found[0].loss / reference - 1):+.3f}% | "
            f"{memory[name].megabytes:.0f} |",
            flush=True,
        )


def small(a: np.ndarray, repeats: int) -> None:
    """Print the time of one photo: 49 rows, 2048 columns, k = 5."""
    one = np.ascontiguousarray(np.concatenate([a[:49], a[64:113]], axis=1)[:, :2048])
    times: dict[str, list[float]] = {"scikit-learn NMF": [], "ours, auto": []}
    for _ in range(10 * repeats):
        for name, solve in (("scikit-learn NMF", scikit_learn), ("ours, auto", ours("auto"))):
            start = time.perf_counter()
            solve(one, 5)
            times[name].append(time.perf_counter() - start)
    theirs, own = (1e3 * statistics.median(values) for values in times.values())
    print(f"\n49 x 2048, k = 5: ours {own:.1f} ms, scikit-learn {theirs:.1f} ms")


def draw(a: np.ndarray, k: int, path: Path) -> None:
    """Write a picture of the loss against the time that it took, by more and more iterations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    budgets = [1, 2, 3, 5, 8, 12, 20, 40, 80]

    def mine(count: int) -> Factors:
        model = NMF(k, max_iter=count, tol=0.0)
        return model.fit_transform(a), model.components_

    def peer(count: int) -> Factors:
        model = PeerNMF(k, init="nndsvda", random_state=0, max_iter=count, tol=0.0)
        return model.fit_transform(a), model.components_

    for name, make in (("ours", mine), ("scikit-learn NMF", peer)):
        runs = [measure(lambda _a, _k, n=n, make=make: make(n), a, k) for n in budgets]
        axes.plot([r.seconds for r in runs], [r.loss for r in runs], marker="o", label=name)
    axes.set(xscale="log", xlabel="seconds", ylabel="||A - WH||²")
    axes.set_title(f"{a.shape[0]:,} x {a.shape[1]:,}, {k} components")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
