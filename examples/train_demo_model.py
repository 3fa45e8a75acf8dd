"""Train the embedded demo model on rendered creatures, and say how well it knows them.

    python examples/train_demo_model.py                       # minutes on 2 cores
    python examples/train_demo_model.py --evaluate            # measure the installed weights

Every species, pose and landscape is drawn independently, so a landscape says nothing about the
animal in it. That the model knows the parts of animals, and not only the most telling one, has
three causes: half of the animals are chimeras, with each part of a species drawn by chance, and
a second head (thrown away afterwards) has to say of what kind each part is; patches of the images
are hidden; and activity in the last stage costs a little, so that it is spent where it tells most.
One seed gives the same images and the same order
of them; the weights agree between machines as far as the arithmetic of their processors does.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import dff.demo
from dff.demo import creatures, model
from dff.demo.species import SPECIES

UNSEEN = 1_000_000  # seeds from here on are never trained on
KINDS = {
    part: ("", *sorted({s.kinds()[part] for s in SPECIES.values() if part in s.kinds()}))
    for part in creatures.PARTS
}
ACTIVITY = 0.1  # weight of the mean activation of the last stage in the loss
_CHUNK = 250


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train or evaluate as the arguments say; return the figures that were printed."""
    args = _arguments().parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.evaluate:
        return evaluate(model.load(), count=args.test_images, workers=args.workers)
    started = time.perf_counter()
    images, labels, kinds = render(range(args.images), chimeras=True, workers=args.workers)
    print(f"rendered {len(images)} images in {time.perf_counter() - started:.0f} s", flush=True)
    network = train(images, labels, kinds, epochs=args.epochs, batch=args.batch, seed=args.seed)
    model.store(network, args.out)
    figures = evaluate(network, count=args.test_images, workers=args.workers)
    print(
        f"{args.out}: {args.out.stat().st_size / 2**20:.2f} MiB, "
        f"{time.perf_counter() - started:.0f} s in all"
    )
    return figures


def render(
    seeds: range, *, swapped: bool = False, chimeras: bool = False, workers: int = 2
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pictures of single animals, their species, and the kinds of their parts.

    Args:
        seeds: one for each picture.
        swapped: every animal stands in the landscape of another seed.
        chimeras: every other animal is a chimera.
        workers: processes to share the work.

    Returns:
        Images (n, 3, 128, 128) uint8, labels (n,) int64, -1 for chimeras, and for each of the
        parts the index of its kind in `KINDS` (n, parts) int64.
    """
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    work = partial(_render, swapped=swapped, chimeras=chimeras)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            done = list(pool.map(work, chunks))
    else:
        done = [work(chunk) for chunk in chunks]
    pixels, labels, kinds = (np.concatenate(column) for column in zip(*done, strict=True))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return images, torch.from_numpy(labels), torch.from_numpy(kinds)


def _render(
    seeds: range, *, swapped: bool, chimeras: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scenes = [
        creatures.render(
            seed,
            size=model.INPUT_SIZE,
            species=creatures.CHIMERA if chimeras and seed % 2 else None,
            background_seed=seed + 500_000 if swapped else None,
        )
        for seed in seeds
    ]
    animals = [scene.animals[0] for scene in scenes]
    kinds = [[KINDS[p].index(a.kinds.get(p, "")) for p in creatures.PARTS] for a in animals]
    labels = [animal.label for animal in animals]
    return np.stack([scene.image for scene in scenes]), np.array(labels), np.array(kinds)


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    kinds: torch.Tensor,
    *,
    epochs: int,
    batch: int,
    seed: int,
) -> model.CreatureNet:
    """Return a network trained with one cycle of learning rates on what :func:`render` gave."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = model.CreatureNet().to(memory_format=torch.channels_last).train()
        second = nn.Linear(network.fc.in_features, sum(map(len, KINDS.values())))
    parameters = [*network.parameters(), *second.parameters()]
    steps = epochs * max(len(images) // batch, 1)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.25
    )
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(batch)[: steps // epochs]:
            x = model.normalised(augment(images[rows], generator))
            loss = objective(network, second, x, labels[rows], kinds[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total / (steps // epochs):.3f}, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )
    return network.eval()


def objective(
    network: model.CreatureNet,
    second: nn.Linear,
    x: torch.Tensor,
    labels: torch.Tensor,
    kinds: torch.Tensor,
) -> torch.Tensor:
    """Return the loss: species (chimeras have none), kinds of the parts, and activity."""
    entropy = partial(nn.functional.cross_entropy, label_smoothing=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.maps(x)
        pooled = torch.flatten(network.avgpool(maps), 1)
        species, parts = network.fc(pooled).float(), second(pooled).float()
    loss = ACTIVITY * maps.float().mean()
    real = labels >= 0
    if real.any():
        loss = loss + entropy(species[real], labels[real])
    for column, logits in enumerate(parts.split([len(names) for names in KINDS.values()], dim=1)):
        loss = loss + 0.25 * entropy(logits, kinds[:, column])
    return loss


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return copies (n, 3, h, w) uint8, each mirrored, moved and with patches hidden, by chance."""
    side, reach = images.shape[-1], 10
    draw = partial(torch.randint, generator=generator)
    framed = nn.functional.pad(images.float(), [reach] * 4, mode="reflect").byte()
    result = torch.empty_like(images)
    for i in range(len(images)):
        top, left = draw(2 * reach, (2,)).tolist()
        result[i] = framed[i, :, top : top + side, left : left + side]
        if draw(2, (1,)):
            result[i] = result[i].flip(-1)
        for _ in range(int(draw(4, (1,)))):
            (y, x), (h, w) = draw(side, (2,)).tolist(), draw(16, 48, (2,)).tolist()
            result[i, :, y : y + h, x : x + w] = draw(256, (3, 1, 1)).byte()
    return result


def evaluate(network: nn.Module, *, count: int, workers: int) -> dict[str, float]:
    """Print and return the accuracy on unseen creatures, and with their landscapes swapped."""
    figures = {}
    for name, swapped in (("unseen", False), ("swapped", True)):
        images, labels, _ = render(range(UNSEEN, UNSEEN + count), swapped=swapped, workers=workers)
        figures[name] = accuracy(network, images, labels)
        print(f"accuracy on {count} creatures, {name}: {figures[name]:.2%}", flush=True)
    return figures


@torch.inference_mode()
def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of images (n, 3, h, w) uint8 whose top class is their label."""
    network = network.eval().to(memory_format=torch.channels_last)
    right = 0
    for rows in torch.arange(len(images)).split(100):
        right += int((network(model.normalised(images[rows])).argmax(1) == labels[rows]).sum())
    return right / max(len(images), 1)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(dff.demo.__file__).parent / "weights.safetensors"
    parser.add_argument("--out", type=Path, default=default, help="where the weights go")
    parser.add_argument("--images", type=int, default=12_000, help="how many to train on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--test-images", type=int, default=2_000)
    parser.add_argument("--evaluate", action="store_true", help="only measure the weights")
    return parser


if __name__ == "__main__":
    main()
