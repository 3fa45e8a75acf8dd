"""Which concepts of two explanations are the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dff
from dff.errors import BankError, UsageError
from tests.toys import ConvNet, PixelNet, seeded

SHARED = Path(__file__).resolve().parents[2] / "shared"
PREP = dff.Preprocessing(size=48, mean=0.0, std=1.0, fixed=True)
COLORS = np.eye(3)


def painted(*order: int) -> np.ndarray:
    """A photo of stripes of pure red, green and blue, in an order."""
    return np.repeat([COLORS[[*order]]], 48, 0).repeat(48 // len(order), 1).astype(np.float32)


@pytest.fixture(scope="module")
def colors():
    """An explainer whose concepts are the colours of a photo."""
    return dff.Explainer(seeded(PixelNet), layer="body", preprocessing=PREP)


def test_the_same_concepts_are_found_in_another_photo(colors):
    first, second = colors(painted(0, 1), concepts=2), colors(painted(2, 1, 1), concepts=2)
    result = first.compare(second)
    assert result.by == "embeddings"
    (match,) = result.matches
    ours, theirs = (r.bank.components.argmax(1).tolist() for r in (first, second))
    assert ours[match.first] == theirs[match.second] == 1, "green is in both"
    assert match.similarity == pytest.approx(1, abs=1e-3)
    assert [ours[k] for k in result.gone] == [0]
    assert [theirs[k] for k in result.new] == [2]
    assert result.similarity.shape == (2, 2)
    assert repr(result) == "Comparison(1 concepts match, 1 gone, 1 new, by embeddings)"
    assert result.as_dict() == {
        "by": "embeddings",
        "threshold": result.threshold,
        "matches": [{"first": match.first + 1, "second": match.second + 1,
                     "similarity": round(match.similarity, 6)}],
        "gone": [result.gone[0] + 1],
        "new": [result.new[0] + 1],
    }  # fmt: skip
    lines = result.as_text().splitlines()
    assert lines[0].split() == ["first", "second", "embeddings"]
    assert lines[1].endswith("1.00")
    assert lines[2].endswith("gone")
    assert lines[3].endswith("new")


def test_matches_are_one_to_one(colors):
    result = colors(painted(0, 1, 2), concepts=3)
    twice = replace(result.bank, components=result.bank.components[[0, 0, 1]])
    other = dff.Explanation(
        tuple(replace(p, shared=replace(p.shared, bank=twice)) for p in result.photos)
    )
    matches = other.compare(result).matches
    assert len({m.second for m in matches}) == len(matches) == 2
    assert [(m.first, m.second) for m in result.compare(result).matches if m.similarity > 0.99] == [
        (k, k) for k in range(3)
    ]


def test_models_are_compared_by_their_maps(colors):
    photo = painted(0, 1, 2)
    other = dff.Explainer(
        seeded(ConvNet), layer="stem", preprocessing=replace_size(PREP), class_names=None
    )
    first, second = colors(photo, concepts=3), other(photo, concepts=3)
    result = first.compare(second, threshold=0.3)
    assert result.by == "maps"
    maps = [r.heatmaps((64, 64)).reshape(3, -1) for r in (first, second)]
    expected = np.corrcoef(*maps)[:3, 3:]
    constant = np.isnan(expected)
    assert result.similarity[~constant] == pytest.approx(expected[~constant], abs=0.05)
    assert {m.first for m in result.matches} | {*result.gone} == {0, 1, 2}
    assert {m.second for m in result.matches} | {*result.new} == {0, 1, 2}
    assert first.compare(first, by="maps").similarity.diagonal() == pytest.approx(1)
    with pytest.raises(UsageError, match="on the same photos, and these photos differ"):
        first.compare(other(painted(1, 0, 2), concepts=3))
    with pytest.raises(BankError):
        first.compare(second, by="embeddings")


def replace_size(prep):
    return dff.Preprocessing(size=prep.size, mean=0.0, std=1.0, fixed=True)


def test_what_cannot_be_compared(colors):
    result = colors(painted(0, 1), concepts=2)
    with pytest.raises(UsageError, match="by is one of embeddings, maps, not 'colour'"):
        result.compare(result, by="colour")
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="threshold is a similarity"):
            result.compare(result, threshold=wrong)
    with pytest.raises(UsageError, match="another explanation, not 'x'"):
        result.compare("x")


def test_other_weights_have_other_channels(colors):
    """Two trainings of one network: the name is the same, the embeddings do not compare."""
    result = colors(painted(0, 1), concepts=2)

    def of(weights):
        bank = replace(result.bank, recipe={"weights": "w", "sha256": weights})
        return dff.Explanation(
            tuple(replace(p, shared=replace(p.shared, bank=bank)) for p in result.photos)
        )

    assert of("a" * 64).compare(of("a" * 64)).by == "embeddings"
    assert of("a" * 64).compare(of("b" * 64)).by == "maps"


def test_the_threshold_on_real_photos():
    """Most concepts of a photo are found again in its mirror image, and few in other photos."""
    weights = SHARED / "models/mobilenet_v2_imagenet.safetensors"
    if not weights.exists():
        pytest.skip("the shared models and photos are not there")
    torch.manual_seed(0)
    model = dff.load_model("mobilenet_v2", weights=weights, mean=0.5, std=0.5, size=225)
    explainer = dff.Explainer(model)
    pixels = [
        dff.read_image(SHARED / f"data/photos/{name}.jpg").pixels[::2, ::2]
        for name in ("puppies", "elephant", "zebra")
    ]
    first = [explainer(p, concepts=5) for p in pixels]
    mirrored = [explainer(np.ascontiguousarray(p[:, ::-1]), concepts=5) for p in pixels]
    same = sum(len(a.compare(b).matches) for a, b in zip(first, mirrored, strict=True))
    other = sum(len(first[i].compare(first[i - 1]).matches) for i in range(3))
    assert same >= 11, "of 15"
    assert other == 0
