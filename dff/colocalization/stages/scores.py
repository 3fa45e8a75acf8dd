"""What concepts say about classes: scores, mean contributions, prevalence, co-occurrence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from dff.activations.outputs import Meaning
from dff.colocalization.run.folder import RunFolder
from dff.concepts import ConceptBank
from dff.labels import class_name
from dff.scoring.labels import SHARE

__all__ = ["Tally", "image_groups", "spoken", "write_scores"]


@dataclass(eq=False)
class Tally:
    """Sums over images, and over the images of each group (a predicted class, or a label)."""

    concepts: int
    images: dict[int | str, int] = field(default_factory=dict)
    present: dict[int | str, np.ndarray] = field(default_factory=dict)
    mean: dict[int | str, np.ndarray] = field(default_factory=dict)
    together: np.ndarray = field(init=False)
    total: int = 0

    def __post_init__(self) -> None:
        self.together = np.zeros((self.concepts, self.concepts), np.int64)

    def add(self, groups: pa.ChunkedArray, present: np.ndarray, mean: np.ndarray) -> None:
        """Count images (n,) with where concepts are present (n, k) and the maps' means (n, k).

        An image whose group is null belongs to none.
        """
        self.total += len(groups)
        self.together += present.astype(np.int64).T @ present.astype(np.int64)
        coded = groups.combine_chunks().dictionary_encode()
        known = np.asarray(coded.indices.is_valid())
        codes, names = coded.indices.drop_null().to_numpy(), coded.dictionary.to_pylist()
        counts = np.bincount(codes, minlength=len(names)).tolist()
        sums = (
            np.zeros((len(names), self.concepts), np.int64),
            np.zeros((len(names), self.concepts)),
        )
        np.add.at(sums[0], codes, present[known])
        np.add.at(sums[1], codes, mean[known].astype(np.float64))
        for group, count, shown, level in zip(names, counts, *sums, strict=True):
            self.images[group] = self.images.get(group, 0) + count
            self.present[group] = self.present.get(group, 0) + shown
            self.mean[group] = self.mean.get(group, 0.0) + level


def image_groups(
    folder: RunFolder, concepts: int
) -> Iterator[tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (images that could be read, strength (n, k), mean (n, k), present (n, k)) of a run.

    Both tables are read some thousand images at a time.
    """
    images = _readable(folder)
    waiting = next(images, None)
    file = pq.ParquetFile(folder.file("instances.parquet"))
    left: pa.Table | None = None
    for batch in file.iter_batches(
        batch_size=concepts * 4096, columns=["image_id", "strength", "mean", "x0"]
    ):
        table = pa.Table.from_batches([batch])
        table = table if left is None else pa.concat_tables([left, table])
        count = len(table) // concepts
        left = table.slice(count * concepts)
        table = table.slice(0, count * concepts)
        strength, mean = (
            table[name].to_numpy().reshape(count, concepts) for name in ("strength", "mean")
        )
        present = np.asarray(table["x0"].is_valid()).reshape(count, concepts)
        while waiting is not None and len(waiting) < count:
            waiting = pa.concat_tables([waiting, next(images)])
        if waiting is not None:
            yield waiting.slice(0, count), strength, mean, present
            waiting = waiting.slice(count)


def _readable(folder: RunFolder) -> Iterator[pa.Table]:
    """Yield the images that could be read, a row group at a time."""
    file = pq.ParquetFile(folder.file("images.parquet"))
    for group in range(file.num_row_groups):
        images = file.read_row_group(group)
        yield images.filter(pc.equal(images["status"], "ok"))


def write_scores(
    folder: RunFolder,
    bank: ConceptBank,
    logits: tuple[Tensor, Tensor] | None,
    class_names: Sequence[str] | None,
    meaning: Meaning,
) -> None:
    """Write scores.parquet, concepts.parquet, labels.parquet (if any) and cooccurrence.parquet."""
    by_class, by_label = Tally(len(bank)), Tally(len(bank))
    for images, _, mean, present in image_groups(folder, len(bank)):
        by_class.add(images["predicted_index"], present, mean)
        by_label.add(images["label"], present, mean)
    said = None if logits is None else spoken(logits, by_class, meaning)
    _put(folder, "scores.parquet", _scores(bank, logits, class_names, by_class, meaning))
    _put(folder, "concepts.parquet", _concepts(bank, said, class_names, by_class))
    _put(folder, "cooccurrence.parquet", _cooccurrence(bank, by_class))
    _put(folder, "labels.parquet", _labels(bank, by_label))


def _put(folder: RunFolder, name: str, table: pa.Table) -> None:
    folder.write({name: lambda file: pq.write_table(table, file)})


def _scores(
    bank: ConceptBank,
    logits: tuple[Tensor, Tensor] | None,
    class_names: Sequence[str] | None,
    tally: Tally,
    meaning: Meaning,
) -> pa.Table:
    """Concept x class. A contribution is what a concept adds to a class's logit.

    It is the concept's worth, its logit at full presence less that of an empty grid, times the
    concept's mean over the cells: exact where the layer is followed by pooling and a linear head.
    The mean is taken over the images that the model puts in the class, null where there are none.
    """
    k = len(bank)
    if logits is None:
        return pa.table({name: pa.array([], dtype) for name, dtype in _SCORES})
    at_full, empty = logits
    classes = at_full.shape[1]
    worth = (at_full - empty).cpu().double().numpy()
    images = np.array([tally.images.get(c, 0) for c in range(classes)])
    mean = np.zeros((k, classes))
    prevalence = np.zeros((k, classes))
    for c in np.flatnonzero(images):
        mean[:, c] = tally.mean[int(c)] / images[c]
        prevalence[:, c] = tally.present[int(c)] / images[c]
    none = np.broadcast_to(images == 0, (k, classes)).ravel()
    names = [class_name(c, class_names) for c in range(classes)]
    columns = {
        "concept": np.repeat(np.arange(1, k + 1), classes),
        "class_index": np.tile(np.arange(classes), k),
        "class": pa.array(names * k),
        "score": meaning.probabilities(at_full).cpu().numpy().ravel(),
        "logit": at_full.cpu().numpy().ravel(),
        "worth": worth.ravel(),
        "mean_contribution": pa.array((worth * mean).ravel(), mask=none),
        "prevalence": pa.array(prevalence.ravel(), mask=none),
        "images": np.tile(images, k),
    }
    return pa.table(columns).cast(pa.schema(_SCORES))


_SCORES = [
    ("concept", pa.int32()), ("class_index", pa.int32()), ("class", pa.string()),
    ("score", pa.float32()), ("logit", pa.float32()), ("worth", pa.float32()),
    ("mean_contribution", pa.float32()), ("prevalence", pa.float32()), ("images", pa.int64()),
]  # fmt: skip


def spoken(logits: tuple[Tensor, Tensor], tally: Tally, meaning: Meaning) -> list[list[int]]:
    """Return up to three classes that each concept speaks for in the images, the first first.

    Of a class, the images that the model puts in it are asked. A concept speaks for it if it adds
    its share there (:data:`dff.scoring.labels.SHARE`); and for none, if most of what it adds goes
    to classes of which it does not: grass adds to "horse" in a thousand images, and is the main
    thing in one of a golf ball.
    """
    at_full, empty = logits
    images = np.array([tally.images.get(c, 0) for c in range(at_full.shape[1])])
    asked = np.flatnonzero(images)
    added = meaning.relative(at_full - empty).cpu().double().numpy()[:, asked].clip(min=0)
    if len(asked):
        added *= np.stack([tally.mean[int(c)] for c in asked], 1)  # sums over a class's images
    own = np.where(added > SHARE * added.mean(0), added, 0)
    own[own.sum(1) < added.sum(1) / 2] = 0
    return [
        [int(asked[i]) for i in np.argsort(-row, kind="stable")[:3] if row[i] > 0] for row in own
    ]


def _concepts(
    bank: ConceptBank,
    said: Sequence[Sequence[int]] | None,
    class_names: Sequence[str] | None,
    tally: Tally,
) -> pa.Table:
    images = tally.together.diagonal()
    tops = (
        [None] * len(bank)
        if said is None
        else ["; ".join(class_name(c, class_names) for c in classes) for classes in said]
    )
    return pa.table(
        {
            "concept": pa.array(range(1, len(bank) + 1), pa.int32()),
            "name": pa.array(bank.names, pa.string()),
            "color": ["#" + bytes(color.tolist()).hex() for color in bank.colors],
            "share": pa.array(bank.shares.tolist(), pa.float32()),
            "images": pa.array(images, pa.int64()),
            "prevalence": pa.array(images / max(tally.total, 1), pa.float32()),
            "top_classes": pa.array(tops, pa.string()),
        }
    )


def _cooccurrence(bank: ConceptBank, tally: Tally) -> pa.Table:
    """Pairs of concepts: in how many images both are, and how much oftener than by chance."""
    k, both = len(bank), tally.together
    first, second = (index.ravel() for index in np.indices((k, k)))
    alone = both.diagonal().astype(np.float64)
    chance = alone[:, None] * alone[None, :] / max(tally.total, 1)
    lift = np.divide(both, chance, out=np.zeros((k, k)), where=chance > 0)
    return pa.table(
        {
            "concept": pa.array(first + 1, pa.int32()),
            "other": pa.array(second + 1, pa.int32()),
            "images": pa.array(both.ravel(), pa.int64()),
            "lift": pa.array(lift.ravel(), pa.float32()),
        }
    )


def _labels(bank: ConceptBank, tally: Tally) -> pa.Table:
    """Concept x label of the dataset; empty where images have no labels."""
    labels = sorted(tally.images, key=str)
    rows = [(k, label) for k in range(len(bank)) for label in labels]
    return pa.table(
        {
            "concept": pa.array([k + 1 for k, _ in rows], pa.int32()),
            "label": pa.array([str(label) for _, label in rows], pa.string()),
            "prevalence": pa.array(
                [tally.present[label][k] / tally.images[label] for k, label in rows], pa.float32()
            ),
            "mean": pa.array(
                [tally.mean[label][k] / tally.images[label] for k, label in rows], pa.float32()
            ),
            "images": pa.array([tally.images[label] for _, label in rows], pa.int64()),
        }
    )
