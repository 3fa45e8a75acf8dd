"""The renderer: the same bytes everywhere, masks that tell the truth, and messages."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dff.demo import creatures
from dff.demo.creatures import PARTS, SPECIES_NAMES, Scene, render
from dff.errors import UsageError

# Seen with OpenCV 4.8, 4.10, 4.12 and 5.0, and NumPy 1.26, 2.2 and 2.4.
GOLDEN = "547e9e50901b30be5a9b9539f165b4c4d6f148dee98734ea80c6893d4cbcce61"


def digest(scenes: list[Scene]) -> str:
    total = hashlib.sha256()
    for scene in scenes:
        total.update(scene.image.tobytes())
        for animal in scene.animals:
            for name, mask in sorted(animal.parts.items()):
                total.update(name.encode())
                total.update(mask.tobytes())
    return total.hexdigest()


def test_golden_hash() -> None:
    sizes = (64, 128, 200, 512)
    assert digest([render(i, size=sizes[i % 4], count=1 + i % 3) for i in range(60)]) == GOLDEN


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    size=st.integers(64, 200),
    count=st.integers(1, 6),
)
def test_scene_is_consistent(seed: int, size: int, count: int) -> None:
    scene = render(seed, size=size, count=count)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8
    assert len(scene.animals) == count
    owners = np.zeros((size, size), int)
    for animal in scene.animals:
        assert set(animal.parts) == set(animal.boxes) <= set(animal.kinds) <= set(PARTS)
        assert SPECIES_NAMES[animal.label] == animal.species
        for name, mask in animal.parts.items():
            x0, y0, x1, y1 = animal.boxes[name]
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 0
            assert mask[y0, :].any()
            assert mask[:, x1 - 1].any()
            assert not (mask & ~animal.mask).any()
            owners += mask
    assert owners.max(initial=0) <= 1


@pytest.mark.parametrize("species", SPECIES_NAMES)
def test_every_part_of_a_species_is_seen(species: str) -> None:
    animals = [render(seed, species=species).animals[0] for seed in range(12)]
    assert all(animal.species == species for animal in animals)
    for part in animals[0].kinds:
        assert sum(part in animal.parts for animal in animals) >= 9, part


def test_swapped_background_keeps_the_animal() -> None:
    first, other = render(5), render(5, background_seed=6)
    mask = first.animals[0].mask
    np.testing.assert_array_equal(other.animals[0].mask, mask)
    inside = np.abs(first.image.astype(int) - other.image)[mask].mean()
    outside = np.abs(first.image.astype(int) - other.image)[~mask].mean()
    assert inside < 2 < 20 < outside
    np.testing.assert_array_equal(render(5, background_seed=5).image, first.image)


def test_animals_look_the_same_at_any_size() -> None:
    small, large = render(11, size=96).animals[0], render(11, size=384).animals[0]
    shrunk = large.mask.reshape(96, 4, 96, 4).mean((1, 3)) > 0.5
    union = (shrunk | small.mask).sum()
    assert (shrunk & small.mask).sum() / union > 0.88  # edges are half a pixel wide at every size


def test_species_share_parts() -> None:
    kinds = {name: render(0, species=name).animals[0].kinds for name in SPECIES_NAMES}
    assert kinds["griffin"]["head"] == kinds["eagle"]["head"]
    assert kinds["griffin"]["body"] == kinds["lion"]["body"]
    assert len({tuple(sorted(k.items())) for k in kinds.values()}) == len(SPECIES_NAMES) >= 8


def test_global_random_state_is_untouched() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    render(1, count=2)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_scene_joins_the_parts_of_its_animals() -> None:
    scene = render(4, species=["lion", "eagle"], count=2)
    assert {animal.species for animal in scene.animals} == {"lion", "eagle"}
    joined = sum(int(animal.parts["head"].sum()) for animal in scene.animals)
    assert int(scene.parts["head"].sum()) == joined


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 63}, "64 to 512 pixels, not 63"),
        ({"size": 513}, "64 to 512 pixels, not 513"),
        ({"count": 0}, "1 to 6 animals, not 0"),
        ({"species": "loin"}, "no species 'loin'; did you mean 'lion'"),
        ({"species": ["lion"], "count": 2}, "names 1 animals, but count is 2"),
        ({"background_seed": -1}, "0 or greater, not -1"),
    ],
)
def test_messages(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        creatures.render(0, **options)
