"""Train the embedded model that answers questions, and say how well it does.

    python examples/vqa/train.py                       # minutes on 2 cores
    python examples/vqa/train.py --evaluate            # measure the installed weights

The backbone starts from the demo model's weights, which know parts. First the rest learns on its
maps as they are; then the whole network learns. Two things make it look: every kind of question
has answers that differ from picture to picture, and attention is told, while it is trained, where
what is asked about is seen.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

import dff.demo.vqa
from dff.demo import creatures, model
from dff.demo.vqa import ANSWERS, VQANet, encode, load
from dff.demo.vqa.questions import Question, ask
from dff.images import Preprocessing, read_image

FIRST, UNSEEN = 4_000_000, 5_000_000
"""Seeds of scenes to train on, and of those to measure on."""
VERSIONS = 4
"""How many phrasings of its questions a scene has."""
GROUNDING = 0.5
"""Weight of where attention lies in the loss."""
PREPROCESSING = Preprocessing(size=model.INPUT_SIZE, mean=model.MEAN, std=model.STD)
GRID = model.INPUT_SIZE // 4
COARSE = 2
"""By how much the fixed maps are pooled: the rest learns four times as fast on them."""
EACH = 4
"""Questions of a scene in a step of the whole network, at most."""
_CHUNK = 200


@dataclass(frozen=True)
class Asked:
    """Scenes and their questions.

    Attributes:
        images: (scenes, 3, 128, 128) uint8.
        questions: for each version of the phrasings, the questions of all scenes.
        scene: for each version, (questions,) int64, the scene of each.
    """

    images: Tensor
    questions: list[list[Question]]
    scene: list[Tensor]


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train or evaluate as the arguments say; return the figures that were printed."""
    args = _arguments().parse_args(argv)
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    if not args.evaluate:
        asked = scenes(range(FIRST, FIRST + args.scenes), workers=args.workers)
        print(f"drew {len(asked.images)} scenes, {_since(started)}", flush=True)
        network = train(asked, read=args.read_epochs, look=args.look_epochs, seed=args.seed)
        model.store(network, args.out)
        size = args.out.stat().st_size / 2**20
        print(f"{args.out}: {size:.2f} MiB, {_since(started)} in all")
        del asked
    unseen = scenes(
        range(UNSEEN, UNSEEN + args.test_scenes), versions=1, unseen=True, workers=args.workers
    )
    return evaluate(load() if args.evaluate else network, unseen)


def scenes(
    seeds: range, *, versions: int = VERSIONS, unseen: bool = False, workers: int = 2
) -> Asked:
    """Return scenes of one to three animals, and their questions."""
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    work = partial(_scenes, versions=versions, unseen=unseen)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            drawn = [one for part in pool.map(work, chunks) for one in part]
    else:
        drawn = [one for chunk in chunks for one in work(chunk)]
    images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2)
    by_version = [[asked[version] for _, asked in drawn] for version in range(versions)]
    return Asked(
        images,
        [[question for asked in rows for question in asked] for rows in by_version],
        [torch.tensor([i for i, asked in enumerate(rows) for _ in asked]) for rows in by_version],
    )


def _scenes(
    seeds: range, *, versions: int, unseen: bool
) -> list[tuple[np.ndarray, list[list[Question]]]]:
    drawn = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 3])
        count = int(rng.choice([1, 1, 1, 2, 2, 3]))
        chimera = count == 1 and rng.random() < 0.5
        size = model.INPUT_SIZE * int(rng.choice([1, 2]))  # photos are larger, and reduced
        scene = creatures.render(
            seed, size=size, count=count, species=creatures.CHIMERA if chimera else None
        )
        asked = [
            [_on_grid(question) for question in ask(scene, rng, unseen=unseen)]
            for _ in range(versions)
        ]
        drawn.append((PREPROCESSING.resize(read_image(scene.image)), asked))
    return drawn


def _on_grid(question: Question) -> Question:
    """Return the question with its region as shares (rows, cols) of the cells of the grid."""
    region = question.region.astype(np.float32)
    small = cv2.resize(region, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return Question(question.text, question.answer, question.kind, question.part, small)


def train(asked: Asked, *, read: int, look: int, seed: int) -> VQANet:
    """Return a network trained for `read` epochs on fixed maps, then for `look` as a whole."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VQANet()
        network.backbone.load_state_dict(model.load().state_dict(), strict=False)
        generator = torch.Generator().manual_seed(seed)
        head = [p for name, p in network.named_parameters() if not name.startswith("backbone")]
        if read:
            maps = torch.cat([_maps(network, asked.images[i]) for i in _batches(asked, 100)])
            _epochs(network, asked, head, read, 3e-3, generator, maps)
            del maps
        _epochs(network, asked, list(network.parameters()), look, 1e-3, generator)
    return network.eval()


def _epochs(
    network: VQANet,
    asked: Asked,
    parameters: list[nn.Parameter],
    epochs: int,
    rate: float,
    generator: torch.Generator,
    maps: Tensor | None = None,
    batch: int = 32,
) -> None:
    """Train `parameters` for some epochs; without `maps`, the backbone too."""
    if not epochs:
        return
    steps = epochs * -(-len(asked.images) // batch)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    network.train()
    network.backbone.eval()  # its statistics stay
    for epoch in range(epochs):
        started, total, right, count = time.perf_counter(), 0.0, 0, 0
        version = epoch % len(asked.questions)
        rows = _by_scene(asked.scene[version], len(asked.images))
        order = torch.randperm(len(asked.images), generator=generator)
        for chosen in order.split(batch):
            each = [_drawn(rows[scene], generator, maps is None) for scene in chosen.tolist()]
            questions = [i for some in each for i in some]
            of = torch.tensor([n for n, some in enumerate(each) for _ in some])
            with torch.autocast("cpu", torch.bfloat16, enabled=maps is None):
                seen = (
                    network.backbone.maps(model.normalised(asked.images[chosen]))
                    if maps is None
                    else maps[chosen]
                )
            batch_questions = [asked.questions[version][i] for i in questions]
            loss, hits = objective(network, seen.float(), of, batch_questions)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            total, right, count = total + loss.item(), right + hits, count + len(questions)
        print(
            f"epoch {epoch + 1}/{epochs} of {'the rest' if maps is not None else 'all'}: loss "
            f"{total * batch / len(asked.images):.3f}, {right / count:.1%} right, "
            f"{_since(started)}",
            flush=True,
        )


def _drawn(questions: list[int], generator: torch.Generator, few: bool) -> list[int]:
    """Return the questions, or if `few` at most EACH of them."""
    order = torch.randperm(len(questions), generator=generator).tolist()
    return [questions[i] for i in order[: EACH if few else None]]


def objective(
    network: VQANet, maps: Tensor, of: Tensor, questions: list[Question]
) -> tuple[Tensor, int]:
    """Return the loss of answers and of attention, and how many answers are right.

    Args:
        network: in training mode.
        maps: (scenes, channels, rows, cols).
        of: (questions,) the scene of each.
        questions: on these scenes.
    """
    read = network.text(*encode([question.text for question in questions]))
    logits, weights = network.answered(maps[of], read)
    answers = torch.tensor([ANSWERS.index(question.answer) for question in questions])
    loss = nn.functional.cross_entropy(logits, answers, label_smoothing=0.02)
    region = torch.from_numpy(np.stack([question.region for question in questions]))
    if maps.shape[-1] < GRID:
        region = nn.functional.avg_pool2d(region, GRID // maps.shape[-1])
    region = region.flatten(1)
    somewhere = region.sum(1) > 0.25
    hit = (weights * region[:, None]).sum(2)[somewhere]
    loss = loss - GROUNDING * (hit + 1e-3).log().mean()
    return loss, int((logits.argmax(1) == answers).sum())


@torch.inference_mode()
def _maps(network: VQANet, images: Tensor) -> Tensor:
    network.eval()
    with torch.autocast("cpu", torch.bfloat16):
        maps = network.backbone.maps(model.normalised(images))
        return nn.functional.avg_pool2d(maps, COARSE).bfloat16()


def _batches(asked: Asked, size: int) -> tuple[Tensor, ...]:
    return torch.arange(len(asked.images)).split(size)


def _by_scene(scene: Tensor, count: int) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(count)]
    for question, of in enumerate(scene.tolist()):
        rows[of].append(question)
    return rows


@torch.inference_mode()
def evaluate(network: VQANet, asked: Asked) -> dict[str, float]:
    """Print and return the accuracy on scenes, by kind of question, and with pictures swapped."""
    network.eval()
    questions, scene = asked.questions[0], asked.scene[0]
    figures = {}
    for name, shift in (("unseen", 0), ("swapped", len(asked.images) // 2)):
        right: dict[str, list[bool]] = defaultdict(list)
        for rows in torch.arange(len(questions)).split(100):
            of = (scene[rows] + shift) % len(asked.images)
            batch = [questions[i] for i in rows.tolist()]
            logits = network(model.normalised(asked.images[of]), *encode([q.text for q in batch]))
            for question, best in zip(batch, logits.argmax(1).tolist(), strict=True):
                right[question.kind].append(ANSWERS[best] == question.answer)
        total = [hit for hits in right.values() for hit in hits]
        figures[name] = sum(total) / len(total)
        kinds = ", ".join(f"{kind} {np.mean(hits):.1%}" for kind, hits in sorted(right.items()))
        print(f"{figures[name]:.2%} of {len(total)} questions right, {name}: {kinds}", flush=True)
    return figures


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.0f} s"


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(dff.demo.vqa.__file__).parent / "weights.safetensors"
    parser.add_argument("--out", type=Path, default=default, help="where the weights go")
    parser.add_argument("--scenes", type=int, default=6_000, help="how many to train on")
    parser.add_argument("--read-epochs", type=int, default=10, help="of the rest alone")
    parser.add_argument("--look-epochs", type=int, default=2, help="of the whole network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--test-scenes", type=int, default=500)
    parser.add_argument("--evaluate", action="store_true", help="only measure the weights")
    return parser


if __name__ == "__main__":
    main()
