"""The model that answers questions: it looks, and says which concept it looks at."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dff.cli import main
from dff.demo import creatures, model
from dff.demo.vqa import ANSWERS, PAD, UNKNOWN, VOCABULARY, encode, load, words_of
from dff.demo.vqa.questions import PHRASINGS, phrasings
from dff.demo.vqa.questions import ask as asked_of
from dff.errors import LayerError, UsageError
from dff.images import Preprocessing, read_image
from dff.vqa import (
    WAYS,
    ask,
    attribute,
    encoded,
    interpretable,
    vqa_explainer,
    word_html,
    word_terminal,
)
from tests.toys import untouched

FIRST = 7_000_000  # seeds that nothing was trained or tuned on
PARTS = ("head", "body", "legs", "tail", "wings")
STEPS = 32  # of an integral: within 0.1 % here, and the ways take the same ones
PREP = Preprocessing(size=model.INPUT_SIZE, mean=model.MEAN, std=model.STD)


def scene(seed: int):
    chimera = creatures.CHIMERA if seed % 2 else None
    return creatures.render(seed, count=1 + (seed % 4 == 2), species=chimera)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return PREP.to_tensor(read_image(pixels))[None]


@pytest.fixture(scope="module")
def network():
    return load()


@pytest.fixture(scope="module")
def explainer():
    return vqa_explainer()


@pytest.fixture(scope="module")
def fox():
    return creatures.render(6_000_004, size=256, species="fox").image


def right(network, scenes, pictures) -> float:
    hits = []
    for number, (one, picture) in enumerate(zip(scenes, pictures, strict=True)):
        questions = asked_of(one, np.random.default_rng(number), unseen=True)
        with torch.no_grad():
            maps = network.backbone.maps(tensor(picture.image)).expand(len(questions), -1, -1, -1)
            read = network.text(*encode([q.text for q in questions]))
            best = network.answered(maps, read)[0].argmax(1).tolist()
        hits += [ANSWERS[i] == q.answer for i, q in zip(best, questions, strict=True)]
    return float(np.mean(hits))


def test_it_answers_unseen_questions_and_needs_the_picture(network):
    scenes = [scene(FIRST + i) for i in range(30)]
    assert right(network, scenes, scenes) >= 0.9
    assert right(network, scenes, scenes[7:] + scenes[:7]) <= 0.6


def test_unseen_phrasings_are_other_sentences_of_known_words():
    known = {word for kind in PHRASINGS for text in phrasings(kind) for word in text.split()}
    for kind in PHRASINGS:
        seen, unseen = phrasings(kind), phrasings(kind, unseen=True)
        assert unseen
        assert not set(seen) & set(unseen)
        assert {word for text in unseen for word in text.split()} <= known
    weights = Path(model.__file__).parent / "vqa" / "weights.safetensors"
    assert weights.stat().st_size <= 4 * 2**20


@pytest.mark.slow
def test_the_concept_of_the_part_asked_about_leads(explainer):
    leads = []
    for seed in range(FIRST, FIRST + 5):
        one = creatures.render(seed, species=creatures.CHIMERA if seed % 2 else None)
        parts = {part: one.parts[part] for part in PARTS if part in one.parts}
        questions = {f"what colour is the {part}": part for part in parts}
        found = ask(explainer, one.image, encoded(list(questions)), concepts=7)
        photo = next(iter(found.explanations.values())).photos[0]
        masks = photo.masks()
        for question, part in questions.items():
            truth = parts[part]
            iou = (masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2))
            if iou.max() >= 0.3:  # a concept matches the part
                (answer,) = found.answers[question]
                leads.append(answer.leading == int(iou.argmax()))
                split = answer.split
                total = split.values.sum(1) + split.rest + split.gap
                torch.testing.assert_close(total, split.logit)
                assert float(split.relative_gap.max()) <= 0.011
    assert len(leads) >= 10
    assert np.mean(leads) >= 0.8


def test_a_question_is_words_known_and_unknown():
    assert words_of("What COLOUR, is the head?") == ["what", "colour", "is", "the", "head"]
    with pytest.warns(UserWarning, match=r"does not know 'spaceship', 'trunk'"):
        numbers, lengths = encode(["the spaceship", "the trunk of the head"])
    assert numbers.tolist()[0][1:] == [UNKNOWN, PAD, PAD, PAD]
    assert lengths.tolist() == [2, 5]
    assert VOCABULARY[int(numbers[1, 4])] == "head"
    for empty in ("", "?!", []):
        with pytest.raises(UsageError, match=r"no (words|question)"):
            encode(empty)


def test_padding_and_company_change_nothing(network, fox):
    x = tensor(fox)
    questions = ["what colour is the head", "how many legs are there in the picture"]
    together = network(x.expand(2, -1, -1, -1), *encode(questions))
    alone = torch.cat([network(x, *encode(question)) for question in questions])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def attributed(network, fox, **options):
    question = "what colour is the head"
    x, (ids, length) = tensor(fox), encode(question)
    target = int(network(x, ids, length).argmax())
    return attribute(
        network, x, ids, length, embedding="text.embedding", target=target, steps=STEPS, **options
    )


def test_both_ways_of_integrated_gradients_give_the_same_numbers(network, fox):
    """Also of a model that is wrapped, and each time."""
    pytest.importorskip("captum", reason="needs captum (the attributions extra)")
    with untouched(network):
        found = [attributed(network, fox, way=way) for way in WAYS]
        wrapped = [attributed(nn.DataParallel(network), fox, way=way) for way in WAYS]
    first, second = found
    torch.testing.assert_close(first.words, second.words, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(first.image, second.image, rtol=1e-3, atol=1e-5)
    for one, again in zip(found, wrapped, strict=True):
        assert torch.equal(one.words, again.words)
        assert one.total == pytest.approx(one.end - one.start + one.delta, abs=1e-4)
        assert abs(one.delta) < 0.03 * abs(one.end - one.start)
        assert len(one.words) == 5
        assert one.image.shape == (3, 128, 128)


def test_embedding_layers_are_given_back_after_failures(network, fox):
    own = network.text.embedding
    with pytest.raises(ZeroDivisionError), interpretable(network, "text.embedding") as layer:
        assert layer is own
        assert network.text.embedding is not own
        raise ZeroDivisionError
    assert network.text.embedding is own
    for way in WAYS:
        with untouched(network), pytest.raises((IndexError, AssertionError)):
            ids, length = encode("what is on the picture")
            attribute(
                network, tensor(fox), ids, length, embedding="text.embedding", target=10_000,
                way=way,
            )  # fmt: skip
        assert network.text.embedding is own
    with pytest.raises(LayerError, match=r"no layer 'text.embeding'.*did you mean"):
        attribute(network, tensor(fox), ids, length, embedding="text.embeding", target=0)
    with pytest.raises(UsageError, match="way is one of layer, embedding"):
        attributed(network, fox, way="deeplift")


def test_words_are_coloured_by_what_they_contribute():
    page = word_html(["<b>", "red", "none"], [2.0, -1.0, 0.0])
    assert "&lt;b&gt;" in page
    assert "rgb(44, 150, 84)" in page  # the largest, for
    assert "rgb(228, 160, 156)" in page  # half of it, against
    assert "rgb(255, 255, 255)" in page
    assert 'title="-1.000"' in page
    line = word_terminal(["one\x1b[2J", "two"], [1.0, -1.0])
    assert "\x1b[2J" not in line
    assert line.count("\x1b[0m") == 2
    assert "48;2;44;150;84" in word_terminal(["half"], [1.0])
    assert "48;2;44;150;84" not in word_terminal(["half"], [1.0], largest=2.0)
    with pytest.raises(UsageError, match="1 words do not fit 2 values"):
        word_html(["one"], [1, 2])


def test_answers_of_one_photo_share_their_concepts(explainer, fox, tmp_path):
    found = ask(
        explainer, fox, encoded(["what colour is the head", "how many legs are there"]), top_k=2
    )
    assert [len(answers) for answers in found.answers.values()] == [2, 2]
    first, second = (answers[0] for answers in found.answers.values())
    assert (first.score.name, second.score.name) == ("orange", "4")
    assert first.leading != second.leading
    for one in found.explanations.values():
        assert torch.equal(one.bank.components, found.bank.components)
    drawn = found.panel()
    assert drawn.width > drawn.height
    report = json.loads(found.save(tmp_path)[1].read_text())
    told = report["questions"][1]["answers"][0]
    total = sum(told["contributions"]) + told["rest"] + told["gap"]
    assert total == pytest.approx(told["logit"], abs=2e-3)
    only = ask(explainer, fox, encoded(["what colour is the head"]), answer="brown")
    assert [answer.score.name for answer in only.answers["what colour is the head"]] == ["brown"]
    with pytest.raises(UsageError, match="purple"):
        ask(explainer, fox, encoded(["what colour is the head"]), answer="purple")
    with pytest.raises(UsageError, match="one photo, not of 2"):
        ask(explainer, [fox, fox], encoded(["what is on the picture"]))
    with pytest.raises(UsageError, match="no question"):
        ask(explainer, fox, {})


def test_the_command(fox, tmp_path, capsys):
    Image.fromarray(fox).save(tmp_path / "fox.png")
    words = ["vqa", str(tmp_path / "fox.png"), "what colour is the head", "--json"]
    with pytest.raises(SystemExit) as done:
        main([*words, "--out", str(tmp_path / "out")])
    assert done.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["questions"][0]["answers"][0]["answer"] == "orange"
    assert sorted(path.name for path in (tmp_path / "out").glob("answers.*")) == [
        "answers.json", "answers.png",
    ]  # fmt: skip
    for asked, status, said in (
        (["", "--json"], 2, "has no words"),
        (["what is here", "--answer", "a unicycle"], 2, "unicycle"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["vqa", str(tmp_path / "fox.png"), *asked, "--out", str(tmp_path / "no")])
        assert done.value.code == status
        assert said in capsys.readouterr().err


def example(name: str):
    path = Path(__file__).resolve().parents[1] / "examples" / "vqa" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"vqa_{name}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_explains_picture_and_words(tmp_path, capsys, monkeypatch):
    pytest.importorskip("captum", reason="needs captum (the attributions extra)")
    explain = example("explain")
    monkeypatch.setattr(explain, "attribute", partial(attribute, steps=STEPS))
    figures = explain.main([], tmp_path / "out")
    assert figures["layer words"] == pytest.approx(figures["embedding words"], abs=1e-3)
    assert abs(figures["layer delta"]) < 0.1
    assert "logits" in capsys.readouterr().out
    assert "span" in (tmp_path / "out/words.html").read_text()
    assert Image.open(tmp_path / "out/picture.png").width > 400


@pytest.mark.slow
def test_training_learns_and_is_the_same_again(tmp_path):
    train = example("train")
    few = ["--scenes", "8", "--read-epochs", "1", "--look-epochs", "1", "--workers", "1",
           "--threads", "1", "--test-scenes", "2"]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.main([*few, "--out", str(tmp_path / "a.safetensors")])
        train.main([*few, "--out", str(tmp_path / "b.safetensors")])
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
