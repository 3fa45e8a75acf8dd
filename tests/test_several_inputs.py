"""Models that take more than an image: the image is found, and the rest is context."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import dff
from dff.activations import STOP, Tail, intercept
from dff.activations.context import found_image
from dff.errors import ModelError, UsageError
from dff.scoring import ConceptModule, split_logits
from gradcam import GradCAM, ScoreCAM
from gradcam.several import several
from tests.toys import ConvNet, images, seeded, untouched


class ToyVQA(nn.Module):
    """A hooked backbone, an LSTM, attention: (images, questions, lengths) to logits."""

    def __init__(self, width: int = 12, answers: int = 6) -> None:
        super().__init__()
        self.backbone = ConvNet(width)
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.out = nn.Linear(2 * width, answers)
        self.buffer = []
        self.backbone.layer4.register_forward_hook(lambda m, i, out: self.buffer.append(out))

    def forward(self, v, q, q_len):
        packed = pack_padded_sequence(
            self.embedding(q), q_len.cpu(), batch_first=True, enforce_sorted=False
        )
        read = self.lstm(packed)[1][1][0]
        self.buffer.clear()
        self.backbone(v)
        maps = self.buffer.pop()
        maps = maps / (maps.norm(dim=1, keepdim=True) + 1e-8)
        asked = read[:, :, None, None].expand_as(maps)  # as the tutorial tiles it
        weights = (3 * maps * asked).sum(1).flatten(1).softmax(1)
        seen = torch.einsum("np,ncp->nc", weights, maps.flatten(2))
        return self.out(torch.cat([seen, read], 1))


@dataclasses.dataclass
class Batch:
    picture: torch.Tensor
    words: dict
    note: str = "a note"


class Nested(nn.Module):
    """The same, called with one dataclass and a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ToyVQA()

    def forward(self, batch, *, scale=None):
        logits = self.inner(batch.picture, batch.words["ids"], batch.words["sizes"][0])
        return logits if scale is None else logits * scale


def question(*words: int, count: int = 1):
    return torch.tensor([words] * count), torch.tensor([len(words)] * count)


FIRST, SECOND = question(3, 4, 5), question(7, 2, 9)
BOTH = tuple(torch.cat(pair) for pair in zip(FIRST, SECOND, strict=True))


def explained(model, x, *context, concepts=3, **kwargs):
    ready = dff.Explainer(
        dff.Given(model, *context, **kwargs),
        layer=model.get_submodule("backbone.layer4") if hasattr(model, "backbone") else None,
        preprocessing=dff.Preprocessing(size=32, mean=0.5, std=0.25),
    )
    return ready, ready(x, concepts=concepts)


@pytest.fixture(scope="module")
def vqa():
    return seeded(ToyVQA)


def test_concepts_and_contributions_depend_on_the_question(vqa):
    x = images(1, 3, 32, 32)
    with untouched(vqa):
        ready, first = explained(vqa, x, *FIRST)
        second = ready.given(*SECOND)(x, concepts=3)
    for result, asked in ((first, FIRST), (second, SECOND)):
        torch.testing.assert_close(result.photos[0].logits[None], vqa(x, *asked))
        split = result.contributions(0)
        total = split.values.sum(1) + split.rest + split.gap
        torch.testing.assert_close(total, split.logit)
        assert float(split.relative_gap.max()) < 0.01
    assert not torch.allclose(first.contributions(0).values, second.contributions(0).values)
    assert not torch.allclose(first.concept_logits, second.concept_logits)


def test_each_image_has_its_own_question_or_all_share_one(vqa):
    x = images(2, 3, 32, 32)
    ready, shared = explained(vqa, x, *FIRST)
    each = ready.given(*BOTH)(x, concepts=3)
    torch.testing.assert_close(
        torch.stack([p.logits for p in shared.photos]), vqa(x, *question(3, 4, 5, count=2))
    )
    torch.testing.assert_close(torch.stack([p.logits for p in each.photos]), vqa(x, *BOTH))
    for photo, asked in zip(each.photos, (FIRST, SECOND), strict=True):
        alone = ready.given(*asked)(x[photo.item : photo.item + 1], bank=each.bank)
        torch.testing.assert_close(photo.probe_logits, alone.photos[0].probe_logits)
        torch.testing.assert_close(photo.cam(1), alone.photos[0].cam(1))
    expected = torch.stack(
        [ready.given(*asked)(x, bank=each.bank).concept_logits for asked in (FIRST, SECOND)]
    )
    torch.testing.assert_close(each.concept_logits, expected.mean(0))


def test_photos_of_several_sizes_keep_their_questions(vqa):
    ready, _ = explained(vqa, images(1, 3, 32, 32), *FIRST)
    photos = [np.full((40, 40 + 24 * (i % 2), 3), 60 * i, np.uint8) for i in range(3)]
    three = tuple(torch.cat([a, b, a]) for a, b in zip(FIRST, SECOND, strict=True))
    together = ready.given(*three)(photos, concepts=2)
    for i, asked in enumerate((FIRST, SECOND, FIRST)):
        alone = ready.given(*asked)(photos[i], bank=together.bank)
        torch.testing.assert_close(together.photos[i].logits, alone.photos[0].logits)


def test_the_whole_call_of_the_model_is_taken_as_it_is(vqa):
    x = images(2, 3, 32, 32)
    ready, _ = explained(vqa, x, *FIRST)
    result = ready((x, *BOTH), concepts=3)
    torch.testing.assert_close(torch.stack([p.logits for p in result.photos]), vqa(x, *BOTH))
    named = ready({"v": x, "q": BOTH[0], "q_len": BOTH[1]}, concepts=3)
    torch.testing.assert_close(named.concept_logits, result.concept_logits)
    seen = []
    output = intercept(
        vqa, "backbone.layer4", seen.append, {"q_len": BOTH[1], "q": BOTH[0], "v": x}
    )
    torch.testing.assert_close(output, vqa(x, *BOTH))
    assert seen[0].shape == (2, 12, 8, 8)


@pytest.mark.filterwarnings("ignore:the contributions miss")  # as said by their gap
def test_tail_and_concept_module_hold_the_question(vqa):
    x = images(2, 3, 32, 32)
    kept = []
    intercept(vqa, "backbone.layer4", lambda m: kept.append(m) or STOP, (x, *BOTH))
    tail = Tail(vqa, "backbone.layer4", (x, *BOTH))
    for item in (0, 1):
        maps = kept[0][item : item + 1]
        expected = vqa(x, *BOTH)[item].detach()
        torch.testing.assert_close(tail(maps.expand(3, -1, -1, -1), item), expected.expand(3, -1))
        torch.testing.assert_close(
            tail.whole(x[item : item + 1].repeat(2, 1, 1, 1), item)[1], expected
        )
    assert vqa.out in tail.modules()
    components, rest = kept[0][0].flatten(1).T[:3], kept[0][1]
    module = ConceptModule(tail, components, rest=rest, item=1)
    torch.testing.assert_close(module(torch.zeros(2, 3, 8, 8))[0], vqa(x, *BOTH)[1].detach())
    w = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    split = split_logits(module, w, torch.eye(6)[:2])
    torch.testing.assert_close(split.values.sum(1) + split.rest + split.gap, split.logit)


@pytest.mark.parametrize("kind", [GradCAM, partial(ScoreCAM, ratio_channels=0.5)])
def test_cams_take_the_whole_call(vqa, kind):
    x = images(2, 3, 32, 32)
    cam = kind(vqa, ["backbone.layer4"])
    with untouched(vqa):
        both = cam((x, *BOTH), [1, 2])
    torch.testing.assert_close(cam.outputs, vqa(x, *BOTH).detach())
    for i, asked in enumerate((FIRST, SECOND)):
        alone = kind(dff.Given(vqa, *asked), ["backbone.layer4"])(x[i : i + 1], [1 + i])
        np.testing.assert_allclose(both[i], alone[0], atol=1e-5)
    assert np.abs(both[0] - cam((x, *SECOND), [1, 2])[0]).max() > 1e-3
    maps = several(vqa, "backbone.layer4", (x[:1], *FIRST), ["gradcam"], [1])
    np.testing.assert_allclose(
        maps["gradcam"][0], GradCAM(vqa, "backbone.layer4")((x[:1], *FIRST), 1)[0]
    )


def test_nested_inputs_and_keywords():
    model, x = seeded(Nested), images(2, 3, 32, 32)
    words = {"ids": BOTH[0], "sizes": (BOTH[1],)}
    batch, scale = Batch(x, words), torch.tensor([[2.0], [3.0]])
    expected = model(batch, scale=scale)
    inputs = dff.Arguments(batch, scale=scale)
    torch.testing.assert_close(
        intercept(model, "inner.backbone.layer4", lambda m: None, inputs), expected
    )
    ready = dff.Explainer(
        dff.Given(model, Batch(dff.IMAGE, words), scale=scale),
        layer="inner.backbone.layer4",
        preprocessing=dff.Preprocessing(size=32, mean=0.5, std=0.25),
    )
    result = ready(x, concepts=2)
    torch.testing.assert_close(torch.stack([p.logits for p in result.photos]), expected.detach())
    assert batch.words is words
    assert batch.picture is x


def test_what_is_fixed_is_handed_over_whatever_the_batch():
    class Compared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = ConvNet(classes=4)

        def forward(self, x, texts, scale):
            return scale * self.body(x) @ texts.T

    model, x, texts = seeded(Compared), images(2, 3, 32, 32), images(5, 4)
    given = dff.Given(model, dff.Fixed(texts), 2.0)
    torch.testing.assert_close(given(x), model(x, texts, 2.0))
    result = dff.Explainer(given, layer="body.layer4", preprocessing=dff.Preprocessing(size=32))(
        x, concepts=2
    )
    assert result.concept_logits.shape == (2, 5)


def test_a_model_of_images_and_texts_is_given_the_texts():
    pytest.importorskip("transformers", reason="needs transformers (the test extra)")
    from tests.test_headless import TOWERS, built

    clip, x = built("CLIPModel", "CLIPConfig", TOWERS), images(2, 3, 64, 64)
    ids = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0], [1, 9, 9, 2]])
    given = dff.Given(clip, input_ids=dff.Fixed(ids), pixel_values=dff.IMAGE)
    result = dff.Explainer(given, score=lambda output: output.logits_per_image)(x, concepts=2)
    expected = clip(input_ids=ids, pixel_values=x).logits_per_image.detach()
    torch.testing.assert_close(torch.stack([p.logits for p in result.photos]), expected)
    split = result[1].contributions(2)
    torch.testing.assert_close(split.values.sum(1) + split.rest + split.gap, split.logit)


def test_a_view_is_the_model(vqa):
    given = dff.Given(nn.DataParallel(vqa), *FIRST)
    assert dict(given.named_modules())["backbone.layer4"] is vqa.backbone.layer4
    assert given.backbone is vqa.backbone
    assert [p.shape for p in given.parameters()] == [p.shape for p in vqa.parameters()]
    assert len(list(vqa.named_modules())) == len(list(given.named_modules()))


def test_errors_say_which_input_is_meant_and_how_to_say_it(vqa):
    x = images(2, 3, 32, 32)
    with pytest.raises(UsageError, match=r"no input is an image.*input 0 \(1, 3\).*dff.IMAGE"):
        found_image(FIRST)
    with pytest.raises(UsageError, match=r"several inputs.*input 0 \(2, 3.*mask\['a'\] \(2, 1"):
        found_image(dff.Arguments(x, mask={"a": images(2, 1, 32, 32)}))
    with pytest.raises(UsageError, match="no input is an image"):
        GradCAM(vqa, "backbone.layer4")(FIRST)
    three = tuple(torch.cat([one, one, one]) for one in FIRST)
    with pytest.raises(UsageError, match=r"input 1 has 3 items for 2 images.*dff.Fixed"):
        intercept(vqa, "backbone.layer4", lambda m: None, (x, *three))
    ready, _ = explained(vqa, x, *FIRST)
    with pytest.raises(UsageError, match="3 items for 2 images"):
        ready.given(*three)(x)
    with pytest.raises(UsageError, match="several places"):
        dff.Given(vqa, dff.IMAGE, dff.IMAGE)
    with pytest.raises(UsageError, match="takes images alone"):
        dff.Explainer(seeded(ConvNet), preprocessing=dff.Preprocessing(size=32)).given(*FIRST)
    with pytest.raises(ModelError, match=r"forward takes \(v, q, q_len\).*dff.Given"):
        dff.Explainer(vqa)
